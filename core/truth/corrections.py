"""What one submitted annotation took of a person, and how much of the model's suggestion they had to change.

An annotation that started from a prediction holds its regions: untouched, changed, or gone. How well what was
sent agrees with what was submitted is the *corrective Dice*. It is an upper bound: of a partly annotated
image, what nobody checked counts as right.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from core.painting import Box, BrushRegion, Painting, bounding_box, shared_box, slices_within
from core.schema import IGNORE_INDEX, LabelSchema
from core.truth.claims import Claim, SentMask, read_claim


@dataclass(frozen=True)
class Effort:
    """What a person did in one annotation.

    Attributes
    ----------
    strokes : regions painted by hand; Label Studio does not tell how often the brush was put down
    painted_px, erased_px : pixels painted by hand or added to the model's regions, and taken away from them
    accepted, corrected, deleted : regions of the prediction that came back as they were, otherwise, or not
    corrective_dice : per name of an object class that was sent or submitted; empty without a prediction
    """

    strokes: int = 0
    painted_px: int = 0
    erased_px: int = 0
    accepted: int = 0
    corrected: int = 0
    deleted: int = 0
    corrective_dice: Mapping[str, float] = field(default_factory=dict)


def measure_effort(
    painting: Painting,
    schema: LabelSchema,
    sent: Mapping[str, SentMask] | None = None,
    started_from: Collection[str] | None = None,
) -> Effort:
    """Count what a person did to one image.

    Parameters
    ----------
    painting : Painting
    schema : LabelSchema
    sent : mapping of region id to SentMask
        Everything the model ever drew into this image.
    started_from : ids of `sent`
        The prediction that the annotation started from, maybe empty; None when it started from nothing.

    Returns
    -------
    Effort

    Examples
    --------
    >>> import numpy as np
    >>> before = SentMask(1, 0, 0, np.array([[True, True, False, False]]))
    >>> after = BrushRegion("a", 1, "prediction-changed", 0, 0, np.array([[0, 255, 255, 255]], np.uint8))
    >>> schema = LabelSchema.of("Background", "Nucleus")
    >>> effort = measure_effort(Painting((1, 4), (after,)), schema, {"a": before}, ["a"])
    >>> effort.painted_px, effort.erased_px, effort.corrected, effort.corrective_dice
    (2, 1, 1, {'Nucleus': 0.4})
    """
    sent = sent or {}
    changes = [_compare(region, sent.get(region.region_id)) for region in painting.regions]
    strokes = [region for region in painting.regions if region.origin == "manual"]
    shown = set(started_from or ())
    back = [region for region in painting.regions if region.region_id in shown]
    accepted = sum(_is_untouched(region, sent[region.region_id]) for region in back)
    return Effort(
        strokes=len(strokes),
        painted_px=sum(added for added, _ in changes),
        erased_px=sum(erased for _, erased in changes),
        accepted=accepted,
        corrected=len(back) - accepted,
        deleted=len(shown - {region.region_id for region in back}),
        corrective_dice={} if started_from is None else _corrective_dice(painting, schema, sent, shown),
    )


def _compare(region: BrushRegion, sent: SentMask | None) -> tuple[int, int]:
    """Pixels that a person added to a region and took away from it."""
    n_painted = int(np.count_nonzero(region.painted))
    if region.origin == "manual":
        return n_painted, 0
    if sent is None:
        return 0, 0  # nobody knows what it was
    common = shared_box(region.box, sent.box)
    kept = (
        region.painted[slices_within(common, region.box)] & sent.mask[slices_within(common, sent.box)]
        if common.height and common.width
        else np.zeros((0, 0), bool)
    )
    n_kept = int(np.count_nonzero(kept))
    return n_painted - n_kept, int(np.count_nonzero(sent.mask)) - n_kept


def _is_untouched(region: BrushRegion, sent: SentMask) -> bool:
    return sent.class_index == region.class_index and _compare(region, sent) == (0, 0)


def _corrective_dice(
    painting: Painting, schema: LabelSchema, sent: Mapping[str, SentMask], shown: Collection[str]
) -> dict[str, float]:
    """Dice of what was sent against what was submitted, where either has something."""
    claims = [read_claim(r, schema, sent.get(r.region_id), painting.shape) for r in painting.regions]
    before = [sent[region_id] for region_id in shown if sent[region_id].mask.size]
    boxes = [claim.box for claim in claims] + [part.box for part in before]
    box = reduce(bounding_box, boxes, Box(0, 0, 0, 0))
    sent_map = np.full((box.height, box.width), IGNORE_INDEX, np.uint8)
    for part in before:
        if part.class_index >= 0:
            sent_map[slices_within(part.box, box)][part.mask] = part.class_index
    submitted = _submitted_map(claims, schema, box)
    return {
        schema.names[index]: round(2 * both / total, 4)
        for index in schema.object_indices
        for total, both in [_count_agreement(sent_map == index, submitted == index)]
        if total
    }


def _submitted_map(claims: Sequence[Claim], schema: LabelSchema, box: Box) -> NDArray[np.uint8]:
    """Classes of objects as the annotator left them: what a person painted beats what the model drew."""
    submitted = np.full((box.height, box.width), IGNORE_INDEX, np.uint8)
    ground = schema.background_index
    layers = (
        [(c, c.shown, c.class_index) for c in claims if c.by_model and c.class_index != ground],
        [(c, c.taught, IGNORE_INDEX) for c in claims if c.class_index == ground],
        [(c, c.shown, c.class_index) for c in claims if not c.by_model and c.class_index != ground],
    )
    for layer in layers:
        for claim, mask, value in layer:
            submitted[slices_within(claim.box, box)][mask] = value
    return submitted


def _count_agreement(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> tuple[int, int]:
    total = int(np.count_nonzero(one)) + int(np.count_nonzero(other))
    return total, int(np.count_nonzero(one & other))
