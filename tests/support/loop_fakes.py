"""A learning loop whose Label Studio, images, clock and training are all at hand."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from painted import LABEL_CONFIG, make_picture, paint_all
from stored_rows import open_database

from core.errors import ImageError, ImageUnavailableError
from ml_backend.config import Settings
from ml_backend.errors import LabelStudioRefusedError, LabelStudioUnavailableError
from ml_backend.label_studio.payloads import WebhookEvent
from ml_backend.learning_loop import LearningLoop
from ml_backend.parts import Parts
from ml_backend.ports import (
    AnnotationRecord,
    HeldPrediction,
    ProjectRecord,
    TaskRecord,
    TaskSummary,
)
from ml_backend.rounds.round_process import train_here
from ml_backend.training import OnProgress, TrainedRound, TrainingSpec

CREATED = "1795331929"
MAX_STEPS = 2
"""A model that knows little, at once; what is learnt is tested in `core`."""


class Killed(BaseException):
    """The process ends here, as by a signal: nothing catches it."""


class FakeLabelStudio:
    """`ports.LabelStudio` over dictionaries; `is_down` makes it unreachable.

    `kill_after` counts calls down; the one that reaches 0 is carried out, and its answer never arrives.
    """

    def __init__(self) -> None:
        self.kill_after = 0
        self.n_calls = 0
        self.predictions: dict[int, tuple[int, dict[str, Any]]] = {}  # by id: the task, and what is in it
        self.backends = [{"id": 5, "title": "Brushloop", "model_version": "untrained"}]
        self.model_version: str | None = "Brushloop"
        self.tabs: list[dict[str, Any]] = [{"title": "All"}]
        self.during_push: Callable[[], None] = lambda: None
        self.label_config = LABEL_CONFIG
        self.created_at = CREATED
        self.webhook_key = ""
        self.tasks: dict[int, dict[str, Any]] = {}
        self.annotations: dict[int, AnnotationRecord] = {}
        self.stamps: dict[int, int] = {}
        self.fetched: list[int] = []
        self.listed: list[int] = []
        self.pushed: list[tuple[int, Mapping[str, Any]]] = []
        self.is_down = False

    def add_task(self, task_id: int) -> None:
        self.tasks[task_id] = {"image": f"/data/upload/1/{task_id}.png"}
        self.touch(task_id)

    def touch(self, task_id: int) -> None:
        self.stamps[task_id] = self.stamps.get(task_id, 0) + 1

    def keep(self, record: AnnotationRecord) -> AnnotationRecord:
        """Store an annotation, as the server does before it sends an event."""
        self.annotations[record.annotation_id] = record
        self.touch(record.task_id)
        return record

    def drop(self, annotation_id: int) -> None:
        self.touch(self.annotations.pop(annotation_id).task_id)

    def get_webhook_key(self, project_id: int) -> str:
        self._answer()
        return self.webhook_key

    def get_project(self, project_id: int) -> ProjectRecord:
        self._answer()
        return ProjectRecord(
            project_id, "Cells", self.label_config, self.model_version, self.created_at, len(self.tasks)
        )

    def iter_task_summaries(self, project_id: int) -> Iterator[TaskSummary]:
        self._answer()
        for task_id, data in sorted(self.tasks.items()):
            ids = tuple(r.annotation_id for r in self.annotations.values() if r.task_id == task_id)
            self.listed.append(task_id)
            yield TaskSummary(task_id, str(self.stamps[task_id]), ids, data)

    def iter_painted_summaries(self, project_id: int, known: Collection[int]) -> Iterator[TaskSummary]:
        before = list(self.listed)
        wanted = [
            summary
            for summary in self.iter_task_summaries(project_id)
            if summary.annotation_ids or summary.task_id in known
        ]
        self.listed = before + [summary.task_id for summary in wanted]
        return iter(wanted)

    def get_task(self, task_id: int) -> TaskRecord:
        self._answer()
        if task_id not in self.tasks:
            raise LabelStudioRefusedError("there is no such task", 404)
        self.fetched.append(task_id)
        records = tuple(r for r in self.annotations.values() if r.task_id == task_id)
        return TaskRecord(task_id, 1, self.tasks[task_id], str(self.stamps[task_id]), records)

    def push_predictions(self, project_id: int, predictions: Sequence[tuple[int, Mapping[str, Any]]]) -> int:
        self._answer()
        for task_id, prediction in predictions:
            if task_id in self.tasks:
                self.place(task_id, prediction)
        self.pushed += predictions
        self.during_push()
        self._end_call()
        return len(predictions)

    def place(self, task_id: int, prediction: Mapping[str, Any]) -> int:
        """Store a prediction, as the server does with whatever it gets."""
        prediction_id = max(self.predictions, default=0) + 1
        self.predictions[prediction_id] = (task_id, dict(prediction))
        return prediction_id

    def list_predictions(
        self, project_id: int, task_ids: Sequence[int]
    ) -> dict[int, tuple[HeldPrediction, ...]]:
        self._answer()
        self._end_call()
        return {
            i: tuple(
                HeldPrediction(number, p["model_version"], p["score"])
                for number, (task_id, p) in self.predictions.items()
                if task_id == i
            )
            for i in task_ids
            if i in self.tasks
        }

    def list_predicted_regions(self, project_id: int, task_id: int) -> tuple[Mapping[str, Any], ...]:
        self._answer()
        return tuple(
            region for owner, p in self.predictions.values() if owner == task_id for region in p["result"]
        )

    def overwrite_prediction(
        self, project_id: int, task_id: int, prediction_id: int, prediction: Mapping[str, Any]
    ) -> None:
        self._answer()
        if prediction_id in self.predictions:
            self.predictions[prediction_id] = (task_id, dict(prediction))
        self._end_call()

    def delete_prediction(self, prediction_id: int) -> None:
        self._answer()
        self.predictions.pop(prediction_id, None)
        self._end_call()

    def name_backend(
        self, project_id: int, ours: Collection[str], title: str, is_alike: Callable[[str], bool]
    ) -> None:
        self._answer()
        for row in self.backends:
            if row["title"] in ours or row["title"] == "Brushloop" or is_alike(row["title"]):
                if self.model_version == row["title"]:
                    self.model_version = title
                row["title"] = title
                break
        self._end_call()

    def set_model_version(self, project_id: int, model_version: str) -> None:
        self._answer()
        names = {row["title"] for row in self.backends}
        names |= {p["model_version"] for _, p in self.predictions.values()}
        if model_version not in names:
            raise LabelStudioRefusedError("no such version", 400)
        self.model_version = model_version
        self._end_call()

    def keep_tab(self, project_id: int, data: Mapping[str, Any]) -> None:
        self._answer()
        self.tabs = [tab for tab in self.tabs if tab["title"] != data["title"]] + [dict(data)]
        self._end_call()

    def _answer(self) -> None:
        if self.is_down:
            raise LabelStudioUnavailableError("Label Studio cannot be reached")

    def _end_call(self) -> None:
        self.n_calls += 1
        self.kill_after -= 1
        if self.kill_after == 0:
            raise Killed


@dataclass
class FakeImages:
    """`ports.ImageSource` of generated pictures: the number of a task is the seed of its image."""

    broken: set[int] = field(default_factory=set)
    unreachable: set[int] = field(default_factory=set)
    away: set[int] = field(default_factory=set)
    opened: list[int] = field(default_factory=list)

    def open(self, project_id: int, task_id: int, data: Mapping[str, Any]) -> NDArray[Any]:
        if task_id in self.unreachable:
            raise LabelStudioUnavailableError("Label Studio cannot be reached")
        if task_id in self.away:
            raise ImageUnavailableError(f"the image of task {task_id} cannot be had now")
        if task_id in self.broken:
            raise ImageError(f"the image of task {task_id} is not an image")
        self.opened.append(task_id)
        return make_picture(task_id)[0]

    def shape(self, project_id: int, task_id: int, data: Mapping[str, Any]) -> tuple[int, int]:
        height, width = self.open(project_id, task_id, data).shape[:2]
        return height, width


class FakeTrainer:
    """Trains a few steps in this process; `during` is called before each round, with its spec."""

    def __init__(self, images: FakeImages) -> None:
        self.images = images
        self.specs: list[TrainingSpec] = []
        self.edit: Callable[[TrainingSpec, TrainedRound], TrainedRound] = lambda spec, trained: trained
        self.during: Callable[[], None] = lambda: None
        self._should_stop: Callable[[], bool] = lambda: False

    def wait_for_a_stop(self, timeout_s: float = 60.0) -> None:
        """Until the running round is asked to stop; for `during`."""
        deadline = time.monotonic() + timeout_s
        while not self._should_stop() and time.monotonic() < deadline:
            time.sleep(0.01)

    def __call__(
        self,
        spec: TrainingSpec,
        on_progress: OnProgress,
        should_stop: Callable[[], bool],
        should_finish: Callable[[], bool] = lambda: False,
    ) -> TrainedRound:
        self.specs.append(spec)
        self._should_stop = should_stop
        self.during()
        short = replace(spec, settings=replace(spec.settings, max_steps=MAX_STEPS, n_threads=1))
        return self.edit(spec, train_here(short, self.images, on_progress, should_stop, should_finish))

    @property
    def last_keys(self) -> list[str]:
        """Tasks in the newest training set, one entry each time one is in it."""
        return [example.summary.key for example in self.specs[-1].examples]


class Clock:
    """Unix seconds that stand still until they are moved."""

    def __init__(self) -> None:
        self.now = 2_000_000_000.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """A learning loop with its surroundings; the sentences of the tests are made of these verbs."""

    def __init__(self, settings: Settings) -> None:
        url = settings.database_url.get_secret_value() if settings.database_url else None
        self.server, self.images, self.clock = FakeLabelStudio(), FakeImages(), Clock()
        self.trainer = FakeTrainer(self.images)
        self.parts = Parts(
            settings=settings,
            database=open_database(settings.data_dir, url),
            images=self.images,
            label_studio=lambda project: self.server,
            trainer=self.trainer,
            clock=self.clock,
            owner="elsewhere|1|1|bench",
        )
        self.loop = LearningLoop(self.parts)
        self.loop.connect(1, CREATED, LABEL_CONFIG, "http://label-studio", "token")
        self._stamp = 0

    def painted(
        self, task_id: int, *, user_id: int = 1, result: Any = None, number: int = 0
    ) -> AnnotationRecord:
        """An annotation of the whole image, kept by the server; its number is 100 times the task's."""
        self._stamp += 1
        if task_id not in self.server.tasks:
            self.server.add_task(task_id)
        regions = paint_all(make_picture(task_id)[1]) if result is None else result
        return self.server.keep(
            AnnotationRecord(number or 100 * task_id, task_id, user_id, f"{self._stamp:06d}", False, regions)
        )

    def event(self, action: str, kind: Any, **more: Any) -> WebhookEvent:
        project = ProjectRecord(1, "Cells", self.server.label_config, None, self.server.created_at)
        return WebhookEvent(action, kind, project, **more)

    def tell(self, *records: AnnotationRecord) -> None:
        """Send the event of new or edited annotations."""
        tasks = tuple(TaskRecord(r.task_id, 1, self.server.tasks[r.task_id], "") for r in records)
        self.loop.record(
            self.event("ANNOTATION_CREATED", "annotations-saved", annotations=records, tasks=tasks)
        )

    def submit(self, *task_ids: int) -> None:
        """Paint these tasks whole, and send an event for each."""
        for task_id in task_ids:
            self.tell(self.painted(task_id))

    def status(self) -> dict[str, Any]:
        return self.loop.status(1)

    def task(self, task_id: int) -> TaskRecord:
        return TaskRecord(task_id, 1, {"image": f"/data/upload/1/{task_id}.png"}, "")

    def close(self) -> None:
        self.parts.database.close()


def make_bench(folder: Path, **changes: Any) -> Bench:
    """Rounds of the network alone by default: no draft before them, and nothing goes on after them.

    The loop deals with whatever model a round makes; `learners="all"` costs twice as much.
    """
    usual = {"min_pixels_per_class": 100, "draft_s": 0.0, "consolidate_s": 0.0, "learners": "network"}
    return Bench(Settings(data_dir=folder, **(usual | changes)))


def area(mask: NDArray[np.bool_]) -> int:
    return int(np.count_nonzero(mask))
