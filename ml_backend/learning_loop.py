"""READ ME FIRST. The product in three verbs: record an annotation, run a round, suggest.

::

    Label Studio                 web process                          worker process
    ------------                 -----------                          --------------
    a stroke is submitted ────►  record(event)                        (looks twice a second what is due)
      (waits one second)           a row in the database   ────────►  build_truth: strokes -> label maps
                                                                      run_round:   reconcile, train, publish
    a task is opened      ────►  suggest(tasks)            ◄────────    a new model version, if not worse
      (waits 100 seconds)          masks and questions

Nothing is shared in memory: web processes and workers meet in the database and in the artifact folder, so
there may be any number of each, and any of them may be killed at any moment. Every method is safe to call at
the same time from many threads and processes.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from ml_backend.errors import ConflictError, LabelConfigError
from ml_backend.label_studio.connection import task_address
from ml_backend.label_studio.label_config import LabelConfig, find_config, parse_label_config
from ml_backend.label_studio.payloads import WebhookEvent
from ml_backend.parts import Parts
from ml_backend.ports import ProjectView, TaskRecord
from ml_backend.review import label_studio_order, ranking, scoring
from ml_backend.rounds.readable import find_damage, keep_readable
from ml_backend.rounds.running import Rounds
from ml_backend.rounds.sweeping import sweep_at_rest
from ml_backend.status import overview, ready
from ml_backend.storage import models, rounds
from ml_backend.storage.models import UNTRAINED, StoredModel
from ml_backend.storage.projects import Project, count_cancel_request, get_project, list_projects
from ml_backend.strokes.build_truth import build_changed
from ml_backend.strokes.damaged_truth import mark_damaged
from ml_backend.strokes.reconcile import Reconciled, reconcile_project
from ml_backend.strokes.recording import record_event, record_setup, request_training
from ml_backend.suggestions import pictures, prompting, push, suggesting
from ml_backend.suggestions.pictures import PictureKind

log = logging.getLogger(__name__)


class LearningLoop:
    """One project's strokes become its next model's suggestions; any number of projects, kept apart."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self._suggester = suggesting.Suggester(parts)
        self._prompter = prompting.Prompter(parts, self._suggester.predictors, self._suggester.opened)
        self._pusher = push.Pusher(parts, self._suggester)
        self._scorer = scoring.Scorer(parts, self._suggester)
        self._rounds = Rounds(parts)

    # Record: what Label Studio tells is written down at once, and nothing else happens before it is answered.

    def connect(
        self, project_id: int, created_at: str, label_config: str, hostname: str, access_token: str | None
    ) -> str:
        """Remember a project and how to reach it; returns the current model version, never empty.

        A labeling setup that cannot be used is remembered too, and then refused with `LabelConfigError`.
        """
        project = record_setup(self.parts, project_id, created_at, label_config, hostname, access_token)
        parse_label_config(label_config)
        return project.current_version or UNTRAINED

    def record(self, event: WebhookEvent, key: str = "") -> None:
        """Store an event. Twice the same, or an older one late, changes nothing.

        `key` is what the caller brought of `payloads.WEBHOOK_KEY_HEADER`. Raises `UnauthorizedError` where
        the project's webhook brings another one, and `ConflictError` for another project of the same number.
        """
        record_event(self.parts, event, key)
        if event.kind == "start-training":
            self._refuse_hopeless(event.project.project_id)  # Label Studio shows people what is answered

    # Run a round: strokes become truth, truth becomes a model, and the better model counts.

    def reconcile(self, project_id: int) -> Reconciled:
        """Ask Label Studio what webhooks did not tell, and see that the live version can be read."""
        project = keep_readable(self.parts, self._get(project_id))
        mark_damaged(self.parts, project)
        sweep_at_rest(self.parts, project)
        return reconcile_project(self.parts, project)

    def build_truth(self, project_id: int, should_stop: Callable[[], bool] = lambda: False) -> int:
        """Turn changed annotations into label maps and counts; returns how many tasks were built."""
        project = self._get(project_id)
        config, _ = find_config(project.label_config)
        return build_changed(self.parts, project, config, should_stop) if config else 0

    def run_round(self, project_id: int, should_stop: Callable[[], bool] = lambda: False) -> str | None:
        """Train on all truth there is; returns the new model version, None when there is none.

        At most one round of a project runs at a time, over all processes; a second call returns at once.
        `should_stop` means that this process is going down: the round is left to the next one.
        """
        return self._rounds.run(project_id, should_stop)

    def run_draft(self, project_id: int, should_stop: Callable[[], bool] = lambda: False) -> str | None:
        """Publish a draft of a few seconds, before the round that trains on all truth."""
        return self._rounds.draft(project_id, should_stop)

    def consolidate(self, project_id: int, should_stop: Callable[[], bool] = lambda: False) -> str | None:
        """Train on over the truth of the last round while nobody wants anything else."""
        return self._rounds.go_on(project_id, should_stop)

    # Suggest: masks and questions for the tasks that somebody opens.

    def suggest(
        self, project_id: int, tasks: Sequence[TaskRecord], label_config: str | None, deadline: float
    ) -> list[dict[str, Any] | None]:
        """One prediction per task, or None; `deadline` is a moment of `time.monotonic()`.

        What is not done by then, is pushed to Label Studio when it is.
        """
        answers = self._suggester.suggest(project_id, tasks, label_config, deadline)
        if len(tasks) == 1:  # somebody opened it, and may click in it next
            self._prompter.look_ahead(project_id, tasks[0], label_config)
        return answers

    def prompt(
        self,
        project_id: int,
        task: TaskRecord,
        context: Mapping[str, Any],
        painted: Sequence[Sequence[Any]],
        label_config: str | None,
        deadline: float,
    ) -> dict[str, Any]:
        """Answer a smart tool with one region; see `ml_backend.suggestions.prompting`."""
        return self._prompter.answer(project_id, task, context, painted, label_config, deadline)

    def segment(
        self, project: Project, model: StoredModel, task: TaskRecord
    ) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
        """What a model says of a task's image, `(H, W)`, and the names of its values."""
        seen = self._suggester.predict(project, model, task, deadline=math.inf)
        return seen.label_map, self._suggester.predictors.get(project, model).checkpoint.schema.names

    def push(self, project_id: int, should_stop: Callable[[], bool] = lambda: False) -> int:
        """Send the predictions that are due to Label Studio, one per task; returns how many were sent."""
        return self._pusher.push_due(self._get(project_id), should_stop)

    # Review: the new model scores tasks that nobody opened, and Label Studio shows what teaches most first.

    def score(self, project_id: int, should_stop: Callable[[], bool] = lambda: False) -> int:
        """Score some tasks within a budget of time and tasks; returns how many were scored."""
        return self._scorer.score(project_id, should_stop)

    def rank(self, project_id: int) -> int:
        """Rank near-duplicates lower and rare classes higher; returns how many scores changed."""
        return ranking.rank_pool(self.parts, project_id)

    def sync_project_order(self, project_id: int) -> bool:
        """Make Label Studio order tasks by the current version's scores; returns whether it did."""
        return label_studio_order.sync_project_order(self.parts, project_id)

    # Status and control.

    # Each answer is read in one transaction: what it says was true at one moment.

    def projects(self) -> list[dict[str, Any]]:
        """All known projects with their status in short."""
        with self.parts.database.read() as connection:
            listed = list_projects(connection)
            return [overview.describe_in_short(self.parts, connection, project) for project in listed]

    def status(self, project_id: int) -> dict[str, Any]:
        with self.parts.database.read() as connection:
            return overview.describe(self.parts, connection, get_project(connection, project_id))

    def rounds(
        self, project_id: int, limit: int | None = None, before: int | None = None
    ) -> list[dict[str, Any]]:
        """The reports, newest first; all of them, or as many as `limit` of rounds `before` a number."""
        with self.parts.database.read() as connection:
            get_project(connection, project_id)
            return _read_reports(connection, project_id, limit, before)

    def ready(self) -> Mapping[str, Any]:
        """Whether the service can do its work, and what keeps it from that."""
        return ready.check(self.parts)

    def view(self, project_id: int, n_tasks: int) -> ProjectView:
        """Everything that a page shows of a project, of one moment; `n_tasks` are ranked."""
        with self.parts.database.read() as connection:
            return self._view(connection, get_project(connection, project_id), None, n_tasks)

    def views(self, n_rounds: int) -> list[ProjectView]:
        """All projects with their newest reports, of one moment."""
        with self.parts.database.read() as connection:
            return [self._view(connection, project, n_rounds, 0) for project in list_projects(connection)]

    def _view(
        self, connection: Connection, project: Project, n_rounds: int | None, n_tasks: int
    ) -> ProjectView:
        return ProjectView(
            status=overview.describe(self.parts, connection, project),
            rounds=_read_reports(connection, project.project_id, n_rounds),
            outcomes=rounds.count_outcomes(connection, project.project_id),
            tasks=overview.rank(connection, project, n_tasks) if n_tasks else [],
            task_address=task_address(
                project.project_id, project.hostname, self.parts.settings.label_studio_url
            ),
        )

    def versions(self, project_id: int | None = None) -> list[str]:
        """Model versions that one can go back to, newest first: of one project, or of all."""
        with self.parts.database.read() as connection:
            asked = list_projects(connection) if project_id is None else [get_project(connection, project_id)]
            kept = [row for project in asked for row in models.list_versions(connection, project.project_id)]
        return [version for version, _ in sorted(kept, key=lambda row: -row[1])]

    def request_training(self, project_id: int) -> None:
        """Have a round started although the gate may be closed; not where the labeling setup forbids it."""
        self._refuse_hopeless(project_id)
        with self.parts.database.write() as connection:
            get_project(connection, project_id)
            request_training(connection, project_id, self.parts.clock())

    def cancel(self, project_id: int) -> None:
        """Stop the running round, and drop the request for the next one; the current model stays."""
        with self.parts.database.write() as connection:
            get_project(connection, project_id)
            count_cancel_request(connection, project_id)

    def rollback(self, project_id: int, model_version: str) -> None:
        """Make an earlier version current again; later rounds start from it."""
        self._check_readable(project_id, model_version)
        with self.parts.database.write() as connection:
            get_project(connection, project_id)
            models.get_model(connection, project_id, model_version)
            # First, because it waits for a round that is dropping old files at this moment.
            models.set_current(connection, project_id, model_version)
            if not models.get_model(connection, project_id, model_version).folder:
                raise ConflictError(
                    f"the files of model version {model_version!r} are not kept any more: KEEP_MODELS is"
                    f" {self.parts.settings.keep_models}"
                )
        log.info("roll_back project=%d model_version=%s", project_id, model_version)

    def _check_readable(self, project_id: int, model_version: str) -> None:
        project = self._get(project_id)
        with self.parts.database.read() as connection:
            model = models.get_model(connection, project_id, model_version)
        damage = find_damage(self.parts, project, model_version) if model.folder else None
        if damage:
            raise ConflictError(f"nobody can go back to what cannot be read: {damage}")

    def ranked_tasks(self, project_id: int, limit: int = 100) -> list[dict[str, Any]]:
        """The tasks that the current model scored, least sure first."""
        with self.parts.database.read() as connection:
            return overview.rank(connection, get_project(connection, project_id), limit)

    def picture(self, project_id: int, task_id: int, kind: PictureKind) -> bytes:
        """A PNG of what the model thinks of an image, or of its truth."""
        return pictures.draw(self.parts, self._suggester, self._get(project_id), task_id, kind)

    def _refuse_hopeless(self, project_id: int) -> None:
        """Raise where no round can ever begin; before Label Studio told its setup, nobody can say."""
        if self._get(project_id).label_config:
            self._usable(project_id)

    def _get(self, project_id: int) -> Project:
        with self.parts.database.read() as connection:
            return get_project(connection, project_id)

    def _usable(self, project_id: int) -> tuple[Project, LabelConfig]:
        project = self._get(project_id)
        config, problem = find_config(project.label_config)
        if config is None:
            raise LabelConfigError(str(problem))
        return project, config


def _read_reports(
    connection: Connection, project_id: int, limit: int | None, before: int | None = None
) -> list[dict[str, Any]]:
    return [stored.to_record() for stored in rounds.list_rounds(connection, project_id, limit, before)]
