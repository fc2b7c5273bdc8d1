"""A learning loop that remembers what the web asked of it, and the app around it."""

from __future__ import annotations

import base64
import json
import math
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ml_backend.config import Settings
from ml_backend.errors import NotFoundError
from ml_backend.label_studio.label_config import parse_label_config
from ml_backend.ports import ProjectView
from ml_backend.web.app import create_app
from ml_backend.web.prometheus import round_outcome

RECORDED = Path(__file__).parents[1] / "fixtures" / "label_studio"
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)
VERSION = "r0007-0a1b2c3d"


def make_status(project_id: int) -> dict[str, Any]:
    """The status document, with every field filled."""
    return {
        "project": project_id,
        "state": "training",
        "model_version": VERSION,
        "draft": False,
        "round": 7,
        "readiness": {
            "ready": False,
            "classes": [
                {
                    "name": "Background",
                    "role": "background",
                    "pixels": 48210,
                    "objects": 9,
                    "needed_pixels": 0,
                    "advised_objects": 0,
                },
                {
                    "name": "Nucleus",
                    "role": "object",
                    "pixels": 23904,
                    "objects": 41,
                    "needed_pixels": 5000,
                    "advised_objects": 50,
                },
                {
                    "name": "Mitosis <b>",
                    "role": "object",
                    "pixels": 1180,
                    "objects": 4,
                    "needed_pixels": 5000,
                    "advised_objects": 50,
                },
            ],
            "lint": [
                {
                    "task": 12,
                    "code": "overlapping-classes",
                    "message": "Nucleus and Mitosis overlap on 214 pixels; they are ignored.",
                },
                {
                    "task": 15,
                    "code": "scribble",
                    "message": "A long thin stroke of Nucleus: paint objects whole.",
                },
            ],
        },
        "taught": [
            {
                "task": 12,
                "pixels": {"Background": 4100, "Nucleus": 820},
                "strokes": 3,
                "clicks": 1,
                "corrected": 1,
                "accepted": 0,
                "deleted": 0,
                "questions_answered": 2,
                "why_not": "",
            },
            {
                "task": 15,
                "pixels": {},
                "strokes": 0,
                "clicks": 0,
                "corrected": 0,
                "accepted": 1,
                "deleted": 0,
                "questions_answered": 0,
                "why_not": "It was accepted without a change.",
            },
        ],
        "training": {"round": 8, "progress": 0.42, "eta_s": 11.6, "started_at": "2026-11-22T10:00:00Z"},
        "annotations": {"received": 31, "trained": 28, "pending": 3},
        "pool": {"tasks": 240, "scored": 64, "stale": 12},
        "advice": "Paint about 3,820 more pixels of Mitosis <b>; that is some 12 objects.",
        "last_round": None,
        "last_error": None,
    }


def make_effort(number: int) -> dict[str, Any]:
    """What the annotations of a round took: less from round to round; the first started from nothing."""
    return {
        "annotations": 4,
        "strokes": 48 // number,
        "clicks": number,
        "painted_px": 24_000 // number,
        "erased_px": 800,
        "questions_answered": number,
        "lead_time_s": None if number == 2 else round(260 / number, 1),
        "regions": {"accepted": number, "corrected": 2, "deleted": 0},
        "corrective_dice": {
            "mean": None if number == 1 else round(0.7 + 0.03 * number, 2),
            "annotations": 0 if number == 1 else 4,
        },
    }


def make_rounds() -> list[dict[str, Any]]:
    """Reports, newest first: good rounds, one that kept the old model, one that failed."""
    reports = []
    for number in range(7, 0, -1):
        curve = [
            [step, 0.9 * math.exp(-step / (60 + 10 * number)) + 0.05 * (step * number % 3)]
            for step in range(0, 300, 5)
        ]
        reports.append(
            {
                "round": number,
                "state": "done",
                "promoted": number != 5,
                "draft": number == 1,
                "reason": "worse on the held-out part by 0.04" if number == 5 else "",
                "model_version": f"r{number:04d}-0a1b2c3d",
                "seconds": 18.4 + number / 10,
                "held_out": {}
                if number == 1
                else {
                    "Nucleus": {
                        "dice": 0.7 + number / 50,
                        "iou": 0.6,
                        "interval": [0.66 + number / 50, 0.74 + number / 50],
                    },
                    "Mitosis <b>": {"dice": None, "iou": None, "interval": None},
                },
                "loss_curve": curve,
                "effort": make_effort(number),
                "error": None,
            }
        )
    reports[3] = {
        "round": 4,
        "state": "failed",
        "model_version": None,
        "error": "the loss stopped being a number",
    }
    return reports


class FakeLoop:
    """Project 3 is known, all others get their first `connect` or `record`."""

    def __init__(self) -> None:
        self.known = {3}
        self.connected: list[tuple[Any, ...]] = []
        self.events: list[Any] = []
        self.asked: list[tuple[Any, ...]] = []
        self.prompts: list[tuple[Any, Any]] = []
        self.commands: list[tuple[Any, ...]] = []
        self.answers: list[Any] | None = None
        self.failure: Exception | None = None
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def _look_up(self, project_id: int) -> None:
        if self.failure:
            raise self.failure
        if project_id not in self.known:
            raise NotFoundError(f"no project {project_id}")

    def ready(self) -> dict[str, Any]:
        return {"ready": self.failure is None, "checks": {"database": self.failure and "it is away"}}

    def connect(
        self, project_id: int, created_at: str, label_config: str, hostname: str, access_token: str | None
    ) -> str:
        if self.failure:
            raise self.failure
        parse_label_config(label_config)
        self.connected.append((project_id, created_at, label_config, hostname, access_token))
        self.known.add(project_id)
        return VERSION

    def record(self, event: Any, key: str = "") -> None:
        if self.failure:
            raise self.failure
        self.events.append(event)
        self.known.add(event.project.project_id)

    def suggest(self, project_id: int, tasks: Any, label_config: str | None, deadline: float) -> list[Any]:
        if self.failure:
            raise self.failure
        self.asked.append((project_id, tuple(task.task_id for task in tasks), label_config, deadline))
        if deadline <= time.monotonic():
            return [None] * len(tasks)
        assert self.may_go_on.wait(30)
        if self.answers is not None:
            return self.answers
        return [{"result": [], "score": 0.25, "model_version": VERSION} for _ in tasks]

    def prompt(
        self,
        project_id: int,
        task: Any,
        context: Any,
        painted: Any,
        label_config: str | None,
        deadline: float,
    ) -> dict[str, Any]:
        if self.failure:
            raise self.failure
        self.asked.append((project_id, (task.task_id,), label_config, deadline))
        self.prompts.append((context, painted))
        return {"result": [], "score": 0.5, "model_version": VERSION}

    def projects(self) -> list[dict[str, Any]]:
        if self.failure:
            raise self.failure
        return [
            {
                "project": i,
                "title": "Nuclei <script>alert(1)</script>",
                "state": "idle",
                "model_version": VERSION,
            }
            for i in sorted(self.known)
        ]

    def status(self, project_id: int) -> dict[str, Any]:
        self._look_up(project_id)
        return make_status(project_id)

    def rounds(
        self, project_id: int, limit: int | None = None, before: int | None = None
    ) -> list[dict[str, Any]]:
        self._look_up(project_id)
        return [one for one in make_rounds() if before is None or one["round"] < before][:limit]

    def view(self, project_id: int, n_tasks: int) -> ProjectView:
        return ProjectView(
            status=self.status(project_id),
            rounds=self.rounds(project_id),
            outcomes=Counter(map(round_outcome, make_rounds())),
            tasks=self.ranked_tasks(project_id, n_tasks),
            task_address=f"http://paint.example.org/projects/{project_id}/data?task=",
        )

    def views(self, n_rounds: int) -> list[ProjectView]:
        found = [self.view(project["project"], 0) for project in self.projects()]
        return [replace(view, rounds=view.rounds[:n_rounds]) for view in found]

    def versions(self, project_id: int | None) -> list[str]:
        if self.failure:
            raise self.failure
        return [VERSION, "r0006-ffffffff"]

    def request_training(self, project_id: int) -> None:
        self._look_up(project_id)
        self.commands.append(("train", project_id))

    def cancel(self, project_id: int) -> None:
        self._look_up(project_id)
        self.commands.append(("cancel", project_id))

    def rollback(self, project_id: int, model_version: str) -> None:
        self._look_up(project_id)
        if model_version not in self.versions(project_id):
            raise NotFoundError(f"project {project_id} has no model version {model_version!r}")
        self.commands.append(("rollback", project_id, model_version))

    def ranked_tasks(self, project_id: int, limit: int) -> list[dict[str, Any]]:
        self._look_up(project_id)
        region = {"top": 10, "left": 20, "height": 32, "width": 32, "acquisition_score": 0.6}
        return [
            {"task": 11 + i, "score": 0.3 + i / 10, "regions": [region] * (i + 1)}
            for i in range(min(limit, 4))
        ]

    def picture(self, project_id: int, task_id: int, kind: str) -> bytes:
        self._look_up(project_id)
        if task_id == 404:
            raise NotFoundError(f"task {task_id} has no {kind} picture yet")
        self.asked.append((project_id, task_id, kind))
        assert self.may_go_on.wait(30)
        return PNG


def load_recorded(name: str) -> dict[str, Any]:
    return json.loads((RECORDED / f"{name}.request.json").read_text())


@pytest.fixture(autouse=True, scope="module")
def short_folds(request: pytest.FixtureRequest) -> Iterator[None]:
    """Where a whole loop is the subject, the quick learners ask each other after a few steps."""
    is_loop = any(getattr(value, "__module__", "") == "loop_fakes" for value in vars(request.module).values())
    with pytest.MonkeyPatch.context() as patch:
        if is_loop:
            patch.setattr("core.training.folds.FOLD_STEPS", 5)
        yield


@pytest.fixture
def loop() -> FakeLoop:
    return FakeLoop()


@pytest.fixture
def recorded() -> Any:
    """`recorded(name)` is one request of Label Studio as it was on the wire."""
    return load_recorded


@pytest.fixture
def make_client(loop: FakeLoop) -> Any:
    """`make_client(**settings)` is a test client of a fresh app around the fake loop."""

    def make(**settings: Any) -> Any:
        return create_app(loop, Settings(**settings)).test_client()

    return make


@pytest.fixture
def client(make_client: Any) -> Any:
    return make_client()
