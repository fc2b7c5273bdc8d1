"""As much of Label Studio as Brushloop talks to: projects, tasks, images, annotations, predictions.

Everything is kept in memory; `bench.fake_label_studio_app` serves it over HTTP. Images are generated, or
given to `add_project`. `paint` and `submit` save an annotation as a person would, and return the body that
Label Studio would post to the webhook; sending it, or losing it, is up to the caller.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.annotator import LabelledImage
from bench.painted_results import draw, paint_objects
from core.synthetic import Kind

API_KEY = "0123456789abcdef0123456789abcdef01234567"
CREATED_AT = "2026-11-22T07:18:49.192769Z"
CREATED_S = "1795331929"

LABEL_CONFIG = """<View>
  <Image name="image" value="$image"/>
  <BrushLabels name="brush" toName="image"><Label value="Background"/><Label value="Nucleus"/></BrushLabels>
  <RectangleLabels name="uncertain" toName="image">
    <Label value="Uncertain"/><Label value="Reviewed"/>
  </RectangleLabels>
</View>"""

N_PICTURES = 24
"""Different pictures per size; tasks beyond that number show them again."""


class FakeLabelStudio:
    """Projects and what is in them. `sides_px` gives the size of the images of each project."""

    def __init__(self, sides_px: Mapping[int, int], kind: Kind = "fluorescence") -> None:
        self.sides_px = dict(sides_px)
        self.kind = kind
        self.label_config = LABEL_CONFIG
        self.annotations: dict[int, dict[str, Any]] = {}
        self.tasks: dict[int, dict[str, Any]] = {}
        self.predictions: list[dict[str, Any]] = []
        self.model_versions: dict[int, str] = {}
        self.tabs: list[dict[str, Any]] = []
        self.url = ""
        self._lock = threading.RLock()
        self._pictures: dict[tuple[int, int], tuple[bytes, NDArray[np.int32]]] = {}
        self._results: dict[tuple[int, int, int | None], list[dict[str, Any]]] = {}
        self._given: dict[int, LabelledImage] = {}
        self.is_down = False
        self.away_as: int | str = 503  # what it answers then: a status, `html`, or `drip` without an end

    def add_project(self, project_id: int, images: Sequence[LabelledImage]) -> dict[str, int]:
        """Make a project of these images; returns the task of each by its name."""
        self.sides_px[project_id] = 0  # its images have sizes of their own
        task_ids = self.add_tasks(project_id, len(images))
        self._given.update(zip(task_ids, images, strict=True))
        return {image.name: task_id for task_id, image in zip(task_ids, images, strict=True)}

    def add_tasks(self, project_id: int, n: int) -> list[int]:
        with self._lock:
            first = len(self.tasks) + 1
            for task_id in range(first, first + n):
                self.add_task(project_id, task_id)
            return list(range(first, first + n))

    def add_task(self, project_id: int, task_id: int) -> None:
        address = f"/data/upload/{project_id}/{task_id}.png"
        with self._lock:
            self.tasks[task_id] = {
                "id": task_id,
                "project": project_id,
                "data": {"image": address},
                "updated_at": stamp_now(),
            }

    def paint(self, task_id: int, n_objects: int | None = None) -> dict[str, Any]:
        """Submit an annotation of a task: that many objects, or all, and Background around them."""
        result = self.make_result(task_id, n_objects)
        with self._lock:
            return self.save_annotation(len(self.annotations) + 1, task_id, 1, result)

    def submit(self, task_id: int, person: int, result: list[dict[str, Any]]) -> dict[str, Any]:
        """Create or update somebody's annotation of a task; returns the body of the webhook."""
        with self._lock:
            rows = list(self.annotations.values())
            theirs = [r["id"] for r in rows if r["task"] == task_id and r["completed_by"] == person]
            return self.save_annotation(theirs[0] if theirs else len(rows) + 1, task_id, person, result)

    def save_annotation(
        self, annotation_id: int, task_id: int, person: int, result: list[dict[str, Any]]
    ) -> dict[str, Any]:
        """Create or update an annotation; returns the body of the webhook."""
        with self._lock:
            task = self.tasks[task_id]
            now = task["updated_at"] = stamp_now()
            before = self.annotations.get(annotation_id)
            annotation = {
                "id": annotation_id,
                "task": task_id,
                "project": task["project"],
                "completed_by": person,
                "created_at": before["created_at"] if before else now,
                "updated_at": now,
                "was_cancelled": False,
                "lead_time": 12.5,
                "result": result,
            }
            self.annotations[annotation_id] = annotation
        action = "ANNOTATION_UPDATED" if before else "ANNOTATION_CREATED"
        project = self.project_row(task["project"])
        return {"action": action, "annotation": annotation, "task": task, "project": project}

    def make_result(self, task_id: int, n_objects: int | None = None) -> list[dict[str, Any]]:
        """One region per object and one of Background, with the browser's soft edges."""
        key = (*self._picture_key(task_id), n_objects)
        if key not in self._results:
            self._results[key] = paint_objects(self.picture(task_id)[1], n_objects)
        return [{**region, "id": f"t{task_id}{region['id']}"} for region in self._results[key]]

    def picture(self, task_id: int) -> tuple[bytes, NDArray[np.int32]]:
        """The PNG of a task and the objects in it."""
        if task_id in self._given:
            given = self._given[task_id]
            return to_png(given.image), given.instances
        side, seed = self._picture_key(task_id)
        with self._lock:
            if (side, seed) not in self._pictures:
                image, instances = draw(self.kind, seed, side)
                self._pictures[side, seed] = to_png(image), instances
            return self._pictures[side, seed]

    def _picture_key(self, task_id: int) -> tuple[int, int]:
        return self.sides_px[self.tasks[task_id]["project"]], task_id % N_PICTURES

    def project_row(self, project_id: int) -> dict[str, Any]:
        return {
            "id": project_id,
            "title": f"Project {project_id}",
            "label_config": self.label_config,
            "model_version": self.model_versions.get(project_id),
            "created_at": CREATED_AT,
            "task_number": sum(row["project"] == project_id for row in list(self.tasks.values())),
        }

    def task_row(self, task_id: int, fields: Sequence[str] | None = None) -> dict[str, Any]:
        """A task with its annotations; `fields` holds for both, as in the real server."""
        with self._lock:
            found = [row for row in self.annotations.values() if row["task"] == task_id]
            row = {**self.tasks[task_id], "annotations": found}
        if fields is None:
            return row
        if "predictions" in fields:
            with self._lock:
                return {"id": task_id, "predictions": [p for p in self.predictions if p["task"] == task_id]}
        annotations = [{k: v for k, v in a.items() if k in fields} for a in found]
        return {**{k: v for k, v in row.items() if k in fields}, "annotations": annotations}

    def setup_body(self, project_id: int) -> dict[str, Any]:
        """What `/setup` is posted."""
        return {
            "project": f"{project_id}.{CREATED_S}",
            "schema": self.label_config,
            "hostname": self.url,
            "access_token": API_KEY,
            "extra_params": None,
        }

    def predict_body(self, project_id: int, task_ids: Sequence[int]) -> dict[str, Any]:
        """What `/predict` is posted."""
        return {
            "tasks": [self.task_row(task_id) for task_id in task_ids],
            "project": f"{project_id}.{CREATED_S}",
            "label_config": self.label_config,
            "params": {"login": None, "password": None, "context": None},
        }


def to_png(image: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image.squeeze()).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def stamp_now() -> str:
    return datetime.now(timezone.utc).isoformat().replace("+00:00", "Z")
