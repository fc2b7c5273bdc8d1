"""A project whose model needs no training: it has a score for every task, and is replaced at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from loop_fakes import Bench, make_bench
from numpy.typing import NDArray

from core.errors import ImageError
from ml_backend.due import find_due
from ml_backend.errors import LabelStudioUnavailableError
from ml_backend.ports import TaskRecord
from ml_backend.review.label_studio_order import sync_project_order
from ml_backend.review.ranking import rank_pool
from ml_backend.review.scoring import Scorer
from ml_backend.status.overview import rank
from ml_backend.storage import models, predictions, task_data
from ml_backend.storage.projects import get_project
from ml_backend.suggestions.push import Pusher

SCORE_STEPS = 97
"""A prime, so that scores of neighbouring tasks differ."""


def score_of(task_id: int, model_version: str) -> float:
    """What the fake model thinks of a task: something else in every version."""
    return ((task_id * 31 + int(model_version[1:5]) * 17) % SCORE_STEPS) / SCORE_STEPS


class FakeSuggester:
    """Keeps answers as the real one does; `during` is called for each image that it looks at."""

    def __init__(self, bench: Bench) -> None:
        self.parts = bench.parts
        self.looked: list[int] = []
        self.broken: set[int] = set()
        self.scores: dict[int, float] = {}  # of tasks that are not to have `score_of`
        self.scenes: dict[int, NDArray[np.float16]] = {}  # what images look like to the model
        self.classes: dict[int, tuple[str, ...]] = {}  # what it sees in them
        self.is_server_down = False
        self.during: Callable[[int], None] = lambda task_id: None

    def score(self, project_id: int, model_version: str, task: TaskRecord, deadline: float) -> bool:
        self.during(task.task_id)
        if self.is_server_down:
            raise LabelStudioUnavailableError("no images today")
        if task.task_id in self.broken:
            raise ImageError("not an image")
        with self.parts.database.write() as connection:
            if get_project(connection, project_id).current_version != model_version:
                return False
            self.looked.append(task.task_id)
            score = self.scores.get(task.task_id, score_of(task.task_id, model_version))
            answer = {
                "result": [],
                "score": score,
                "model_version": model_version,
            }
            seen = self.scenes.get(task.task_id), self.classes.get(task.task_id, ())
            predictions.save_prediction(
                connection, project_id, task.task_id, "f", answer, [], self.parts.clock(), *seen
            )
        return True

    def suggest(
        self, project_id: int, wanted: Sequence[TaskRecord], label_config: str | None, deadline: float
    ) -> list[dict[str, Any] | None]:
        with self.parts.database.read() as connection:
            version = str(get_project(connection, project_id).current_version)
        for task in wanted:
            self.score(project_id, version, task, deadline)
        with self.parts.database.read() as connection:
            return [predictions.find_stored(connection, project_id, task.task_id) for task in wanted]


class ReviewBench:
    """The verbs of a review round, over the fakes of the loop."""

    def __init__(self, folder: Path, n_tasks: int, **settings: Any) -> None:
        self.bench = make_bench(folder, **settings)
        self.parts, self.server, self.clock = self.bench.parts, self.bench.server, self.bench.clock
        self.suggester = FakeSuggester(self.bench)
        self.n_rounds = 0
        for task_id in range(1, n_tasks + 1):
            self.server.add_task(task_id)
        with self.parts.database.write() as connection:
            rows = list(self.server.tasks.items())
            task_data.remember_tasks(connection, 1, rows, self.clock())

    def promote(self) -> str:
        """A round made a new model."""
        self.n_rounds += 1
        version = f"r{self.n_rounds:04d}-0000000{self.n_rounds % 10}"
        self.clock.now += 10
        with self.parts.database.write() as connection:
            model = models.to_model(version, self.n_rounds, None, 1, self.clock(), {})
            models.add_model(connection, 1, model)
            models.set_current(connection, 1, version)
        return version

    def go_back(self, version: str) -> None:
        """Somebody made an earlier model current again; its files are no matter here."""
        with self.parts.database.write() as connection:
            models.set_current(connection, 1, version)

    @property
    def version(self) -> str:
        with self.parts.database.read() as connection:
            return str(get_project(connection, 1).current_version)

    def score(self) -> int:
        """Score until there is nothing to do; one job ends after some seconds, done or not."""
        scorer = Scorer(self.parts, self.suggester)  # type: ignore[arg-type]
        n_scored = 0
        while n := scorer.score(1, lambda: False):
            n_scored += n
        return n_scored

    def push(self) -> int:
        with self.parts.database.read() as connection:
            project = get_project(connection, 1)
        return Pusher(self.parts, self.suggester).push_due(project, lambda: False)  # type: ignore[arg-type]

    def rank(self) -> int:
        return rank_pool(self.parts, 1)

    def sync_project_order(self) -> bool:
        return sync_project_order(self.parts, 1)

    def review(self) -> None:
        """All jobs of a review round, as a worker would find them due one after the other."""
        self.sync_project_order()
        self.score()
        self.push()
        self.rank()
        self.push()
        self.sync_project_order()

    def due(self) -> set[str]:
        """The jobs that wait, but for looking at Label Studio, which is due by the clock."""
        with self.parts.database.read() as connection:
            project = get_project(connection, 1)
            return set(find_due(connection, project, self.parts.settings, self.clock())) - {"reconcile"}

    def ranked(self) -> list[int]:
        with self.parts.database.read() as connection:
            project = get_project(connection, 1)
            return [row["task"] for row in rank(connection, project, 1000)]

    def placed(self) -> dict[int, list[tuple[str, float]]]:
        """Version and score of each prediction that Label Studio has, per task."""
        found: dict[int, list[tuple[str, float]]] = {}
        for task_id, prediction in self.server.predictions.values():
            found.setdefault(task_id, []).append((prediction["model_version"], prediction["score"]))
        return {task_id: sorted(rows) for task_id, rows in sorted(found.items())}

    def close(self) -> None:
        self.bench.close()
