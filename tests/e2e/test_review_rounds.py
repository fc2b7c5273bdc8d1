"""After each promoted round the real Label Studio is in order, also when the worker is killed on the way."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from cutting_proxy import CuttingProxy, cutting_proxy
from numpy.typing import NDArray
from PIL import Image
from running_services import Backend, RealLabelStudio, run_backend

from bench.painted_results import paint_objects
from core.synthetic import make_image
from ml_backend.label_studio.client import LabelStudioClient

N_IMAGES, SHAPE, N_OBJECTS = 10, (128, 128), 8
N_ROUNDS, MAX_SUBMITS = 2, 5
SETTINGS = {
    "MIN_PIXELS_PER_CLASS": "200",
    "QUIET_TIME_S": "0.5",
    "LEARNERS": "network",
    "ROUND_STEPS": "40",
    "RECONCILE_EVERY_S": "3600",
    "TRAINING_THREADS": "1",
    "PREDICT_THREADS": "1",
}
ORDER_TIMEOUT_S, POLL_S = 900.0, 0.5
THEIRS = {"result": [], "score": 0.001, "model_version": "another-model"}


@dataclass
class Review:
    """One project with ten images, and what is asked of the two servers about it."""

    label_studio: RealLabelStudio
    backend: Backend
    proxy: CuttingProxy
    project_id: int
    truths: dict[int, NDArray[np.int32]]
    n_submitted: int = 0

    @property
    def tasks(self) -> list[int]:
        return sorted(self.truths)

    def get(self, path: str, **params: Any) -> Any:
        return self.label_studio.connection.request("GET", path, params=params)

    def unpainted(self) -> list[int]:
        """Tasks that nobody has submitted yet."""
        return [
            task_id
            for task_id in self.tasks
            if not self.get(f"/api/tasks/{task_id}", resolve_uri="false")["annotations"]
        ]

    def next(self) -> int | None:
        """The task that the label stream shows; None when nothing is left."""
        answer = self.label_studio.connection.request("GET", f"/api/projects/{self.project_id}/next")
        return int(answer["id"]) if answer else None

    def submit(self, task_id: int) -> None:
        body = {"result": paint_objects(self.truths[task_id], None), "lead_time": 9.0}
        self.label_studio.connection.request("POST", f"/api/tasks/{task_id}/annotations/", json=body)
        self.n_submitted += 1

    def predictions(self) -> dict[int, list[dict[str, Any]]]:
        return {i: self.get("/api/predictions/", task=i) for i in self.tasks}

    def ours(self, version: str) -> dict[int, float]:
        """Scores of the tasks that have exactly one prediction besides those of others, of this version."""
        found = {}
        for task_id, rows in self.predictions().items():
            own = [row for row in rows if row["model_version"] != THEIRS["model_version"]]
            if [row["model_version"] for row in own] == [version]:
                found[task_id] = own[0]["score"]
        return found

    def tabs(self) -> list[dict[str, Any]]:
        views = self.get("/api/dm/views", project=self.project_id)
        return [view for view in views if view["data"]["title"] == "Review round"]

    def wait_until_in_order(self) -> tuple[str, dict[int, float]]:
        """Wait until the current version is what people see; its scores."""
        deadline = time.monotonic() + ORDER_TIMEOUT_S
        was_settled = False
        while True:
            status = self.backend.wait_until_learnt(self.project_id, self.n_submitted)
            version = str(status["model_version"])
            scores = self.ours(version)
            project = self.get(f"/api/projects/{self.project_id}")
            values = [tab["data"]["filters"]["items"][0]["value"] for tab in self.tabs()]
            # What was read above is final if it was settled before.
            is_settled = self.backend.get(f"/api/projects/{self.project_id}/status")["in_order"]
            is_ours = project["model_version"] == version and values == [version]
            if len(scores) == N_IMAGES and is_ours and was_settled and is_settled:
                return version, scores
            was_settled = is_settled
            assert time.monotonic() < deadline, (status, scores, project["model_version"], values)
            time.sleep(POLL_S)

    def walk_the_label_stream(self) -> list[int]:
        """The order in which the label stream shows what is left: each is skipped, and then unskipped.

        Webhooks are off meanwhile, so that the backend takes no notice.
        """
        request = self.label_studio.connection.request
        (hook,) = self.get("/api/webhooks/", project=self.project_id)
        request("PATCH", f"/api/webhooks/{hook['id']}/", json={"is_active": False})
        order, skipped = [], []
        for _ in range(N_IMAGES - self.n_submitted):
            task_id = self.next()
            assert task_id is not None
            order.append(task_id)
            body = {"result": [], "was_cancelled": True}
            skipped.append(request("POST", f"/api/tasks/{task_id}/annotations/", json=body)["id"])
        for annotation_id in skipped:
            request("DELETE", f"/api/annotations/{annotation_id}/")
        request("PATCH", f"/api/webhooks/{hook['id']}/", json={"is_active": True})
        return order


@pytest.fixture(scope="module")
def review(label_studio: RealLabelStudio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Review]:
    folder = tmp_path_factory.mktemp("review")
    (folder / "images").mkdir()
    drawn = {}
    for index in range(N_IMAGES):
        name = f"tissue-{index:02}.png"
        image, drawn[name] = make_image("tissue", np.random.default_rng((7, index)), SHAPE, N_OBJECTS)
        Image.fromarray(image).save(folder / "images" / name)
    with (
        cutting_proxy(label_studio.url) as proxy,
        run_backend(replace(label_studio, url=proxy.url), folder, **SETTINGS) as backend,
    ):
        backend.command("setup", "--title", "Review", "--images", str(folder / "images"), "--order-tasks")
        (project,) = label_studio.connection.request("GET", "/api/projects", params={"title": "Review"})[
            "results"
        ]
        summaries = LabelStudioClient(label_studio.connection).iter_task_summaries(project["id"])
        truths = {d.task_id: drawn[str(d.data["image"]).split("-", 1)[1]] for d in summaries}
        assert len(truths) == N_IMAGES
        yield Review(label_studio, backend, proxy, project["id"], truths)


def test_after_each_round_the_project_is_in_order(review: Review) -> None:
    request = review.label_studio.connection.request
    foreign = [
        request("POST", "/api/predictions/", json={"task": task_id, **THEIRS})
        for task_id in review.tasks[-2:]
    ]
    assert review.get(f"/api/projects/{review.project_id}")["sampling"] == "Uncertainty sampling"
    versions: list[str] = []
    to_paint, n_before = review.unpainted()[0], review.n_submitted
    while len(versions) < N_ROUNDS:
        assert review.n_submitted - n_before < MAX_SUBMITS, f"only {versions} were promoted"
        review.submit(to_paint)
        version, scores = review.wait_until_in_order()
        # What people do next is what the newest model is least sure of.
        order = review.walk_the_label_stream()
        assert len(set(order)) == N_IMAGES - review.n_submitted
        assert [scores[task_id] for task_id in order] == sorted(scores[task_id] for task_id in order)
        ranked = review.backend.get(f"/api/projects/{review.project_id}/tasks?order=uncertainty&limit=100")
        assert {row["task"]: pytest.approx(row["score"]) for row in ranked} == scores
        assert [row["score"] for row in ranked] == sorted(row["score"] for row in ranked)
        # The tab is there once, in the same order, with painted images too.
        (tab,) = review.tabs()
        listed = review.get("/api/tasks", project=review.project_id, view=tab["id"], page_size=100)["tasks"]
        assert [scores[row["id"]] for row in listed] == sorted(scores.values())
        # Nobody else's prediction was touched.
        for row in foreign:
            now = review.get(f"/api/predictions/{row['id']}/")
            assert {k: now[k] for k in ("updated_at", *THEIRS)} == {
                k: row[k] for k in ("updated_at", *THEIRS)
            }
        pool = review.backend.get(f"/api/projects/{review.project_id}/status")["pool"]
        assert pool == {"tasks": N_IMAGES, "scored": N_IMAGES, "stale": 0}
        versions += [version] if version not in versions else []
        to_paint = order[0]


def test_a_worker_killed_in_the_middle_of_a_push_ends_in_the_same_state(review: Review) -> None:
    if not review.n_submitted:
        review.submit(review.unpainted()[0])
    before, _ = review.wait_until_in_order()
    killed: list[int] = []
    n_overwritten = 0

    def kill_worker(method: str, path: str) -> None:
        nonlocal n_overwritten
        n_overwritten += method == "PATCH" and path.startswith("/api/predictions/")
        if n_overwritten == 4 and not killed:
            killed.extend(review.backend.list_workers())
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    review.proxy.after_call = kill_worker
    version = before
    for task_id in review.unpainted():
        review.submit(task_id)
        version, _ = review.wait_until_in_order()
        if version != before:
            break
    review.proxy.after_call = lambda method, path: None
    assert version != before, "no round was promoted"
    assert killed, "the worker was not killed"
    assert review.walk_the_label_stream()
    _, scores = review.wait_until_in_order()
    assert len(scores) == N_IMAGES
