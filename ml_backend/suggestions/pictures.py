"""Pictures of one task, as PNG: what the model thinks, where it is unsure, and what people taught it."""

from __future__ import annotations

import io
import time
import zlib
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.errors import MachineError
from core.network.checkpoint import Checkpoint
from core.objects.of_prediction import separated_objects
from core.prediction import Prediction
from core.schema import IGNORE_INDEX, LabelSchema
from export.colours import colour_of, palette
from export.overlay import draw_overlay, to_rgb
from ml_backend.errors import BusyError, NotFoundError
from ml_backend.label_studio.label_config import parse_label_config
from ml_backend.parts import Parts
from ml_backend.ports import TaskRecord
from ml_backend.storage import models, tasks
from ml_backend.storage.projects import Project
from ml_backend.strokes.build_truth import TaskTruth
from ml_backend.strokes.damaged_truth import mark_one_damaged
from ml_backend.suggestions.suggesting import Suggester

PictureKind = Literal["overlay", "probability", "uncertainty", "label_map", "truth"]

LONGEST_S = 60.0
"""Who asks for a picture waits this long at most."""

OVERLAY_PX = 640
"""The longer side of an image with its classes over it: a look, not a result."""

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
    setup = parse_label_config(project.label_config).schema if kind == "overlay" else None
    name = f"{task_id}-{kind}{_mark(setup)}.png"
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
        if setup is not None:
            image = parts.images.open(project.project_id, task_id, task.data)
            checkpoint = suggester.predictors.get(project, model).checkpoint
            picture = _overlay_png(image, prediction, checkpoint, setup)
        else:
            picture = _paint(prediction, kind)
        artifacts.save_picture(model.model_version, name, picture)
    return path.read_bytes()


def _mark(setup: LabelSchema | None) -> str:
    """Part of a file's name: colours follow the labeling setup, which may change while the model stays."""
    return "" if setup is None else f"-{zlib.crc32(repr(setup.names).encode()):08x}"


def _load_truth(parts: Parts, project: Project, task_id: int, name: str) -> NDArray[np.uint8]:
    try:
        return parts.artifacts(project).load_truth(name)
    except MachineError as error:
        mark_one_damaged(parts, project, task_id, name, str(error))
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


def _overlay_png(
    image: NDArray[Any], prediction: Prediction, checkpoint: Checkpoint, setup: LabelSchema
) -> bytes:
    """The image with the predicted classes over it, coloured in the order of the labeling setup."""
    known = checkpoint.schema
    objects = separated_objects(prediction, known, checkpoint.limits)
    # By name, because indices move when somebody reorders the labels.
    indices = np.full(IGNORE_INDEX + 1, IGNORE_INDEX, np.uint8)
    for index, name in enumerate(known.names):
        if (place := setup.index_of(name)) is not None:
            indices[index] = place
    height, width = prediction.shape
    shrink = min(1.0, OVERLAY_PX / max(height, width))
    size = (max(round(width * shrink), 1), max(round(height * shrink), 1))
    seen = cv2.resize(to_rgb(image), size, interpolation=cv2.INTER_AREA)
    labels = cv2.resize(indices[prediction.label_map], size, interpolation=cv2.INTER_NEAREST)
    numbers = cv2.resize(objects.astype(np.float32), size, interpolation=cv2.INTER_NEAREST)
    drawn = draw_overlay(
        np.asarray(seen, np.uint8), np.asarray(labels, np.uint8), numbers.astype(np.int32), setup
    )
    return _to_png(Image.fromarray(drawn))


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
