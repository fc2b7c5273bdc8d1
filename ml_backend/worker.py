"""The worker: twice a second it reads from the database what is due, and does it. Any number may run.

All it knows is in the database. So a worker that is killed loses nothing: the next one, or another one that
runs already, sees that the lease is orphaned and goes on by itself.
"""

from __future__ import annotations

import logging
import signal
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import count
from types import FrameType

from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError

from core.errors import RoundCancelledError
from ml_backend.bootstrap import build_loop
from ml_backend.config import Settings, calm_idle_threads, mark_children
from ml_backend.due import JobKind, find_due
from ml_backend.jobs import Queue, list_errors
from ml_backend.learning_loop import LearningLoop
from ml_backend.logs import set_up_logging
from ml_backend.processes.patience import patience
from ml_backend.processes.priority import step_back_thread
from ml_backend.rounds.failing_jobs import LOOK, PREFIX, FailingJobs
from ml_backend.rounds.lease import is_lost
from ml_backend.rounds.orphans import end_orphans
from ml_backend.rounds.round_process import warm_up
from ml_backend.rounds.troubles import describe
from ml_backend.storage import health, rounds, wakeups
from ml_backend.storage.installation import refuse_lost_folder
from ml_backend.storage.projects import Project, find_project, list_projects, update_project

log = logging.getLogger(__name__)

AWAY: tuple[type[Exception], ...] = (SQLAlchemyError, sqlite3.Error, OSError, *list_errors())
"""What a database or a queue raises that is away for a while."""

TICK_S = 0.5
SHOW_EVERY_S, LONGEST_PAUSE_S = 5.0, 10.0
CHECK_EVERY = 20
"""Ticks between two checks of the consumer's threads."""
LOST_AFTER_S = 60.0
"""A job that nobody began this long after it was sent was lost with its worker, or waits behind others."""

SLICE_S = 20.0
"""After this long, builds and pushes let other projects have their turn; what is left is due again."""

LEADING: tuple[JobKind, ...] = ("draft", "round", "consolidate")
"""Jobs that take the project's lease, of which there is one."""


def run_worker(settings: Settings, stop: threading.Event) -> None:
    """Work until `stop` is set; a running round is then left to the next worker."""
    calm_idle_threads()
    loop = build_loop(settings)
    end_orphans()
    mark_children(loop.parts.owner)
    worker = Worker(loop, stop)
    worker.start()
    warm_up(loop.parts.trainer)
    log.info("start_worker owner=%s", loop.parts.owner)
    ticks = 0
    while not stop.wait(TICK_S):
        ticks += 1
        worker.tick()
        if ticks % CHECK_EVERY == 0:
            worker.queue.check()
    worker.queue.stop()
    log.info("stop_worker owner=%s", loop.parts.owner)


class Worker:
    """Scheduler and consumer of one process."""

    def __init__(self, loop: LearningLoop, stop: threading.Event) -> None:
        self._loop, self._stop = loop, stop
        self._trouble: str | None = None
        self._failing = FailingJobs(loop.parts, LOST_AFTER_S)
        self._has_begun = False
        self._unclear: deque[tuple[int, JobKind]] = deque()  # jobs that the database kept from ending
        self._turn, self._turns = count(1), {}  # type: count[int], dict[int, int]
        self._pause_s, self._next_tick, self._shown_at = TICK_S, 0.0, -SHOW_EVERY_S
        jobs: dict[JobKind, Callable[[int], None]] = {
            "reconcile": self._job("reconcile", lambda project_id: loop.reconcile(project_id)),
            "build": self._job("build", lambda project_id: loop.build_truth(project_id, _slice(stop))),
            "draft": self._job("draft", lambda project_id: loop.run_draft(project_id, stop.is_set)),
            "round": self._job("round", lambda project_id: loop.run_round(project_id, stop.is_set)),
            "consolidate": self._job(
                "consolidate", lambda project_id: loop.consolidate(project_id, stop.is_set)
            ),
            "push": self._job("push", lambda project_id: loop.push(project_id, _slice(stop))),
            "score": self._job("score", lambda project_id: _score(loop, project_id, stop)),
            "rank": self._job("rank", lambda project_id: loop.rank(project_id)),
            "sync": self._job("sync", loop.sync_project_order),
        }
        self.queue = Queue(loop.parts.settings, jobs)

    def start(self) -> None:
        """Begin, also while nobody can write to the database: the first tick that can does the rest."""
        try:
            self._begin()
        except AWAY as error:
            self._miss(describe(error))
        self.queue.start()

    def _begin(self) -> None:
        """Forget what a killed predecessor had sent, and ask Label Studio what was missed."""
        with self._loop.parts.database.write() as connection:
            # What a predecessor took and never did would wait until it counts as lost.
            wakeups.clear(connection)
            health.drop_troubles(connection, PREFIX)
            for project in list_projects(connection):
                update_project(connection, project.project_id, reconciled_at=None)
        self._has_begun = True

    def tick(self) -> None:
        """Send every job that is due and not on its way."""
        if time.monotonic() < self._next_tick:
            return
        try:
            # Nothing is to be built or trained into a folder that another disk will hide.
            refuse_lost_folder(self._loop.parts.settings.data_dir)
            if not self._has_begun:
                self._begin()
            self._show()
            while self._unclear:
                self._clear(*self._unclear[0])
                self._unclear.popleft()
            due = self._list_due()
            self._failing.end_others(set(due))
            for project_id, kind in self._take_turns(due):
                if self.queue.places(kind).has_place(project_id) and self._take(project_id, kind):
                    self._send(project_id, kind)
                    self._turns[project_id] = next(self._turn)
        except AWAY as error:
            # The database or the queue may be away for a while: say so once, and look again ever more slowly.
            self._miss(describe(error))
        except Exception:
            log.exception("miss_tick")
            self._miss("an unexpected failure")
        else:
            self._recover()

    def _take_turns(self, due: list[tuple[int, JobKind]]) -> list[tuple[int, JobKind]]:
        """First the projects that had nothing sent for the longest: the others may take every free place."""
        return sorted(due, key=lambda job: self._turns.get(job[0], 0))

    def _show(self) -> None:
        """Let people see that there is a worker."""
        parts = self._loop.parts
        if time.monotonic() - self._shown_at >= SHOW_EVERY_S:
            with parts.database.write() as connection:
                health.note_worker(connection, parts.owner, parts.clock())
            self._shown_at = time.monotonic()

    def _miss(self, cause: str) -> None:
        if cause != self._trouble:
            log.warning("miss_ticks cause=%s", cause)
        self._trouble = cause
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        self._next_tick = time.monotonic() + self._pause_s

    def _recover(self) -> None:
        if self._trouble is not None:
            log.info("resume_ticks")
        self._trouble, self._pause_s = None, TICK_S

    def _list_due(self) -> list[tuple[int, JobKind]]:
        parts = self._loop.parts
        due: list[tuple[int, JobKind]] = []
        broken: list[tuple[int, Exception]] = []
        with parts.database.read() as connection:
            for project in list_projects(connection):
                if self._failing.rests(project.project_id, LOOK):
                    continue
                try:
                    kinds = find_due(connection, project, parts.settings, parts.clock())
                except AWAY:
                    raise
                except Exception as error:
                    # A row that nobody can read, say: it is no reason to leave the other projects alone.
                    broken.append((project.project_id, error))
                    continue
                # While a round runs, the next one would only fill the lane.
                due += [
                    (project.project_id, kind)
                    for kind in kinds
                    if kind not in LEADING or self._is_free(project)
                ]
        for project_id, cause in broken:
            self._failing.note(project_id, LOOK, cause)
        return due

    def _is_free(self, project: Project) -> bool:
        parts = self._loop.parts
        with parts.database.read() as connection:
            running = rounds.find_running(connection, project.project_id)
        return running is None or is_lost(running, parts.clock())

    def _take(self, project_id: int, kind: JobKind) -> bool:
        parts = self._loop.parts
        with parts.database.write() as connection:
            return wakeups.take(connection, project_id, kind, parts.clock(), LOST_AFTER_S)

    def _send(self, project_id: int, kind: JobKind) -> None:
        try:
            self.queue.send(kind, project_id)
        except AWAY:
            # It is not on its way: as soon as the queue takes jobs again, it is due.
            self._unclear.append((project_id, kind))
            raise

    def _job(self, kind: JobKind, work: Callable[[int], object]) -> Callable[[int], None]:
        def run(project_id: int) -> None:
            with (
                self.queue.places(kind).enter(project_id) as entered,
                patience(should_stop=self._stop.is_set),
            ):
                if entered:
                    do(project_id)
                else:  # another worker sent it to this one, where the project has its share: it is due again
                    self._clear(project_id, kind)

        def do(project_id: int) -> None:
            try:
                if kind in (*LEADING, "score"):
                    # From here on leases of its own say that it is under way, and are found lost should we
                    # be killed. Other workers may take their share of what is to be scored.
                    self._clear(project_id, kind)
                if kind in self._find_due(project_id):  # another worker may have been faster
                    work(project_id)
            except RoundCancelledError:
                log.info("leave_job kind=%s project=%d", kind, project_id)  # to the next worker
            except (OperationalError, InterfaceError) as error:
                # As soon as the database answers again, the job is due: nothing was wrong with it.
                log.warning("postpone_job kind=%s project=%d cause=%s", kind, project_id, describe(error))
                if self._failing.is_cut_off_once(project_id, kind, error):
                    self._end(project_id, kind, is_well=False)
                return
            except Exception as error:
                # Whatever it is, the other projects go on; the job is due again, and its wake-up delays it.
                self._failing.note(project_id, kind, error)
                return
            self._end(project_id, kind)

        return run

    def _end(self, project_id: int, kind: JobKind, *, is_well: bool = True) -> None:
        try:
            self._clear(project_id, kind)
            if is_well:
                self._failing.end(project_id, kind)
        except SQLAlchemyError:
            self._unclear.append((project_id, kind))  # for the first tick that finds the database

    def _find_due(self, project_id: int) -> list[JobKind]:
        parts = self._loop.parts
        with parts.database.read() as connection:
            project = find_project(connection, project_id)
            return find_due(connection, project, parts.settings, parts.clock()) if project else []

    def _clear(self, project_id: int, kind: JobKind) -> None:
        with self._loop.parts.database.write() as connection:
            wakeups.clear(connection, project_id, kind)


def _slice(stop: threading.Event) -> Callable[[], bool]:
    until = time.monotonic() + SLICE_S
    return lambda: stop.is_set() or time.monotonic() >= until


def _score(loop: LearningLoop, project_id: int, stop: threading.Event) -> None:
    step_back_thread()
    loop.score(project_id, stop.is_set)


def main() -> None:
    """`python -m ml_backend.worker`: a worker until SIGTERM or SIGINT."""
    settings = Settings()
    set_up_logging(settings)
    stop = threading.Event()

    def ask_to_stop(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, ask_to_stop)
    run_worker(settings, stop)


if __name__ == "__main__":
    main()
