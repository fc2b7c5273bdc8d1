"""Regions that a prediction brought along, whatever they say of themselves: only a person's work is truth.

Predictions that programs make may mark their regions as `manual`, and Label Studio copies that mark into the
annotation, and into copies of that. Whether a region was there before the person came is seen by comparing it
with the predictions that the task has, anybody's.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from core.painting import Finding
from ml_backend.errors import LabelStudioRefusedError, LabelStudioUnavailableError, UncheckedCopyError
from ml_backend.label_studio.label_config import LabelConfig
from ml_backend.label_studio.paintings import parse_painting
from ml_backend.label_studio.shape_regions import SAID, has_shape
from ml_backend.parts import Parts
from ml_backend.ports import AnnotationRecord, SentRegion
from ml_backend.storage.projects import Project

log = logging.getLogger(__name__)

FOREIGN = "foreign"
"""Stands for the model version of a prediction that is not ours."""

UNCHECKED = Finding(
    "unchecked-copy",
    "An annotation started from a prediction, or as a copy of an annotation, that Label Studio does not "
    "show, or not any more: its regions that say they were painted by hand are believed. Delete those that a "
    "model made.",
)


@dataclass(frozen=True)
class Checked:
    """Annotations with the origins that hold, the originals of what was changed in them, and remarks."""

    annotations: list[AnnotationRecord]
    originals: tuple[SentRegion, ...] = ()
    findings: tuple[Finding, ...] = ()


def check_copies(
    parts: Parts,
    project: Project,
    annotations: Sequence[AnnotationRecord],
    ours: Collection[str],
    config: LabelConfig,
    shape: tuple[int, int],
) -> Checked:
    """Ask Label Studio where an annotation may hold regions of a prediction that is not ours.

    `ours` are the ids of regions that were sent from here: an annotation with one of them started from our
    prediction, and from no other. Raises `UncheckedCopyError` when nobody can be asked now.
    """
    doubtful = [one for one in annotations if _is_doubtful(one, ours, config)]
    if not doubtful:
        return Checked(list(annotations))
    try:
        predicted = parts.label_studio(project).list_predicted_regions(
            project.project_id, doubtful[0].task_id
        )
    except LabelStudioRefusedError as error:
        log.warning("skip_copy_check project=%d cause=%s", project.project_id, error)
        # A refusal will not pass by itself, so the annotation is believed, and people are told.
        predicted = ()
    except LabelStudioUnavailableError as error:
        raise UncheckedCopyError(
            f"Label Studio could not be asked which regions came with a prediction: {error}"
        ) from None
    if not predicted:
        return Checked(list(annotations), findings=(UNCHECKED,))
    by_id = {region["id"]: region for region in predicted if isinstance(region.get("id"), str)}
    marked = [_mark(one, by_id, predicted) if one in doubtful else one for one in annotations]
    originals = [_to_original(region, config, shape) for key, region in by_id.items() if key not in ours]
    return Checked(marked, tuple(original for original in originals if original is not None))


def _is_doubtful(annotation: AnnotationRecord, ours: Collection[str], config: LabelConfig) -> bool:
    """Whether it started from a prediction that may be a stranger's, and claims something painted by hand."""
    if not annotation.from_prediction:
        return False
    regions = [region for region in annotation.result if isinstance(region, Mapping)]
    if any(region.get("id") in list(ours) for region in regions):
        return False
    return any(
        _claims_hand(region) and region.get("from_name") in list(config.class_tags) for region in regions
    )


def _claims_hand(region: Mapping[str, Any]) -> bool:
    return (region.get("origin") or "manual") == "manual"


def _mark(
    annotation: AnnotationRecord,
    by_id: Mapping[str, Mapping[str, Any]],
    predicted: Sequence[Mapping[str, Any]],
) -> AnnotationRecord:
    """The annotation with the true origin of each region that a prediction brought along."""
    return replace(
        annotation, result=[_true_origin(region, by_id, predicted) for region in annotation.result]
    )


def _true_origin(region: Any, by_id: Mapping[str, Mapping[str, Any]], predicted: Sequence[Any]) -> Any:
    if not isinstance(region, Mapping) or not _claims_hand(region):
        return region
    value = region.get("value")
    if any(_says_the_same(value, other.get("value")) for other in predicted):
        return {**region, "origin": "prediction"}
    if isinstance(region.get("id"), str) and region["id"] in by_id:
        return {**region, "origin": "prediction-changed"}
    return region


def _says_the_same(value: Any, other: Any) -> bool:
    if not isinstance(value, Mapping) or not isinstance(other, Mapping):
        return False
    return all(value.get(key) == other.get(key) for key in SAID) and has_shape(value)


def _to_original(region: Mapping[str, Any], config: LabelConfig, shape: tuple[int, int]) -> SentRegion | None:
    """The mask of somebody's prediction; None where it cannot be read."""
    drawn = parse_painting([{**region, "origin": "manual"}], config, shape).regions
    if not drawn:
        return None
    one = drawn[0]
    name = config.schema.names[one.class_index]
    return SentRegion(str(region["id"]), name, FOREIGN, one.top, one.left, one.painted)
