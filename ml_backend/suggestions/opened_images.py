"""What the model said of images when somebody opened them, kept for the clicks that may follow.

It stays in the process that said it: where another one answers the click, the model is asked again.
"""

from __future__ import annotations

import json
from collections.abc import Hashable
from dataclasses import replace

import numpy as np

from core.painting import Box
from core.prediction import Prediction
from ml_backend.ports import TaskRecord
from ml_backend.storage.models import StoredModel
from ml_backend.storage.projects import Project
from ml_backend.suggestions.seen_images import Kept

KEPT_BYTES = 100_000_000
"""Some sixteen images of 1,024 x 1,024. A larger image than this is not kept at all."""


class OpenedImages:
    """Predictions of whole images, without what clicks do not look at."""

    def __init__(self) -> None:
        self._kept: Kept[Prediction] = Kept(_bytes_of, KEPT_BYTES)

    def keep(self, project: Project, model: StoredModel, task: TaskRecord, prediction: Prediction) -> None:
        kept = _for_clicks(prediction)
        if _bytes_of(kept) <= KEPT_BYTES:
            self._kept.keep(_key(project, model, task), kept)

    def find(
        self, project: Project, model: StoredModel, task: TaskRecord, window: Box, shape: tuple[int, int]
    ) -> Prediction | None:
        """The part of a prediction that lies in a window; None where none of an image this large is kept."""
        kept = self._kept.get(_key(project, model, task))
        return None if kept is None or kept.shape != shape else _cut(kept, window)


def address_of(task: TaskRecord) -> str:
    """What a task's image is known by: another image at another address is looked at anew."""
    return json.dumps(dict(task.data), sort_keys=True, default=str)


def _key(project: Project, model: StoredModel, task: TaskRecord) -> Hashable:
    return project.folder, task.task_id, model.model_version, address_of(task)


def _for_clicks(prediction: Prediction) -> Prediction:
    unknown = np.broadcast_to(np.float16(np.nan), prediction.shape)
    return replace(
        prediction,
        predictive_entropy=unknown,
        expected_entropy=unknown,
        mutual_information=unknown,
        margin=unknown,
        probabilities=None,
    )


def _cut(prediction: Prediction, window: Box) -> Prediction:
    here = window.slices
    outline = prediction.outline
    return replace(
        prediction,
        label_map=prediction.label_map[here],
        runner_up=prediction.runner_up[here],
        confidence=prediction.confidence[here],
        predictive_entropy=prediction.predictive_entropy[here],
        expected_entropy=prediction.expected_entropy[here],
        mutual_information=prediction.mutual_information[here],
        margin=prediction.margin[here],
        outline=None if outline is None else outline[here],
    )


def _bytes_of(prediction: Prediction) -> int:
    maps = (prediction.label_map, prediction.runner_up, prediction.confidence, prediction.outline)
    return sum(values.nbytes for values in maps if values is not None)
