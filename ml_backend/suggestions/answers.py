"""What an answer depends on, and the small steps between what the core suggests and what is sent and kept."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.asking.regions import Region
from core.asking.suggestion import Suggestion, SuggestionSettings
from core.errors import MachineError
from core.painting import Box
from core.schema import IGNORE_INDEX, LabelSchema
from ml_backend.label_studio.label_config import LabelConfig
from ml_backend.parts import Parts
from ml_backend.ports import TaskRecord
from ml_backend.storage.projects import Project
from ml_backend.strokes.build_truth import TaskTruth
from ml_backend.strokes.damaged_truth import mark_one_damaged

UNDECIDED = 0.5
"""How sure two people who differ are together."""


def fingerprint(parts: Parts, config: LabelConfig, task: TaskRecord, truth: TaskTruth) -> str:
    """Of all that an answer depends on, its task and model version apart."""
    settings = asdict(suggestion_settings(parts, ask_when_sure=False))  # that depends on the model alone
    shown = [dict(task.data), repr(config), settings, truth.maps, *truth.disputes]
    told = json.dumps(shown, sort_keys=True, default=str)
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def suggestion_settings(parts: Parts, *, ask_when_sure: bool) -> SuggestionSettings:
    settings = parts.settings
    return SuggestionSettings(
        ask_when_sure=ask_when_sure,
        regions=settings.regions,
        send_background=settings.send_background,
        max_questions=settings.max_questions,
    )


def offers_clicks(config: LabelConfig) -> bool:
    """Whether a labeling setup has key points, which people click with."""
    return "keypointlabels" in config.controls.values()


def load_annotated(
    parts: Parts, project: Project, task_id: int, truth: TaskTruth, shape: tuple[int, int]
) -> NDArray[np.bool_]:
    """`(H, W)` bool: where people have painted already; nothing is asked there."""
    if truth.maps is None or truth.shape != shape:
        return np.zeros(shape, bool)
    try:
        label_map = parts.artifacts(project).load_truth(truth.maps)
    except MachineError as error:  # damaged, or built anew and swept meanwhile
        mark_one_damaged(parts, project, task_id, truth.maps, str(error))
        return np.zeros(shape, bool)
    annotated: NDArray[np.bool_] = label_map != IGNORE_INDEX
    return annotated


def to_disputed_regions(truth: TaskTruth, schema: LabelSchema) -> tuple[Region, ...]:
    """Questions of a third person where two differ; none about classes that the model does not have."""
    regions = []
    for top, left, height, width, *names in truth.disputes:
        first, second = (schema.index_of(str(name)) for name in names)
        if first is not None and second is not None:
            box = Box(int(top), int(left), int(height), int(width))
            regions.append(Region(box, 1.0, first, second, UNDECIDED, is_disputed=True))
    return tuple(regions)


def to_region_record(region: Region, schema: LabelSchema) -> dict[str, Any]:
    return {
        **asdict(region.box),
        "acquisition_score": float(region.acquisition_score),
        "class": schema.names[region.class_index],
        "runner_up": schema.names[region.runner_up_index],
        "confidence": float(region.confidence),
        **({"objects": region.n_objects} if region.n_objects else {}),
    }


def seen_classes(suggestion: Suggestion, schema: LabelSchema) -> list[str]:
    """Names of the classes that the model sees in an image: what it would rank by rare classes."""
    return sorted({schema.names[mask.class_index] for mask in suggestion.masks})


def with_classes_of(wanted: LabelSchema, suggestion: Suggestion, known: LabelSchema) -> Suggestion:
    """Number the classes as the labeling setup does now; what it no longer has is left out."""
    if wanted.names == known.names:
        return suggestion
    # By name, because indices move when somebody reorders the labels.
    index = {i: wanted.index_of(name) for i, name in enumerate(known.names)}
    masks = tuple(
        replace(mask, class_index=new)
        for mask in suggestion.masks
        if (new := index[mask.class_index]) is not None
    )
    regions = tuple(
        replace(region, class_index=first, runner_up_index=second)
        for region in suggestion.regions
        if (first := index[region.class_index]) is not None
        and (second := index[region.runner_up_index]) is not None
    )
    return replace(suggestion, masks=masks, regions=regions)
