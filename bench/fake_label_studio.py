"""As much of Label Studio as Brushloop talks to, over HTTP: generated images, tasks, annotations.

Everything is kept in memory. `paint` submits an annotation as a person would, and returns the body that
Label Studio would post to the webhook; sending it, or losing it, is up to the caller.
"""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

import cv2
import numpy as np
from flask import Flask, Response, abort, jsonify, request
from flask.typing import ResponseReturnValue
from numpy.typing import NDArray
from PIL import Image
from waitress import create_server

from core.rle import encode
from core.synthetic import Kind, make_image

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

BLOCK_PX = 256
"""Larger pictures are put together from blocks of this size, because drawing takes long."""

SOFT_EDGE_PX = 0.5
"""Blur of the browser's brush: some pixels at the edge of a stroke are half painted."""

BAND_PX = 10
"""Width of the Background that is painted around the objects."""


class FakeLabelStudio:
    """Projects and what is in them. `sides_px` gives the size of the images of each project."""

    def __init__(self, sides_px: Mapping[int, int], kind: Kind = "fluorescence") -> None:
        self.sides_px = dict(sides_px)
        self.kind = kind
        self.annotations: dict[int, dict[str, Any]] = {}
        self.tasks: dict[int, dict[str, Any]] = {}
        self.predictions: list[dict[str, Any]] = []
        self.model_versions: dict[int, str] = {}
        self.tabs: list[dict[str, Any]] = []
        self.url = ""
        self._lock = threading.RLock()
        self._pictures: dict[tuple[int, int], tuple[bytes, NDArray[np.int32]]] = {}
        self._results: dict[tuple[int, int, int | None], list[dict[str, Any]]] = {}

    def add_tasks(self, project_id: int, n: int) -> list[int]:
        with self._lock:
            first = len(self.tasks) + 1
            for task_id in range(first, first + n):
                address = f"/data/upload/{project_id}/{task_id}.png"
                self.tasks[task_id] = {
                    "id": task_id,
                    "project": project_id,
                    "data": {"image": address},
                    "updated_at": _now(),
                }
            return list(range(first, first + n))

    def paint(self, task_id: int, n_objects: int | None = None) -> dict[str, Any]:
        """Submit an annotation of a task: that many objects, or all, and Background around them."""
        with self._lock:
            task = self.tasks[task_id]
            now = task["updated_at"] = _now()
            annotation = {
                "id": len(self.annotations) + 1,
                "task": task_id,
                "project": task["project"],
                "completed_by": 1,
                "created_at": now,
                "updated_at": now,
                "was_cancelled": False,
                "lead_time": 12.5,
                "result": self.make_result(task_id, n_objects),
            }
            self.annotations[int(str(annotation["id"]))] = annotation
        project = self.project_row(task["project"])
        return {"action": "ANNOTATION_CREATED", "annotation": annotation, "task": task, "project": project}

    def make_result(self, task_id: int, n_objects: int | None = None) -> list[dict[str, Any]]:
        """One region per object and one of Background, with the browser's soft edges."""
        key = (*self._picture_key(task_id), n_objects)
        if key not in self._results:
            self._results[key] = paint_objects(self.picture(task_id)[1], n_objects)
        return [{**region, "id": f"t{task_id}{region['id']}"} for region in self._results[key]]

    def picture(self, task_id: int) -> tuple[bytes, NDArray[np.int32]]:
        """The PNG of a task and the objects in it."""
        side, seed = self._picture_key(task_id)
        with self._lock:
            if (side, seed) not in self._pictures:
                image, instances = draw(self.kind, seed, side)
                buffer = io.BytesIO()
                Image.fromarray(image.squeeze()).save(buffer, "PNG", compress_level=1)
                self._pictures[side, seed] = buffer.getvalue(), instances
            return self._pictures[side, seed]

    def _picture_key(self, task_id: int) -> tuple[int, int]:
        return self.sides_px[self.tasks[task_id]["project"]], task_id % N_PICTURES

    def project_row(self, project_id: int) -> dict[str, Any]:
        return {
            "id": project_id,
            "title": f"Project {project_id}",
            "label_config": LABEL_CONFIG,
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
            "schema": LABEL_CONFIG,
            "hostname": self.url,
            "access_token": API_KEY,
            "extra_params": None,
        }

    def predict_body(self, project_id: int, task_ids: Sequence[int]) -> dict[str, Any]:
        """What `/predict` is posted."""
        return {
            "tasks": [self.task_row(task_id) for task_id in task_ids],
            "project": f"{project_id}.{CREATED_S}",
            "label_config": LABEL_CONFIG,
            "params": {"login": None, "password": None, "context": None},
        }


def draw(kind: Kind, seed: int, side: int) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """A square picture and its objects."""
    rng = np.random.default_rng(seed)
    if side <= BLOCK_PX:
        return make_image(kind, rng, (side, side))
    n = -(-side // BLOCK_PX)
    blocks = [make_image(kind, rng, (BLOCK_PX, BLOCK_PX)) for _ in range(min(n, 3))]
    order = rng.integers(0, len(blocks), (n, n))
    image = np.concatenate([np.concatenate([blocks[i][0] for i in row], 1) for row in order], 0)
    counts = np.arange(n * n, dtype=np.int32).reshape(n, n) * (1 + max(int(b[1].max()) for b in blocks))
    shifted = [
        np.concatenate(
            [
                np.where(blocks[i][1] > 0, blocks[i][1] + shift, 0)
                for i, shift in zip(row, shifts, strict=True)
            ],
            1,
        )
        for row, shifts in zip(order, counts, strict=True)
    ]
    return image[:side, :side], np.concatenate(shifted, 0)[:side, :side].astype(np.int32)


def paint_objects(instances: NDArray[np.int32], n_objects: int | None) -> list[dict[str, Any]]:
    """Regions of the first objects and of a band of Background around them."""
    numbers = np.unique(instances)
    chosen = numbers[numbers > 0][:n_objects]
    objects = np.isin(instances, chosen)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * BAND_PX + 1, 2 * BAND_PX + 1))
    near = cv2.dilate(objects.astype(np.uint8), disc) > 0
    painted = [("Background", near & (instances == 0))]
    painted += [("Nucleus", instances == number) for number in chosen]
    return [to_region(f"r{i}", mask, label) for i, (label, mask) in enumerate(painted)]


def to_region(region_id: str, mask: NDArray[np.bool_], label: str) -> dict[str, Any]:
    """A brush region as the browser writes it."""
    alpha = cv2.GaussianBlur(mask.astype(np.uint8) * 255, (0, 0), SOFT_EDGE_PX)
    return {
        "id": region_id,
        "type": "brushlabels",
        "from_name": "brush",
        "to_name": "image",
        "original_width": mask.shape[1],
        "original_height": mask.shape[0],
        "image_rotation": 0,
        "origin": "manual",
        "value": {"format": "rle", "rle": encode(np.asarray(alpha, np.uint8)), "brushlabels": [label]},
    }


@contextmanager
def run_fake(fake: FakeLabelStudio) -> Iterator[str]:
    """Serve it in threads of this process; yields its address."""
    server = create_server(build_app(fake), host="127.0.0.1", port=0, threads=4, ident=None)
    fake.url = f"http://127.0.0.1:{server.effective_port}"
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            server.asyncore.loop(timeout=0.2, map=server._map, use_poll=True, count=1)

    thread = threading.Thread(target=serve, name="fake-label-studio")
    thread.start()
    try:
        yield fake.url
    finally:
        stop.set()
        thread.join()
        server.task_dispatcher.shutdown()
        server.asyncore.close_all(server._map)


def build_app(fake: FakeLabelStudio) -> Flask:
    """The routes that `ml_backend.label_studio` calls."""
    app = Flask(__name__)

    @app.before_request
    def check() -> None:
        if request.headers.get("Authorization") != f"Token {API_KEY}":
            abort(401)

    @app.get("/api/projects/<int:project_id>")
    def project(project_id: int) -> ResponseReturnValue:
        if project_id not in fake.sides_px:
            abort(404)
        return jsonify(fake.project_row(project_id))

    @app.get("/api/tasks")
    def tasks() -> ResponseReturnValue:
        chosen = find_tasks(fake, int(request.args["project"]), json.loads(request.args["query"]))
        fields = request.args["include"].split(",")
        page = chosen[: int(request.args["page_size"])]
        return jsonify(tasks=[fake.task_row(task_id, fields) for task_id in page], total=len(chosen))

    @app.get("/api/tasks/<int:task_id>")
    def task(task_id: int) -> ResponseReturnValue:
        if task_id not in fake.tasks:
            abort(404)
        return jsonify(fake.task_row(task_id))

    @app.post("/api/projects/<int:project_id>/import/predictions")
    def predictions(project_id: int) -> ResponseReturnValue:
        rows = request.get_json()
        with fake._lock:
            first = max((row["id"] for row in fake.predictions), default=0) + 1
            fake.predictions += [{**row, "id": number} for number, row in enumerate(rows, first)]
        return jsonify(created=len(rows)), 201

    @app.patch("/api/predictions/<int:number>/")
    @app.delete("/api/predictions/<int:number>/")
    def prediction(number: int) -> ResponseReturnValue:
        with fake._lock:
            found = [row for row in fake.predictions if row["id"] == number]
            if not found:
                abort(404)
            if request.method == "PATCH":
                found[0].update(request.get_json())
            else:
                fake.predictions.remove(found[0])
        return jsonify(id=number)

    @app.patch("/api/projects/<int:project_id>")
    def change_project(project_id: int) -> ResponseReturnValue:
        fake.model_versions[project_id] = request.get_json()["model_version"]
        return jsonify(fake.project_row(project_id))

    @app.get("/api/ml")
    def backends() -> ResponseReturnValue:
        return jsonify([])

    @app.get("/api/dm/views")
    def tabs() -> ResponseReturnValue:
        wanted = int(request.args["project"])
        return jsonify([tab for tab in fake.tabs if tab["project"] == wanted])

    @app.post("/api/dm/views")
    def new_tab() -> ResponseReturnValue:
        fake.tabs.append({"id": len(fake.tabs) + 1, **request.get_json()})
        return jsonify(fake.tabs[-1]), 201

    @app.patch("/api/dm/views/<int:number>/")
    def change_tab(number: int) -> ResponseReturnValue:
        fake.tabs[number - 1].update(request.get_json())
        return jsonify(fake.tabs[number - 1])

    @app.get("/data/upload/<int:project_id>/<int:task_id>.png")
    def image(project_id: int, task_id: int) -> ResponseReturnValue:
        if task_id not in fake.tasks:
            abort(404)
        return Response(fake.picture(task_id)[0], content_type="image/png")

    return app


def find_tasks(fake: FakeLabelStudio, project_id: int, query: Mapping[str, Any]) -> list[int]:
    """Ids of a project's tasks, by the Data Manager's filters on the id, and on having annotations."""
    items = query["filters"]["items"]
    named = [item["value"] for item in items if item["operator"] == "in_list"]
    with fake._lock:
        # A look at every task for each call would be a cost of the stand-in that grows with the pool.
        rows = [fake.tasks[i] for i in named[0] if i in fake.tasks] if named else list(fake.tasks.values())
    found = sorted(row["id"] for row in rows if row["project"] == project_id)
    for item in items:
        if item["operator"] == "in_list":
            found = [i for i in found if i in item["value"]]
            continue
        if item["filter"] == "filter:tasks:total_annotations":
            painted = {row["task"] for row in list(fake.annotations.values())}
            found = [i for i in found if i in painted]  # more than none
            continue
        value = int(item["value"])
        found = [i for i in found if (i > value if item["operator"] == "greater" else i == value)]
    return found


def _now() -> str:
    return datetime.now(timezone.utc).isoformat().replace("+00:00", "Z")
