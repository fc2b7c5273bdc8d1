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
from dataclasses import dataclass
from typing import Any

from ml_backend.errors import LabelStudioError, LabelStudioRefusedError
from ml_backend.parts import Parts
from ml_backend.ports import HeldPrediction, LabelStudio, TaskRecord
from ml_backend.rounds.lease import list_gone
from ml_backend.storage import health, models, predictions, tables, tasks
from ml_backend.storage.predictions import DuePush
from ml_backend.storage.projects import Project, get_project
from ml_backend.suggestions.suggesting import Suggester

log = logging.getLogger(__name__)

TROUBLE = "push"
PUSH_BATCH = 10
"""Tasks whose predictions are listed in one call: Label Studio sends the whole masks along."""
PUSH_RETRY_S, MAX_PUSH_ATTEMPTS = 60.0, 10
HELD_AT_ONCE = 10_000
OF_CONTENT = (400, 409, 413, 422)
"""Refusals of what was sent; others are of the credential, the project or the server."""
LEASE_S = 300.0
"""For a batch, with time to compute it; a worker that died on this machine is noticed at once."""
MAX_PASSES = 3
"""Times that a batch is compared: what Label Studio stored by itself meanwhile shows in the next one."""
SCORE_TOLERANCE = 1e-6


@dataclass(frozen=True)
class _Outcome:
    """What became of the tasks of one batch.

    However long Label Studio is away, nothing is given up for that: tries are counted of those that `failed`,
    because no answer can be computed, or Label Studio refuses it. Those that are `held` were not tried.
    """

    done: Sequence[int]
    failed: Collection[int] = ()
    held: Collection[int] = ()
    n_sent: int = 0
    problem: str | None = None
    is_away: bool = False


@dataclass(frozen=True)
class Difference:
    """What one task needs, so that one prediction of ours is left."""

    create: bool = False
    overwrite: int | None = None
    delete: tuple[int, ...] = ()


def find_difference(
    wanted: Mapping[str, Any] | None, held: Sequence[HeldPrediction], ours: Collection[str]
) -> Difference:
    """Compare what a task has with what it should have; `wanted` of None leaves the newest of ours.

    Other people's predictions, which are those of versions that are not ours, are never in the answer.

    Examples
    --------
    >>> held = [HeldPrediction(7, "theirs", 0.1), HeldPrediction(8, "v1", 0.5)]
    >>> find_difference({"model_version": "v2", "score": 0.4}, held, {"v1", "v2"})
    Difference(create=False, overwrite=8, delete=())
    """
    own = sorted((p for p in held if models.is_ours(p.model_version, ours)), key=lambda p: p.prediction_id)
    if not own:
        return Difference(create=wanted is not None)
    if wanted is None:
        return Difference(delete=tuple(p.prediction_id for p in own[:-1]))
    # Label Studio shows the newest of the current version, so that is the one that may be open.
    same = [p for p in own if p.model_version == wanted["model_version"]]
    kept = (same or own)[-1]
    is_as_wanted = bool(same) and abs((kept.score or 0.0) - wanted["score"]) <= SCORE_TOLERANCE
    return Difference(
        overwrite=None if is_as_wanted else kept.prediction_id,
        delete=tuple(p.prediction_id for p in own if p is not kept),
    )


def _judge(error: LabelStudioError, ids: Sequence[int], unanswered: Collection[int]) -> _Outcome:
    """How much of the batch arrived is not known; sending it again changes nothing that is there."""
    problem = f"predictions could not be sent to Label Studio: {error}"
    if isinstance(error, LabelStudioRefusedError) and error.status in OF_CONTENT:
        return _Outcome((), failed={*unanswered, *ids}, problem=problem)
    return _Outcome((), failed=unanswered, held=ids, problem=problem, is_away=True)


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
        unanswered = self._answer_open(project_id, [push.task_id for push in leased if push.is_open])
        ids = [push.task_id for push in leased if push.task_id not in unanswered]
        try:
            n_sent, unlisted = self._converge(project_id, ids) if ids else (0, [])
            outcome = _Outcome(ids, failed=unanswered, held=unlisted, n_sent=n_sent)
        except LabelStudioError as error:
            outcome = _judge(error, ids, unanswered)
        self._note(project_id, outcome)
        return outcome

    def _note(self, project_id: int, outcome: _Outcome) -> None:
        """What arrived is due no more; all else is due again after a pause."""
        owner, now, problem = self._parts.owner, self._parts.clock(), outcome.problem
        retry_at, is_news = now + PUSH_RETRY_S, False
        with self._parts.database.write() as connection:
            if problem or outcome.done:
                is_news = health.note_trouble(connection, project_id, TROUBLE, problem, now)
            # One strange listing proves nothing: what is gone goes when reconciliation is sure of it.
            held = [i for i in outcome.held if tasks.find_task(connection, project_id, i)]
            predictions.postpone_pushes(connection, project_id, held, owner, retry_at, None)
            predictions.clear_pushes(connection, project_id, [*outcome.done, *outcome.held], owner)
            failed = sorted(outcome.failed)
            predictions.postpone_pushes(connection, project_id, failed, owner, retry_at, MAX_PUSH_ATTEMPTS)
        if problem and is_news:
            log.warning("postpone_push project=%d cause=%s", project_id, problem)
        log.info("push project=%d sent=%d later=%d", project_id, outcome.n_sent, len(failed) + len(held))

    def _answer_open(self, project_id: int, task_ids: Sequence[int]) -> set[int]:
        """Compute what a deadline cut off; returns the tasks that have no answer yet."""
        if not task_ids:
            return set()
        with self._parts.database.read() as connection:
            stored = [tasks.find_task(connection, project_id, task_id) for task_id in task_ids]
        opened = [TaskRecord(task.task_id, project_id, task.data, "") for task in stored if task]
        # The other half of the lease is for sending, before another worker may take the rows.
        deadline = time.monotonic() + LEASE_S / 2
        answers = self._suggester.suggest(project_id, opened, None, deadline)
        return {task.task_id for task, answer in zip(opened, answers, strict=True) if answer is None}

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
