"""What the annotations of one image say together: a person's newer over their older, then all people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from core.painting import Finding, Painting
from core.schema import IGNORE_INDEX, LabelSchema
from core.truth.agreement import combine_annotators, combine_versions, find_disputes
from core.truth.label_map import SentMask, build_label_map
from core.truth.readiness import lint_label_map, lint_painting
from ml_backend.ports import SentRegion


@dataclass(frozen=True)
class Combined:
    """`label_map` is `(H, W)` uint8; `disputes` as in `ml_backend.strokes.build_truth.TaskTruth`."""

    label_map: NDArray[np.uint8]
    findings: list[Finding]
    disputes: tuple[tuple[int | str, ...], ...]


def combine_paintings(
    paintings: Sequence[Painting],
    sent: Sequence[SentRegion],
    schema: LabelSchema,
    people: Sequence[Hashable] | None = None,
) -> Combined:
    """Combine what was painted into one image, with remarks for the people and where they differ.

    `people` says who made each painting, the oldest first; without it everybody made one. Of one person, a
    newer annotation counts where it says something and the older ones elsewhere. Imports that name nobody
    are one person's.
    """
    masks = to_sent_masks(sent, schema)
    of_person: dict[Hashable, list[NDArray[np.uint8]]] = {}
    findings: list[Finding] = []
    for person, painting in zip(people or range(len(paintings)), paintings, strict=True):
        partial = build_label_map(painting, schema, masks)
        of_person.setdefault(person, []).append(partial.label_map)
        findings += lint_painting(painting, partial, schema)
    label_maps = []
    for versions in of_person.values():
        label_map, replaced_px = combine_versions(versions)
        label_maps.append(label_map)
        if replaced_px:
            message = (
                f"The same person made {len(versions)} annotations of this image, and they differ on "
                f"{replaced_px} pixels: the newest counts there. Delete the annotation that is wrong."
            )
            findings.append(Finding("newer-annotation", message))
    combined, disagreement_px = combine_annotators(label_maps)
    if disagreement_px:
        findings.append(_say_who_differs(disagreement_px, dict(zip(of_person, label_maps, strict=True))))
    findings += lint_label_map(combined, schema)
    disputes = tuple(
        (*astuple(dispute.box), *(schema.names[index] for index in dispute.class_indices))
        for dispute in (find_disputes(label_maps, combined) if disagreement_px else ())
    )
    return Combined(combined, merge_findings(findings), disputes)


def _say_who_differs(n_px: int, of_person: Mapping[Hashable, NDArray[np.uint8]]) -> Finding:
    """How many pixels wait for a third person, and on how many each two people differ."""
    pairs = []
    for (one, ours), (other, theirs) in combinations(of_person.items(), 2):
        differs = (ours != theirs) & (ours != IGNORE_INDEX) & (theirs != IGNORE_INDEX)
        if differs.any():
            pairs.append(f"annotators {one} and {other} on {np.count_nonzero(differs)}")
    message = (
        f"{n_px} pixels are labelled differently by different people and are not used "
        f"({'; '.join(pairs)}). Have a third person paint or review there: what most of them say counts."
    )
    return Finding("annotators-disagree", message)


def merge_findings(findings: Iterable[Finding]) -> list[Finding]:
    """The same remark about many regions once, with their number.

    Examples
    --------
    >>> merge_findings([Finding("faint-mask", "A mask is faint."), Finding("faint-mask", "A mask is faint.")])
    [Finding(code='faint-mask', message='A mask is faint. (2 times)')]
    """
    return [
        finding if n == 1 else Finding(finding.code, f"{finding.message} ({n} times)")
        for finding, n in Counter(findings).items()
    ]


def to_sent_masks(sent: Sequence[SentRegion], schema: LabelSchema) -> dict[str, SentMask]:
    """What was sent under each id; a class that the project has no more gets an index of none."""
    indices = {name: index for index, name in enumerate(schema.names)}
    return {
        region.region_id: SentMask(indices.get(region.class_name, -1), region.top, region.left, region.mask)
        for region in sent
    }
