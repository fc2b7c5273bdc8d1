"""Why a region that was read teaches nothing: every such region has one finding with the true reason."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.painting import Box, BrushRegion, Finding, Mask, Painting, shared_box
from core.schema import IGNORE_INDEX, LabelSchema
from core.truth.claims import Claim


@dataclass(frozen=True)
class ReadRegion:
    """A region, what it says, and the pixels of its class that could become truth `(height, width)` bool."""

    region: BrushRegion
    claim: Claim
    offered: Mask


def find_silent(
    read: Sequence[ReadRegion], painting: Painting, label_map: NDArray[np.uint8], schema: LabelSchema
) -> Iterator[Finding]:
    """Say of every region and reviewed area that left no pixel in the label map why it did not.

    Parameters
    ----------
    read : the painting's regions with what each of them says
    painting : Painting
    label_map : (H, W) uint8
        What came of all regions together.
    schema : LabelSchema

    Yields
    ------
    Finding
        One per region or area that teaches nothing.
    """
    for part in read:
        if not _teaches(part, label_map, schema):
            yield Finding(*_explain(part, schema))
    if schema.background_index is not None:
        return  # what is reviewed there teaches Background, or regions contradict each other and say so
    image = Box(0, 0, *painting.shape)
    for box in painting.reviewed:
        if np.all(label_map[shared_box(box, image).slices] == IGNORE_INDEX):
            yield Finding(
                "nothing-reviewed",
                "Nothing is shown in a Reviewed area, so it teaches nothing: the project has no Background. "
                "Paint what is there.",
            )


def _teaches(part: ReadRegion, label_map: NDArray[np.uint8], schema: LabelSchema) -> bool:
    here = label_map[part.claim.box.slices]
    if np.any(part.offered & (here == part.claim.class_index)):
        return True
    return schema.background_index is not None and bool(
        np.any(part.claim.erased & (here == schema.background_index))
    )


def _explain(part: ReadRegion, schema: LabelSchema) -> tuple[str, str]:
    """Code and message, the first reason that holds."""
    region, claim = part.region, part.claim
    name = schema.names[region.class_index]
    if claim.is_gone:
        return (
            "original-gone",
            f"A {name} region changes a prediction that is no longer known, so nobody can tell what a person "
            "changed; it is not used. Paint it anew, or say Reviewed around it.",
        )
    if claim.by_model and not part.offered.any():
        return (
            "untouched-prediction",
            f"A {name} region is a prediction that nobody touched: accepted without change it teaches nothing"
            ". Correct it, turn a box around what is right to Reviewed, or check 'Whole image reviewed'.",
        )
    if part.offered.any() or claim.erased.any():
        return _explain_covered(part, name, schema)
    if region.origin == "prediction-changed":
        return (
            "unchanged-prediction",
            f"A {name} region of the model was changed, but nothing was added to it and nothing taken away "
            "that could be learnt. Correct it, or say Reviewed around what is right.",
        )
    strongest = int(region.alpha.max(initial=0))
    if strongest == 0:
        return "empty-region", f"Nothing is painted in a {name} region. Paint in it, or delete it."
    return (
        "faint-mask",
        f"A {name} region is too faint: its strongest pixel is {strongest} of 255, and 128 or more counts as "
        "painted. Write 255 for painted and 0 for not into masks that a program makes.",
    )


def _explain_covered(part: ReadRegion, name: str, schema: LabelSchema) -> tuple[str, str]:
    if part.claim.class_index == schema.background_index:
        how = "objects were painted over all of it. Paint Background beside them"
    elif not part.offered.any():
        how = "of it something was only taken away, and the project has no Background, or objects are there"
    else:
        how = "every pixel of it is painted as another class too, or was given to a neighbour. Leave it one"
    return "covered-region", f"A {name} region teaches nothing: {how}."
