"""Label maps as a file that Label Studio imports: its tasks with annotations or predictions."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from core.asking.suggestion import SuggestedMask, Suggestion
from export.atomic_files import written_whole
from export.errors import ExportError
from export.result import Result
from ml_backend.label_studio.label_config import LabelConfig
from ml_backend.label_studio.results import to_prediction

FILE_NAME = "tasks.json"


def write_label_studio(
    out: Path, results: Iterable[Result], config: LabelConfig, model_version: str | None
) -> int:
    """Write `tasks.json`, one region per class and task; returns how many tasks that were.

    With a `model_version` regions are predictions of that name, without one annotations of a person.
    Every class is written, Background too, so what nobody labelled stays unlabelled.

    Raises
    ------
    ExportError
        The labeling setup has neither brush nor bitmask: outlines would not say the same pixels.
    """
    if config.answer_shape not in ("brush", "bitmask"):
        raise ExportError(
            "the labeling setup has neither brush nor bitmask, so Label Studio cannot take these masks "
            "pixel for pixel: add <BrushLabels>, or export with --form geojson or coco"
        )
    n_tasks = 0
    with written_whole(out / FILE_NAME) as scratch, scratch.open("w", encoding="utf-8") as file:
        file.write("[")
        for n_tasks, result in enumerate(results, 1):
            file.write("\n" if n_tasks == 1 else ",\n")
            file.write(json.dumps(_to_task(result, config, model_version), ensure_ascii=False))
        file.write("\n]\n")
    return n_tasks


def _to_task(result: Result, config: LabelConfig, model_version: str | None) -> dict[str, Any]:
    masks = [
        _cut_out(result.label_map == index, index)
        for index in range(len(config.schema.classes))
        if (result.label_map == index).any()
    ]
    suggestion = Suggestion(_shape_of(result.label_map), tuple(masks), (), score=1.0)
    prediction, _ = to_prediction(suggestion, config, model_version or "truth", result.name)
    # A label map knows no confidence, and "prediction" would take a person's pixels for the model's.
    origin = "manual" if model_version is None else "prediction"
    regions = [
        {key: value for key, value in region.items() if key != "score"} | {"origin": origin}
        for region in prediction["result"]
    ]
    if model_version is None:
        return {**result.task, "annotations": [{"result": regions}]}
    return {**result.task, "predictions": [{"model_version": model_version, "result": regions}]}


def _cut_out(mask: NDArray[np.bool_], class_index: int) -> SuggestedMask:
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return SuggestedMask(class_index, mask[top : top + height, left : left + width], top, left, 1.0)


def _shape_of(label_map: NDArray[np.uint8]) -> tuple[int, int]:
    height, width = label_map.shape
    return height, width
