"""Jobs that fail although nobody expects it: said while it lasts, and tried again after growing pauses.

A disk that is full, a row that cannot be read, a mistake of ours: whatever it is, people learn of it from the
status, the log gets one traceback, and what is due to the other projects goes on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from ml_backend.parts import Parts
from ml_backend.rounds.troubles import PASSING, describe
from ml_backend.storage import health, wakeups

log = logging.getLogger(__name__)

LOOK = "look"
"""Kind of what is done for each project before there is a job: to see what is due."""

WHAT: Mapping[str, str] = {
    LOOK: "What is due could not be found out",
    "reconcile": "Label Studio could not be asked what changed",
    "build": "Label maps could not be built",
    "draft": "No draft could be trained",
    "round": "No round could be trained",
    "consolidate": "Training could not go on",
    "push": "Predictions could not be sent",
    "score": "Tasks could not be scored",
    "rank": "Scores could not be ranked",
    "sync": "Label Studio's order could not be updated",
}

PREFIX = "job "
"""How these troubles are told from others in the table of troubles."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 4.0, 60.0


@dataclass(frozen=True)
class _Failure:
    tries: int
    until: float  # by `time.monotonic`


class FailingJobs:
    """What failed in this process, and how often in a row; the status has it from the database.

    `lost_after_s` is when a wake-up counts as lost: a job that failed is due again by that alone.
    """

    def __init__(self, parts: Parts, lost_after_s: float, now: Callable[[], float] = time.monotonic) -> None:
        self._parts, self._lost_after_s, self._now = parts, lost_after_s, now
        self._failures: dict[tuple[int, str], _Failure] = {}
        self._cut_off: set[tuple[int, str]] = set()

    def note(self, project_id: int, kind: str, error: Exception) -> bool:
        """Say why a job failed, and when it is tried again; returns whether the database took it."""
        before = self._failures.get((project_id, kind))
        tries = before.tries + 1 if before else 1
        pause_s = min(FIRST_PAUSE_S * 2.0 ** min(tries - 1, 30), LONGEST_PAUSE_S)
        self._failures[project_id, kind] = _Failure(tries, self._now() + pause_s)
        said = f"{WHAT[kind]}: {_describe(error)}. It is tried again"
        is_noted = True
        try:
            is_news = self._say(project_id, kind, said, pause_s)
        except SQLAlchemyError as trouble:
            log.warning("miss_trouble kind=%s project=%d cause=%s", kind, project_id, describe(trouble))
            is_news, is_noted = tries == 1, False
        # One traceback: the next ones would say the same, some kB each minute.
        trace = error if is_news else None
        log.error(
            "fail_job kind=%s project=%d tries=%d cause=%s", kind, project_id, tries, error, exc_info=trace
        )
        return is_noted

    def is_cut_off_once(self, project_id: int, kind: str, error: Exception) -> bool:
        """Whether a job that the database cut off is due at once; after that, it fails until it ends well.

        A time-out or a full disk may meet the same job again and again, while the database answers others.
        """
        is_first = (project_id, kind) not in self._cut_off
        self._cut_off.add((project_id, kind))
        return is_first or not self.note(project_id, kind, error)

    def end(self, project_id: int, kind: str) -> None:
        """The job ended well, in whatever process it failed before."""
        self._failures.pop((project_id, kind), None)
        self._cut_off.discard((project_id, kind))
        name = _name(kind)
        with self._parts.database.read() as connection:
            is_said = health.has_trouble(connection, project_id, name)
        if is_said:
            with self._parts.database.write() as connection:
                health.note_trouble(connection, project_id, name, None, self._parts.clock())

    def end_others(self, due: Collection[tuple[int, str]]) -> None:
        """What failed and is due no more, is over: its task may be gone, say."""
        for project_id, kind in [failed for failed in self._failures if failed not in due]:
            if not self.rests(project_id, kind):
                self.end(project_id, kind)

    def rests(self, project_id: int, kind: str) -> bool:
        """Whether the pause after a failure is not over."""
        failure = self._failures.get((project_id, kind))
        return failure is not None and self._now() < failure.until

    def _say(self, project_id: int, kind: str, said: str, pause_s: float) -> bool:
        now = self._parts.clock()
        with self._parts.database.write() as connection:
            if kind != LOOK:
                wakeups.delay(connection, project_id, kind, now - self._lost_after_s + pause_s)
            return health.note_trouble(connection, project_id, _name(kind), said, now)


def _name(kind: str) -> str:
    """The kind of trouble in the table of troubles."""
    return PREFIX + kind


def _describe(error: Exception) -> str:
    if isinstance(error, PASSING):
        return describe(error)
    return f"an unexpected failure ({type(error).__name__}); the worker's log has the cause"
