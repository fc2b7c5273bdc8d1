"""What the annotations of one image say together: a person's newer over their older, then all people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from core.painting import Finding, Painting
from core.schema import LabelSchema
from core.truth.agreement import combine_annotators, combine_versions
from core.truth.label_map import SentMask, build_label_map
from core.truth.readiness import lint_label_map, lint_painting
from ml_backend.ports import SentRegion


def combine_paintings(
    paintings: Sequence[Painting],
    sent: Sequence[SentRegion],
    schema: LabelSchema,
    people: Sequence[Hashable] | None = None,
) -> tuple[NDArray[np.uint8], list[Finding]]:
    """Combine what was painted into one image as `(H, W)` uint8, with remarks for the people.

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
        message = f"{disagreement_px} pixels are labelled differently by different people and are not used."
        findings.append(Finding("annotators-disagree", message))
    findings += lint_label_map(combined, schema)
    return combined, merge_findings(findings)


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
