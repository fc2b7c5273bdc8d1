"""Pictures of one task, as PNG: what the model thinks, where it is unsure, and what people taught it."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.errors import MachineError
from core.prediction import Prediction
from export.colours import colour_of, palette
from ml_backend.errors import BusyError, NotFoundError
from ml_backend.parts import Parts
from ml_backend.ports import TaskRecord
from ml_backend.storage import models, tasks
from ml_backend.storage.projects import Project
from ml_backend.strokes.build_truth import TaskTruth
from ml_backend.suggestions.suggesting import Suggester

PictureKind = Literal["probability", "uncertainty", "label_map", "truth"]

LONGEST_S = 60.0
"""Who asks for a picture waits this long at most."""

PNG_END = b"IEND\xaeB`\x82"


def draw(parts: Parts, suggester: Suggester, project: Project, task_id: int, kind: PictureKind) -> bytes:
    """A PNG of the size of the image; raises `NotFoundError` where there is nothing to show."""
    with parts.database.read() as connection:
        task = tasks.find_task(connection, project.project_id, task_id)
        model = models.find_model(connection, project.project_id, project.current_version)
    if task is None:
        raise NotFoundError(f"project {project.project_id} has no task {task_id}")
    artifacts = parts.artifacts(project)
    if kind == "truth":
        truth = TaskTruth.from_record(task.truth) if task.truth else TaskTruth()
        if truth.maps is None:
            raise NotFoundError(f"nothing is annotated in task {task_id} yet")
        return to_indexed_png(_load_truth(parts, project, task_id, truth.maps))
    if model is None:
        raise NotFoundError(f"project {project.project_id} has no model yet")
    name = f"{task_id}-{kind}.png"
    path = artifacts.pictures / model.model_version / name
    if not _is_whole(path):
        record = TaskRecord(task_id, project.project_id, task.data, "")
        prediction = suggester.predict(
            project,
            model,
            record,
            deadline=time.monotonic() + LONGEST_S,
            keep_details=kind == "uncertainty",
            keep_probabilities=kind == "probability",
        )
        artifacts.save_picture(model.model_version, name, _paint(prediction, kind))
    return path.read_bytes()


def _load_truth(parts: Parts, project: Project, task_id: int, name: str) -> NDArray[np.uint8]:
    try:
        return np.asarray(parts.artifacts(project).load_truth(name)[0])
    except MachineError as error:
        with parts.database.write() as connection:
            tasks.mark_unbuilt(connection, project.project_id, task_id)
        raise BusyError(f"{error}; they are made again, ask again in some seconds") from None


def _is_whole(path: Path) -> bool:
    """Whether a PNG has its end; anything else is drawn again."""
    return path.is_file() and path.read_bytes().endswith(PNG_END)


def _paint(prediction: Prediction, kind: PictureKind) -> bytes:
    if kind == "probability":
        return _probability_png(prediction)
    if kind == "uncertainty":
        return _uncertainty_png(prediction)
    return to_indexed_png(prediction.label_map)


def to_indexed_png(label_map: NDArray[np.uint8]) -> bytes:
    """A label map whose pixel values are the class indices, with a palette for people; 255 is white."""
    picture = Image.fromarray(label_map)
    picture.putpalette(palette())
    return _to_png(picture)


def _probability_png(prediction: Prediction) -> bytes:
    """The colours of the classes, mixed by their probabilities."""
    if prediction.probabilities is None:
        raise ValueError("probabilities were not kept")
    mixed = np.zeros((*prediction.shape, 3), np.float32)
    for index, probability in enumerate(prediction.probabilities):
        mixed += probability[..., None].astype(np.float32) * np.array(colour_of(index), np.float32)
    return _to_png(Image.fromarray(np.clip(mixed, 0, 255).astype(np.uint8)))


def _uncertainty_png(prediction: Prediction) -> bytes:
    """One minus the margin between the two likeliest classes: dark is sure, bright is a coin toss."""
    unsure = 1.0 - np.clip(prediction.margin.astype(np.float32), 0, 1)
    coloured = cv2.applyColorMap((unsure * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    return _to_png(Image.fromarray(np.ascontiguousarray(coloured[..., ::-1])))


def _to_png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", compress_level=3)
    return buffer.getvalue()
