"""The lease of a project's round: taken in the database, renewed by a thread, lost when the thread stops."""

from __future__ import annotations

import logging
import os
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import TracebackType

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from ml_backend.parts import Parts
from ml_backend.processes.process_identity import find_start_time, is_gone, name_machine
from ml_backend.rounds.troubles import describe
from ml_backend.storage import rounds
from ml_backend.storage.projects import Project, get_project
from ml_backend.storage.rounds import RoundKind, StoredRound

log = logging.getLogger(__name__)

BEAT_S = 0.5
"""How often a round shows that it lives, and looks whether it was cancelled."""
LOST_AFTER_S = 30.0
"""A lease without a heartbeat for so long is lost; on this machine its process is asked for instead."""
GRACE_S = 3.0
"""So long a silent round has to beat once the database can be written again."""
LONGEST_LOOK_S = 5.0
"""No more than this counts between two checks: where a clock jumps, nobody was silent."""
MAX_WATCHED = 1000


GivesWay = Callable[[Connection], bool]
"""Whether a round that nobody waits for should end now; asked with every beat."""


class LeaseLostError(Exception):
    """Somebody else took the round over, or the project is gone: stop, and write nothing more."""


class Lease:
    """One running round. Entering starts the beat; what is not ended inside is recorded as interrupted."""

    def __init__(
        self,
        parts: Parts,
        project: Project,
        number: int,
        should_stop: Callable[[], bool],
        kind: RoundKind = "round",
        gives_way: GivesWay = lambda connection: False,
    ) -> None:
        self.project, self.number, self.kind = project, number, kind
        self._gives_way, self._something_better = gives_way, threading.Event()
        self.truth_seq = project.truth_seq  # up to where the round looked; the snapshot moves it on
        self._parts = parts
        self._worker_stops = should_stop
        self._progress: tuple[float, float | None] = (0.0, None)
        self._ended, self._cancelled, self._lost = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"round-{project.project_id}", daemon=True)

    def __enter__(self) -> Lease:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def report_progress(self, progress: float, eta_s: float | None) -> None:
        self._progress = (progress, eta_s)

    def should_stop(self) -> bool:
        """Whether the round was cancelled, its worker is going down, or the lease was lost."""
        return self._cancelled.is_set() or self._lost.is_set() or self._worker_stops()

    def wait(self, seconds: float) -> None:
        """Pause, but no longer than until the round is cancelled."""
        self._cancelled.wait(seconds)

    def should_finish(self) -> bool:
        """Whether there is something better to do than to go on, as `gives_way` said."""
        return self._something_better.is_set()

    @property
    def is_cancelled(self) -> bool:
        return self._cancelled.is_set()

    def _beat(self) -> None:
        cause: str | None = None
        while not self._ended.wait(BEAT_S):
            before = cause
            try:
                self._beat_once()
                cause = None
            except (SQLAlchemyError, OSError) as error:
                # The database may be away for a moment, or no file be opened; the lease holds for a while.
                cause = describe(error)
            if cause and cause != before:
                log.warning(
                    "miss_beat project=%d round=%d cause=%s", self.project.project_id, self.number, cause
                )
            elif before and not cause:
                log.info("resume_beat project=%d round=%d", self.project.project_id, self.number)

    def _beat_once(self) -> None:
        progress, eta_s = self._progress
        with self._parts.database.write() as connection:
            alive = rounds.beat(
                connection, self.project.project_id, self.number, self._parts.owner, self._parts.clock(),
                progress=progress, eta_s=eta_s,
            )  # fmt: skip
            # The row has another owner, who runs the round now.
            if not alive:
                self._lost.set()
                return
            if self._gives_way(connection):
                self._something_better.set()
            requests = get_project(connection, self.project.project_id).cancel_requests
        if requests != self.project.cancel_requests:
            self._cancelled.set()


def take_lease(
    parts: Parts,
    project_id: int,
    should_stop: Callable[[], bool],
    kind: RoundKind = "round",
    gives_way: GivesWay = lambda connection: False,
) -> Lease | None:
    """Begin a round of the project; None when one is running already."""
    now = parts.clock()
    with parts.database.write() as connection:
        project = get_project(connection, project_id)
        number = rounds.begin(
            connection,
            project_id,
            parts.owner,
            project.truth_seq,
            now,
            lambda running: may_take_over(running, now),
            project.train_requests,
            kind,
        )
    return None if number is None else Lease(parts, project, number, should_stop, kind, gives_way)


@dataclass(frozen=True)
class _Look:
    """What one process saw of a running round: how long it has been silent, by this process's own time."""

    heartbeat_at: float
    looked_at: float
    silent_s: float = 0.0
    suspected_s: float | None = None  # how long it was silent when it could first have been taken over


class _Watch:
    """Follows running rounds. Heartbeats are compared with earlier ones, never with anybody's clock."""

    def __init__(self) -> None:
        self._looks: OrderedDict[tuple[str, int, float], _Look] = OrderedDict()
        self._lock = threading.Lock()

    def look(self, running: StoredRound, now: float, *, may_suspect: bool = False) -> _Look:
        key = (running.owner, running.number, running.started_at)
        with self._lock:
            before = self._looks.pop(key, None)
            if before is None or before.heartbeat_at != running.heartbeat_at:
                before = _Look(running.heartbeat_at, now)
            passed_s = min(max(now - before.looked_at, 0.0), LONGEST_LOOK_S)
            seen = replace(before, looked_at=now, silent_s=before.silent_s + passed_s)
            if may_suspect and seen.suspected_s is None and seen.silent_s > LOST_AFTER_S:
                seen = replace(seen, suspected_s=seen.silent_s)
            self._looks[key] = seen
            while len(self._looks) > MAX_WATCHED:
                self._looks.popitem(last=False)
        return seen


_WATCH = _Watch()


def is_lost(running: StoredRound, now: float) -> bool:
    """Whether nobody works on this round any more, as far as this process has seen."""
    return is_gone(running.owner) or _WATCH.look(running, now).silent_s > LOST_AFTER_S


def may_take_over(running: StoredRound, now: float) -> bool:
    """The same, asked inside a transaction that writes: now that one may write, the owner gets time to beat.

    While somebody else locked the database, no round could beat, however alive it was.
    """
    if is_gone(running.owner):
        return True
    seen = _WATCH.look(running, now, may_suspect=True)
    return seen.suspected_s is not None and seen.silent_s - seen.suspected_s > GRACE_S


def name_owner() -> str:
    """A name for this process that says where to look for it, and is never given twice."""
    return f"{name_machine()}|{os.getpid()}|{find_start_time(os.getpid())}|{uuid.uuid4().hex[:8]}"


def is_here(owner: str) -> bool:
    """Whether the process shares this machine with us."""
    return owner.split("|")[0] == name_machine()
