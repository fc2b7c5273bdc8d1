"""Have Label Studio hold exactly one prediction of ours for a task: the newest.

Label Studio does not keep predictions apart by task and version, and it stores what `/predict` answers by
itself, twice when a task is opened. So what is there is listed first, and only the difference is sent. A
process that is killed anywhere leaves a row in `pushes`, and whoever takes it up lists again.

A prediction that is there already is overwritten instead of replaced by another one: a person may have the
task open, and Label Studio refuses to store an annotation whose prediction is gone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection

from ml_backend.errors import LabelStudioError, LabelStudioRefusedError
from ml_backend.parts import Parts
from ml_backend.ports import LabelStudio, TaskRecord
from ml_backend.rounds.troubles import describe, may_pass
from ml_backend.storage import health, models, predictions, tables, tasks
from ml_backend.storage.predictions import DuePush
from ml_backend.storage.projects import Project, get_project
from ml_backend.storage.row_leases import list_gone
from ml_backend.suggestions.differences import Difference, find_difference
from ml_backend.suggestions.suggesting import Suggester

log = logging.getLogger(__name__)

TROUBLE = "push"
PUSH_BATCH = 10
"""Tasks whose predictions are listed in one call: Label Studio sends the whole masks along."""
PUSH_RETRY_S, LONGEST_RETRY_S = 60.0, 300.0
MAX_PUSH_ATTEMPTS = 10
"""Of answers for an image that is broken or not allowed itself. All else may pass, and is tried on."""
HELD_AT_ONCE = 10_000
OF_CONTENT = (400, 409, 413, 422)
"""Refusals of what was sent; others are of the credential, the project or the server."""
LEASE_S = 300.0
"""For a batch, with time to compute it; a worker that died on this machine is noticed at once."""
MAX_PASSES = 3
"""Times that a batch is compared: what Label Studio stored by itself meanwhile shows in the next one."""


@dataclass(frozen=True)
class _Outcome:
    """What became of the tasks of one batch.

    Tries are counted of those that `failed`, because no answer can be computed, or Label Studio refuses it:
    they are tried ever more slowly. Those that are `held` were not tried. Nothing is given up for that, but
    the `hopeless`, whose image itself is broken, after some tries.
    """

    done: Sequence[int] = ()
    failed: Collection[int] = ()
    held: Sequence[int] = ()
    n_sent: int = 0
    problem: str | None = None
    is_away: bool = False
    hopeless: Collection[int] = ()
    uncomputed: str | None = None

    def __add__(self, other: _Outcome) -> _Outcome:
        return _Outcome(
            [*self.done, *other.done],
            {*self.failed, *other.failed},
            [*self.held, *other.held],
            self.n_sent + other.n_sent,
            self.problem or other.problem,
            self.is_away or other.is_away,
        )


def _is_of_content(error: LabelStudioError) -> bool:
    return isinstance(error, LabelStudioRefusedError) and error.status in OF_CONTENT


def _judge(error: LabelStudioError, ids: Sequence[int]) -> _Outcome:
    """How much of the batch arrived is not known; sending it again changes nothing that is there."""
    problem = f"predictions could not be sent to Label Studio: {error}"
    if _is_of_content(error):
        return _Outcome(failed=ids, problem=problem)
    return _Outcome(held=ids, problem=problem, is_away=True)


def _describe_uncomputed(failures: Mapping[int, Exception]) -> str | None:
    """Why what somebody opened cannot be answered; that there was no time, or no model, is no trouble."""
    if not failures:
        return None
    cause = describe(next(iter(failures.values())))
    return f"predictions of {len(failures)} opened tasks could not be computed: {cause}. It is tried again"


def _note_uncomputed(connection: Connection, project_id: int, cause: str | None, now: float) -> None:
    """Have the status say why what somebody opened is not answered, until all of it is."""
    is_waiting = predictions.has_failed_open(connection, project_id)
    if cause or not is_waiting:
        health.note_trouble(connection, project_id, health.UNANSWERED, cause if is_waiting else None, now)


class Pusher:
    """Sends the predictions that are due."""

    def __init__(self, parts: Parts, suggester: Suggester) -> None:
        self._parts, self._suggester = parts, suggester

    def push_due(self, project: Project, should_stop: Callable[[], bool]) -> int:
        """Bring Label Studio up to date; returns how many were sent. What fails is tried again."""
        n_sent = 0
        while not should_stop():
            leased = self._lease(project.project_id)
            if not leased:
                break
            outcome = self._push_batch(project.project_id, leased)
            n_sent += outcome.n_sent
            if outcome.is_away:
                self._hold(project.project_id)
                break
        return n_sent

    def _lease(self, project_id: int, limit: int = PUSH_BATCH) -> list[DuePush]:
        parts, now = self._parts, self._parts.clock()
        with parts.database.write() as connection:
            gone = list_gone(connection, tables.pushes, project_id, now)
            return predictions.lease_pushes(
                connection, project_id, parts.owner, now, now + LEASE_S, gone, limit
            )

    def _hold(self, project_id: int) -> None:
        """Nothing can be sent now: one call after each pause is enough to see when that is over."""
        ids = [push.task_id for push in self._lease(project_id, HELD_AT_ONCE)]
        retry_at = self._parts.clock() + PUSH_RETRY_S
        with self._parts.database.write() as connection:
            predictions.postpone_pushes(connection, project_id, ids, self._parts.owner, retry_at, None)

    def _push_batch(self, project_id: int, leased: Sequence[DuePush]) -> _Outcome:
        """Send what the tasks of one batch need, and note what is done."""
        failures: dict[int, Exception] = {}
        opened = [push.task_id for push in leased if push.is_open]
        unanswered = self._answer_open(project_id, opened, failures)
        ids = [push.task_id for push in leased if push.task_id not in unanswered]
        sent = self._send_apart(project_id, ids)
        outcome = replace(
            sent,
            failed={*sent.failed, *unanswered},
            hopeless={i for i, error in failures.items() if not may_pass(error)},
            uncomputed=_describe_uncomputed(failures),
        )
        self._note(project_id, outcome, leased)
        return outcome

    def _send_apart(self, project_id: int, ids: Sequence[int]) -> _Outcome:
        """Bring some tasks up to date; where Label Studio refuses what is sent, the culprit alone fails."""
        if not ids:
            return _Outcome()
        try:
            n_sent, unlisted = self._converge(project_id, ids)
        except LabelStudioError as error:
            if len(ids) == 1 or not _is_of_content(error):
                return _judge(error, ids)
            middle = len(ids) // 2
            return self._send_apart(project_id, ids[:middle]) + self._send_apart(project_id, ids[middle:])
        return _Outcome(ids, held=unlisted, n_sent=n_sent)

    def _note(self, project_id: int, outcome: _Outcome, leased: Sequence[DuePush]) -> None:
        """What arrived is due no more; all else is due again after a pause."""
        owner, now, problem = self._parts.owner, self._parts.clock(), outcome.problem
        is_news = False
        failed = [push for push in leased if push.task_id in outcome.failed]
        with self._parts.database.write() as connection:
            if problem or outcome.done:
                is_news = health.note_trouble(connection, project_id, TROUBLE, problem, now)
            # One strange listing proves nothing: what is gone goes when reconciliation is sure of it.
            held = [i for i in outcome.held if tasks.find_task(connection, project_id, i)]
            predictions.postpone_pushes(connection, project_id, held, owner, now + PUSH_RETRY_S, None)
            predictions.clear_pushes(connection, project_id, [*outcome.done, *outcome.held], owner)
            for push in failed:
                retry_at = now + min(PUSH_RETRY_S * 2.0 ** min(push.attempts, 30), LONGEST_RETRY_S)
                most = MAX_PUSH_ATTEMPTS if push.task_id in outcome.hopeless else None
                predictions.postpone_pushes(
                    connection, project_id, [push.task_id], owner, retry_at, most, is_failed=True
                )
            _note_uncomputed(connection, project_id, outcome.uncomputed, now)
        if problem and is_news:
            log.warning("postpone_push project=%d cause=%s", project_id, problem)
        log.info("push project=%d sent=%d later=%d", project_id, outcome.n_sent, len(failed) + len(held))

    def _answer_open(
        self, project_id: int, task_ids: Sequence[int], failures: dict[int, Exception]
    ) -> set[int]:
        """Compute what a deadline cut off; returns the tasks that have no answer yet."""
        if not task_ids:
            return set()
        with self._parts.database.read() as connection:
            stored = [tasks.find_task(connection, project_id, task_id) for task_id in task_ids]
        opened = [TaskRecord(task.task_id, project_id, task.data, "") for task in stored if task]
        # The other half of the lease is for sending, before another worker may take the rows.
        deadline = time.monotonic() + LEASE_S / 2
        answers = self._suggester.suggest(project_id, opened, None, deadline, failures)
        missing = {task.task_id for task, answer in zip(opened, answers, strict=True) if answer is None}
        for answered in failures.keys() - missing:
            del failures[answered]  # another version answered
        return missing

    def _converge(self, project_id: int, task_ids: Sequence[int]) -> tuple[int, list[int]]:
        """List, send the difference, and list again what was created.

        Returns how many were sent, and the tasks that are not listed.
        """
        with self._parts.database.read() as connection:
            project = get_project(connection, project_id)
            ours = models.list_known_versions(connection, project_id)
            stored = {i: predictions.find_stored(connection, project_id, i) for i in task_ids}
        server = self._parts.label_studio(project)
        # What an older version answered is not sent any more.
        wanted = {
            i: p if p and p["model_version"] == project.current_version else None for i, p in stored.items()
        }
        n_sent, unsure = 0, list(task_ids)
        unlisted: list[int] = []
        for _ in range(MAX_PASSES):
            held = server.list_predictions(project.project_id, unsure)
            # A task that the listing leaves out seems to be gone: nothing is to be sent for it now.
            unlisted += [i for i in unsure if i not in held]
            needs = {i: find_difference(wanted[i], held[i], ours) for i in unsure if i in held}
            # Only what was created is listed again: `/predict` may have stored another one meanwhile.
            unsure = [task_id for task_id, need in needs.items() if need.create]
            n_sent += _send(server, project.project_id, needs, wanted)
            if not unsure:
                return n_sent, unlisted
        log.warning("give_up_push project=%d tasks=%s cause=not_kept", project.project_id, unsure)
        return n_sent, unlisted


def _send(
    server: LabelStudio,
    project_id: int,
    needs: Mapping[int, Difference],
    wanted: Mapping[int, Mapping[str, Any] | None],
) -> int:
    """New ones first, so that no task is without one; deletions last, one by one.

    Deleting a whole version at once could empty the project's `model_version`.
    """
    created = [(i, prediction) for i, need in needs.items() if need.create and (prediction := wanted[i])]
    n_sent = server.push_predictions(project_id, created) if created else 0
    for task_id, need in needs.items():
        prediction = wanted[task_id]
        if need.overwrite is not None and prediction is not None:
            server.overwrite_prediction(project_id, task_id, need.overwrite, prediction)
            n_sent += 1
    for need in needs.values():
        for prediction_id in need.delete:
            server.delete_prediction(prediction_id)
    return n_sent
