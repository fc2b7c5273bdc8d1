"""Effort: what people did in each annotation, and what a round's annotations took together.

Measured when truth is built, counted when a round ends well, and then part of the round's report. A round
counts the annotations that are new or changed since the rounds before; of an edited one, only what was added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from core.painting import Painting
from core.truth.corrections import Effort, measure_effort
from core.truth.label_map import SentMask
from ml_backend.label_studio.label_config import LabelConfig
from ml_backend.ports import AnnotationRecord, SentRegion
from ml_backend.storage.efforts import OpenEffort

_FROM_MODEL = ("prediction", "prediction-changed")


@dataclass(frozen=True)
class Measured(Effort):
    """What one annotation took, as of its last edit: the effort in the image, and what Label Studio tells.

    `model_version` made the prediction that it started from; `questions_answered` are rectangles of the
    model that now say `Reviewed`. `clicks` are answers of smart tools that were accepted, which `strokes`
    then leaves out; Label Studio does not tell how many points each one took.
    """

    questions_answered: int = 0
    clicks: int = 0
    lead_time_s: float | None = None
    model_version: str | None = None


def measure(
    annotation: AnnotationRecord,
    painting: Painting,
    config: LabelConfig,
    sent: Sequence[SentRegion],
    masks: Mapping[str, SentMask],
    start: str | None,
) -> Measured:
    """Measure one annotation; `start` is the model version whose prediction it started from."""
    shown = None if start is None else [region.region_id for region in sent if region.model_version == start]
    effort = measure_effort(painting, config.schema, masks, shown)
    n_answered = sum(_is_answer(region, config) for region in annotation.result)
    worked = effort.strokes + effort.painted_px + effort.erased_px + effort.corrected + effort.deleted
    if annotation.lead_time_s is None and worked + n_answered == 0:
        return Measured()  # a copy that the server made of a prediction: nobody worked on it
    n_clicked = _count_clicked(annotation.result, painting)
    return Measured(
        **{**asdict(effort), "strokes": effort.strokes - n_clicked},
        clicks=n_clicked,
        questions_answered=n_answered,
        lead_time_s=None if annotation.lead_time_s is None else max(annotation.lead_time_s, 0.0),
        model_version=start,
    )


def find_start(
    annotation: AnnotationRecord,
    config: LabelConfig,
    sent: Sequence[SentRegion],
    newest_version: str | None,
    known: Mapping[str, Any] | None,
) -> str | None:
    """Which model version's prediction the annotation started from, None when it was none of ours.

    Label Studio names the prediction by a number that we never learn, so its regions tell. When all of them
    were deleted, or there were none, it was the newest one, unless somebody else's regions are there.
    `known` is what was measured before: what an annotation started from does not change by an edit.
    """
    regions = [region for region in annotation.result if isinstance(region, Mapping)]
    ids = {region.get("id") for region in regions if isinstance(region.get("id"), str)}
    versions = [region.model_version for region in sent if region.region_id in ids]
    # Sent regions are listed oldest first: of several versions the newest was shown.
    if versions:
        return versions[-1]
    if known is not None and known.get("model_version") is not None:
        return str(known["model_version"])
    of_model = [region for region in regions if region.get("origin") in _FROM_MODEL]
    tags = {region.get("from_name") for region in of_model}
    has_question = bool(tags & {config.uncertain_tag, config.reviewed_tag})
    is_ours = not tags & set(config.class_tags) and (annotation.from_prediction or has_question)
    return newest_version if is_ours else None


def sum_up(efforts: Sequence[OpenEffort]) -> dict[str, Any]:
    """What a round's annotations took together, for its report.

    Examples
    --------
    >>> first = OpenEffort(1, {"strokes": 5, "lead_time_s": 9.0}, {"strokes": 3, "lead_time_s": 4.0})
    >>> total = sum_up([first, OpenEffort(2, {"strokes": 1}, None)])
    >>> total["annotations"], total["strokes"], total["lead_time_s"]
    (2, 3, 5.0)
    """
    lead_times = [_added(effort, "lead_time_s") for effort in efforts if effort.measured.get("lead_time_s")]
    counts = {
        name: int(sum(_added(effort, name) for effort in efforts))
        for name in ("strokes", "clicks", "painted_px", "erased_px", "questions_answered")
    }
    kinds = ("accepted", "corrected", "deleted")
    return {
        "annotations": len(efforts),
        **counts,
        "lead_time_s": round(sum(lead_times), 1) if lead_times else None,
        "regions": {kind: sum(effort.measured.get(kind, 0) for effort in efforts) for kind in kinds},
        "corrective_dice": _sum_up_corrections([effort.measured for effort in efforts]),
    }


def _added(effort: OpenEffort, name: str) -> float:
    before = (effort.counted or {}).get(name) or 0
    return max(float(effort.measured.get(name) or 0) - before, 0.0)


def _sum_up_corrections(measured: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over annotations; of one annotation, the mean over its classes."""
    scored = [values for values in measured if values.get("corrective_dice")]
    by_class: dict[str, list[float]] = {}
    by_version: dict[str, list[float]] = {}
    for values in scored:
        by_version.setdefault(values["model_version"], []).append(fmean(values["corrective_dice"].values()))
        for name, dice in values["corrective_dice"].items():
            by_class.setdefault(name, []).append(dice)
    means = [mean for shares in by_version.values() for mean in shares]
    return {
        "mean": round(fmean(means), 4) if means else None,
        "annotations": len(means),
        "classes": {name: round(fmean(shares), 4) for name, shares in by_class.items()},
        "versions": {
            version: {"mean": round(fmean(shares), 4), "annotations": len(shares)}
            for version, shares in by_version.items()
        },
    }


def _count_clicked(result: Sequence[Any], painting: Painting) -> int:
    """Regions by hand that have a score: the page keeps the one that our answer to a smart tool came with."""
    scored = {
        region["id"]
        for region in result
        if isinstance(region, Mapping)
        and isinstance(region.get("id"), str)
        and isinstance(region.get("score"), (int, float))
    }
    return sum(region.origin == "manual" and region.region_id in scored for region in painting.regions)


def _is_answer(region: Any, config: LabelConfig) -> bool:
    """A rectangle of the model whose label a person changed to `Reviewed`."""
    if not isinstance(region, Mapping) or not isinstance(region.get("value"), Mapping):
        return False
    labels = region["value"].get("rectanglelabels")
    if not isinstance(labels, list) or region.get("from_name") != config.reviewed_tag:
        return False
    is_reviewed = config.offers(config.reviewed_tag, config.reviewed_label, labels)
    return is_reviewed and region.get("origin") in _FROM_MODEL
