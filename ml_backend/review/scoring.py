"""Scoring: after a promotion the new model predicts some tasks that nobody opened, to rank them.

How many is a budget, in tasks and in seconds, that does not grow with the project. Any number of workers
share the work: each leases one task at a time. It steps aside for a training, and for people who wait.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable

from sqlalchemy import Connection

from core.errors import BrushloopError, RoundCancelledError
from ml_backend.due import is_training
from ml_backend.errors import LabelStudioUnavailableError
from ml_backend.moments import has_passed
from ml_backend.parts import Parts
from ml_backend.ports import TaskRecord
from ml_backend.processes.patience import is_over
from ml_backend.review.score_choice import choose_tasks_to_score
from ml_backend.storage import predictions, reviews, scorings, tables, tasks
from ml_backend.storage.projects import Project, find_project
from ml_backend.storage.row_leases import list_gone
from ml_backend.storage.tasks import StoredTask
from ml_backend.suggestions.suggesting import Suggester

log = logging.getLogger(__name__)

SLICE_S = 10.0
"""Length of one job: then other projects, and other workers, get their turn."""
QUIET_S, PAUSE_S = 2.0, 0.25
"""Scoring pauses this long after a request for a prediction; how often it checks."""
LEASE_S = 600.0
"""More than the largest image takes; a worker that died on this machine is noticed at once."""
RETRY_S = 60.0
"""Pause when Label Studio cannot give images."""


class Scorer:
    """Chooses tasks once per model version and scores them."""

    def __init__(self, parts: Parts, suggester: Suggester) -> None:
        self._parts, self._suggester = parts, suggester

    def score(self, project_id: int, should_stop: Callable[[], bool]) -> int:
        """Score for a while; returns how many tasks were. What is left is due again."""
        started = time.monotonic()
        n_scored = 0
        while time.monotonic() - started < SLICE_S and self._wait_for_people(project_id, should_stop):
            leased = self._lease(project_id)
            if leased is None:
                break
            version, task = leased
            n_scored += self._score_one(project_id, version, task)
        if n_scored:
            log.info("score project=%d tasks=%d", project_id, n_scored)
        return n_scored

    def _wait_for_people(self, project_id: int, should_stop: Callable[[], bool]) -> bool:
        """Pause while somebody waits for a prediction; False when there is something better to do."""
        while not should_stop():
            with self._parts.database.read() as connection:
                if is_training(connection, project_id, self._parts.clock()):
                    return False
                if has_passed(reviews.last_asked(connection), QUIET_S, self._parts.clock()):
                    return True
            time.sleep(PAUSE_S)
        return False

    def _lease(self, project_id: int) -> tuple[str, StoredTask] | None:
        """The next task for the current model; a new model's tasks are chosen by whoever comes first."""
        parts, now = self._parts, self._parts.clock()
        with parts.database.write() as connection:
            project = find_project(connection, project_id)
            if project is None or project.current_version is None:
                return None
            if reviews.get_review(connection, project_id).planned_version != project.current_version:
                plan_scoring(
                    connection, project, project.current_version, parts.settings.score_tasks_per_round, now
                )
            gone = list_gone(connection, tables.scorings, project_id, now)
            task_id = scorings.lease_next(
                connection, project_id, project.current_version, parts.owner, now, now + LEASE_S, gone
            )
            task = tasks.find_task(connection, project_id, task_id) if task_id is not None else None
        return (project.current_version, task) if task else None

    def _score_one(self, project_id: int, version: str, task: StoredTask) -> bool:
        """Score one task and note it, whatever comes of it."""
        started = time.monotonic()
        record = TaskRecord(task.task_id, project_id, task.data, "")
        try:
            is_scored = self._suggester.score(
                project_id, version, record, time.monotonic() + self._parts.settings.score_budget_s
            )
        except LabelStudioUnavailableError as error:
            log.warning("pause_scoring project=%d cause=%s", project_id, error)
            self._pause(project_id, task.task_id)
            return False
        except RoundCancelledError as error:
            if is_over():
                self._give_back(project_id, task.task_id)
                raise
            log.warning("skip_score project=%d task=%d cause=%s", project_id, task.task_id, error)
            is_scored = False
        except BrushloopError as error:
            log.warning("skip_score project=%d task=%d cause=%s", project_id, task.task_id, error)
            is_scored = False
        self._note(project_id, task.task_id, is_scored, time.monotonic() - started)
        return is_scored

    def _note(self, project_id: int, task_id: int, is_scored: bool, took_s: float) -> None:
        parts, now = self._parts, self._parts.clock()
        with parts.database.write() as connection:
            if not scorings.drop(connection, project_id, task_id, parts.owner):
                return  # another model was promoted meanwhile, or the project is gone
            if is_scored:
                predictions.enqueue_pushes(connection, project_id, [task_id], now, is_open=False)
            else:
                scorings.note_try(connection, project_id, task_id, now)
            spent_s = reviews.add_spent(connection, project_id, took_s)
            if spent_s >= parts.settings.score_budget_s and scorings.has_any(connection, project_id):
                scorings.drop_all(connection, project_id)
                log.info("end_scoring project=%d cause=budget seconds=%.1f", project_id, spent_s)

    def _give_back(self, project_id: int, task_id: int) -> None:
        with self._parts.database.write() as connection:
            scorings.give_back(connection, project_id, task_id, self._parts.owner)

    def _pause(self, project_id: int, task_id: int) -> None:
        parts = self._parts
        self._give_back(project_id, task_id)
        with parts.database.write() as connection:
            reviews.update_review(connection, project_id, score_retry_at=parts.clock() + RETRY_S)


def plan_scoring(
    connection: Connection, project: Project, version: str, budget: int, now: float
) -> list[int]:
    """Choose the tasks that the version scores; those that an earlier version left are dropped."""
    project_id = project.project_id
    # The same version draws the same lot, whoever plans; another one draws another.
    lot = random.Random(f"{project.folder} {version}").randrange(tables.LOTS)  # noqa: S311 - no secret
    chosen = choose_tasks_to_score(
        {
            "never": scorings.list_never(connection, project_id, budget),
            "stale": scorings.list_stale(connection, project_id, version, budget),
            "unsure": scorings.list_unsure(connection, project_id, version, budget),
            "random": scorings.list_random(connection, project_id, version, lot, budget),
        },
        budget,
    )
    scorings.plan(connection, project_id, version, chosen)
    predictions.hasten_pushes(connection, project_id, now)
    reviews.update_review(
        connection, project_id, planned_version=version, ranked_version=None, spent_s=0.0,
        score_retry_at=None, keep_retry_at=None, keep_attempts=0,
    )  # fmt: skip
    log.info("plan_scoring project=%d model_version=%s tasks=%d", project_id, version, len(chosen))
    return chosen
