"""A stand-in for Label Studio whose images and objects are known, and a person's answers as its webhooks."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.annotator import SCHEMA, LabelledImage
from bench.fake_label_studio import FakeLabelStudio, _now
from core.painting import Box, BrushRegion
from core.rle import encode


class KnownLabelStudio(FakeLabelStudio):
    """Projects with given images; annotations come from `submit`."""

    def __init__(self) -> None:
        super().__init__({})
        self._known: dict[int, LabelledImage] = {}

    def add_project(self, project_id: int, images: Sequence[LabelledImage]) -> dict[str, int]:
        """Make a project of these images; returns the task of each by its name."""
        self.sides_px[project_id] = 0  # its images have sizes of their own
        task_ids = self.add_tasks(project_id, len(images))
        self._known.update(zip(task_ids, images, strict=True))
        return {image.name: task_id for task_id, image in zip(task_ids, images, strict=True)}

    def picture(self, task_id: int) -> tuple[bytes, NDArray[np.int32]]:
        known = self._known[task_id]
        buffer = io.BytesIO()
        Image.fromarray(known.image.squeeze()).save(buffer, "PNG", compress_level=1)
        return buffer.getvalue(), known.instances

    def submit(self, task_id: int, person: int, result: list[dict[str, Any]]) -> dict[str, Any]:
        """Create or update somebody's annotation of a task; returns the body of the webhook."""
        with self._lock:
            task = self.tasks[task_id]
            now = task["updated_at"] = _now()
            before = next(
                (
                    row
                    for row in self.annotations.values()
                    if row["task"] == task_id and row["completed_by"] == person
                ),
                None,
            )
            annotation = {
                "id": before["id"] if before else len(self.annotations) + 1,
                "task": task_id,
                "project": task["project"],
                "completed_by": person,
                "created_at": before["created_at"] if before else now,
                "updated_at": now,
                "was_cancelled": False,
                "lead_time": 12.5,
                "result": result,
            }
            self.annotations[int(annotation["id"])] = annotation
        action = "ANNOTATION_UPDATED" if before else "ANNOTATION_CREATED"
        project = self.project_row(task["project"])
        return {"action": action, "annotation": annotation, "task": task, "project": project}


def to_results(
    regions: Sequence[BrushRegion], reviewed: Sequence[Box], shape: tuple[int, int], name: str
) -> list[dict[str, Any]]:
    """Strokes and answers as the browser writes them: brush streams, and rectangles in percent."""
    found = [_brush(region, shape) for region in regions if region.alpha.size]
    return found + [_reviewed(f"{name}x{n}", box, shape) for n, box in enumerate(reviewed)]


def _brush(region: BrushRegion, shape: tuple[int, int]) -> dict[str, Any]:
    alpha = np.zeros(shape, np.uint8)
    alpha[region.box.slices] = region.alpha
    value = {"format": "rle", "rle": encode(alpha), "brushlabels": [SCHEMA.names[region.class_index]]}
    return {
        **_frame(region.region_id, shape),
        "type": "brushlabels",
        "from_name": "brush",
        "origin": region.origin,
        "value": value,
    }


def _reviewed(region_id: str, box: Box, shape: tuple[int, int]) -> dict[str, Any]:
    height, width = shape
    value = {
        "x": 100 * box.left / width,
        "y": 100 * box.top / height,
        "width": 100 * box.width / width,
        "height": 100 * box.height / height,
        "rotation": 0,
        "rectanglelabels": ["Reviewed"],
    }
    return {
        **_frame(region_id, shape),
        "type": "rectanglelabels",
        "from_name": "uncertain",
        "origin": "prediction",
        "value": value,
    }


def _frame(region_id: str, shape: tuple[int, int]) -> Mapping[str, Any]:
    return {
        "id": region_id,
        "to_name": "image",
        "original_width": shape[1],
        "original_height": shape[0],
        "image_rotation": 0,
    }
