"""Suggest: masks and questions for the tasks that somebody opens.

An answer is kept in the database, so the next call, in whichever process, gets the same one. What was sent is
kept too, before it is sent: the difference to it is what a correction teaches.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from sqlalchemy.exc import SQLAlchemyError

from core.asking.suggestion import build_suggestion
from core.errors import (
    BrushloopError,
    CheckpointError,
    ImageUnavailableError,
    RoundCancelledError,
)
from core.prediction import Prediction
from ml_backend.errors import LabelConfigError
from ml_backend.label_studio.label_config import LabelConfig, find_config, parse_label_config
from ml_backend.label_studio.results import to_prediction
from ml_backend.parts import Parts
from ml_backend.ports import TaskRecord
from ml_backend.processes.patience import is_over, patience, waiting_for
from ml_backend.rounds.readable import keep_readable
from ml_backend.rounds.troubles import describe, may_pass
from ml_backend.storage import models, predictions, reviews, sent_regions, task_data, tasks
from ml_backend.storage.models import StoredModel
from ml_backend.storage.projects import Project, find_project, is_current, still_exists
from ml_backend.strokes.build_truth import TaskTruth
from ml_backend.suggestions.answers import (
    fingerprint,
    load_annotated,
    offers_clicks,
    seen_classes,
    suggestion_settings,
    to_disputed_regions,
    to_region_record,
    with_classes_of,
)
from ml_backend.suggestions.opened_images import OpenedImages
from ml_backend.suggestions.predictors import Predictors
from ml_backend.suggestions.single_flight import SingleFlight

log = logging.getLogger(__name__)

MAX_AT_ONCE = 2
"""Images that one process works on at the same time: each takes memory, and torch uses all cores for one."""
TIDY_AFTER_S = 600.0
"""Label Studio stores an answer once for each call, and calls twice when a task is opened. The double is
removed with the next round, or after this long: not at once, because the page may show it."""


@dataclass(frozen=True)
class _Request:
    """One task to answer, with all that the answer depends on."""

    project: Project
    model: StoredModel
    config: LabelConfig
    task: TaskRecord
    truth: TaskTruth
    fingerprint: str
    is_awaited: bool


class Suggester:
    """Answers for tasks, from memory, from the database, or by looking at the image."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.predictors = Predictors(parts)
        self.opened = OpenedImages()
        self._flights: SingleFlight[dict[str, Any]] = SingleFlight()
        self._slots = threading.BoundedSemaphore(MAX_AT_ONCE)

    def suggest(
        self,
        project_id: int,
        wanted: Sequence[TaskRecord],
        label_config: str | None,
        deadline: float,
        failures: dict[int, Exception] | None = None,
    ) -> list[dict[str, Any] | None]:
        """One prediction per task, or None: no model, no time, or something that is put into `failures`."""
        failures = {} if failures is None else failures
        live = self._find_model(project_id)
        if live is None:
            return [None] * len(wanted)
        project, model = live
        try:
            config = parse_label_config(label_config or project.label_config)
        except LabelConfigError as error:
            log.warning("skip_predict project=%d cause=%s", project_id, error)
            return [None] * len(wanted)
        answers: list[dict[str, Any] | None] = []
        late: list[TaskRecord] = []  # what cannot be had now is owed like what took too long
        for task in wanted:
            answer, is_late = self._try_to_answer(project, model, config, task, deadline, failures)
            answers.append(answer)
            late += [task] if is_late or may_pass(failures.get(task.task_id)) else []
        given = [task for task, answer in zip(wanted, answers, strict=True) if answer is not None]
        try:
            self._enqueue_late(project, late)
            self._note_given(project, given)
        except SQLAlchemyError as error:
            # What was found out is worth more than the note about it: a later round tidies up.
            log.warning("skip_note project=%d cause=%s", project_id, describe(error))
        return answers

    def score(self, project_id: int, model_version: str, task: TaskRecord, deadline: float) -> bool:
        """Have the answer for a task computed and kept, without anybody waiting for it.

        Returns whether there is one now: none when another version became current meanwhile, or the labeling
        setup cannot be used. Raises what keeps the task from being scored.
        """
        live = self._find_model(project_id)
        if live is None or live[1].model_version != model_version:
            return False
        project, model = live
        config, _ = find_config(project.label_config)
        if config is None:
            return False
        self._answer(project, model, config, task, deadline, is_awaited=False)
        return True

    def predict(
        self,
        project: Project,
        model: StoredModel,
        task: TaskRecord,
        *,
        deadline: float,
        keep_details: bool = False,
        keep_probabilities: bool = False,
    ) -> Prediction:
        """Predict the image; raises `RoundCancelledError` when the deadline passes meanwhile."""
        predictor = self.predictors.get(project, model)
        with patience(deadline - time.monotonic()):
            # Outside of the slots: an image that is long on its way keeps nobody from computing.
            image = self._fetch(project, task)
            with waiting_for(self._slots) as is_ours:
                if not is_ours:
                    raise RoundCancelledError("no time left to look at the image")
                return predictor.predict(
                    image,
                    keep_details=keep_details,
                    keep_probabilities=keep_probabilities,
                    should_stop=is_over,
                )

    def _fetch(self, project: Project, task: TaskRecord) -> NDArray[Any]:
        try:
            return self.parts.images.open(project.project_id, task.task_id, task.data)
        except ImageUnavailableError:
            if is_over():
                raise RoundCancelledError("no time left to fetch the image") from None
            raise

    def _find_model(self, project_id: int) -> tuple[Project, StoredModel] | None:
        with self.parts.database.read() as connection:
            project = find_project(connection, project_id)
            model = models.find_model(connection, project_id, project.current_version) if project else None
        return (project, model) if project and model else None

    def _try_to_answer(
        self,
        project: Project,
        model: StoredModel,
        config: LabelConfig,
        task: TaskRecord,
        deadline: float,
        failures: dict[int, Exception],
    ) -> tuple[dict[str, Any] | None, bool]:
        """The answer, and whether time ran out; one task that fails never takes the others with it."""
        try:
            return self._answer(project, model, config, task, deadline), False
        except (RoundCancelledError, FutureTimeoutError):
            return None, True
        except CheckpointError as error:
            failures[task.task_id] = error
            live = self._find_another(project, model, error)
            return self._try_to_answer(*live, config, task, deadline, failures) if live else (None, False)
        except (BrushloopError, OSError) as error:
            failures[task.task_id], cause = error, describe(error)
            log.warning("skip_predict project=%d task=%d cause=%s", project.project_id, task.task_id, cause)
            return None, False

    def _find_another(
        self, project: Project, model: StoredModel, error: CheckpointError
    ) -> tuple[Project, StoredModel] | None:
        """The live version cannot be read: the newest one that can, if there is one."""
        log.warning(
            "skip_model project=%d model_version=%s cause=%s", project.project_id, model.model_version, error
        )
        keep_readable(self.parts, project)
        live = self._find_model(project.project_id)
        return live if live and live[1].model_version != model.model_version else None

    def _answer(
        self,
        project: Project,
        model: StoredModel,
        config: LabelConfig,
        task: TaskRecord,
        deadline: float,
        *,
        is_awaited: bool = True,
    ) -> dict[str, Any]:
        with self.parts.database.read() as connection:
            stored = tasks.find_task(connection, project.project_id, task.task_id)
            truth = TaskTruth.from_record(stored.truth) if stored and stored.truth else TaskTruth()
            depends_on = fingerprint(self.parts, config, task, truth)
            answered = predictions.find_prediction(
                connection, project.project_id, task.task_id, model.model_version, depends_on
            )
        if answered is not None:
            return answered
        if time.monotonic() >= deadline:
            # Here, because even fetching hundreds of images would outlast the patience of Label Studio.
            raise RoundCancelledError("no time left to look at the image")
        if is_awaited:
            self._pause_background_work(project)
        request = _Request(project, model, config, task, truth, depends_on, is_awaited)
        # Label Studio calls twice when a task is opened: both calls share one computation.
        key = (project.folder, task.task_id, model.model_version, depends_on)
        return self._flights.run(key, lambda: self._compute(request, deadline), deadline - time.monotonic())

    def _compute(self, request: _Request, deadline: float) -> dict[str, Any]:
        project, model, task = request.project, request.model, request.task
        prediction = self.predict(project, model, task, deadline=deadline)
        if request.is_awaited and offers_clicks(request.config):
            self.opened.keep(project, model, task, prediction)
        checkpoint = self.predictors.get(project, model).checkpoint
        suggestion = build_suggestion(
            prediction,
            checkpoint.schema,
            load_annotated(self.parts, project, task.task_id, request.truth, prediction.shape),
            checkpoint.limits,
            suggestion_settings(self.parts, ask_when_sure=checkpoint.is_draft),
            to_disputed_regions(request.truth, checkpoint.schema),
        )
        answer, sent = to_prediction(
            with_classes_of(request.config.schema, suggestion, checkpoint.schema),
            request.config,
            model.model_version,
            str(task.task_id),
        )
        asked = [to_region_record(region, checkpoint.schema) for region in suggestion.regions]
        # Kept before it is sent: a correction may follow at once, and teaches by the difference to this.
        with self.parts.database.write() as connection:
            if still_exists(connection, project):
                now = self.parts.clock()
                task_data.remember_tasks(connection, project.project_id, [(task.task_id, task.data)], now)
                sent_regions.save_sent(connection, project.project_id, task.task_id, sent, now)
                # Another version may count by now, and its answer is not to be displaced by an older look.
                if is_current(connection, project, model.model_version):
                    predictions.save_prediction(
                        connection, project.project_id, task.task_id, request.fingerprint, answer, asked, now,
                        prediction.embedding, seen_classes(suggestion, checkpoint.schema),
                    )  # fmt: skip
        return answer

    def _enqueue_late(self, project: Project, late: Sequence[TaskRecord]) -> None:
        if not late:
            return
        log.warning("miss_deadline project=%d tasks=%d", project.project_id, len(late))
        with self.parts.database.write() as connection:
            now = self.parts.clock()
            if still_exists(connection, project):
                task_data.remember_tasks(
                    connection, project.project_id, [(t.task_id, t.data) for t in late], now
                )
                ids = [task.task_id for task in late]
                predictions.enqueue_pushes(connection, project.project_id, ids, now, is_open=True)

    def _note_given(self, project: Project, given: Sequence[TaskRecord]) -> None:
        """Label Studio stores these answers, perhaps a second time: schedule a check for doubles."""
        ids = [task.task_id for task in given]
        if not ids:
            return
        with self.parts.database.write() as connection:
            if still_exists(connection, project):
                due_at = self.parts.clock() + TIDY_AFTER_S
                predictions.enqueue_pushes(connection, project.project_id, ids, due_at, is_open=False)

    def _pause_background_work(self, project: Project) -> None:
        """Somebody waits for an answer: scoring pauses in all processes."""
        with self.parts.database.write() as connection:
            if find_project(connection, project.project_id) is not None:
                reviews.note_asked(connection, project.project_id, self.parts.clock())
