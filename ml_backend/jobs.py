"""The queue: Huey carries wake-ups, the database is the truth of what needs doing.

A job names a project and nothing else. Whoever gets it looks in the database what is to be done, so a job
that arrives twice does no harm, and one that is lost with a killed worker is sent again.
"""

from __future__ import annotations

import json
import logging
import math
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from huey import Huey, RedisHuey, SqliteHuey
from huey.consumer import Consumer
from huey.registry import Message
from huey.serializer import Serializer

from ml_backend.config import Settings
from ml_backend.due import JobKind
from ml_backend.processes.fair_places import FairPlaces, SlowProjects
from ml_backend.processes.scratch import remove

log = logging.getLogger(__name__)

QUEUE_FILE = "queue.sqlite3"
POLL_S, LONGEST_POLL_S = 0.1, 0.25
"""How often an idle consumer looks into the SQLite queue; Redis tells by itself."""
REDIS_PATIENCE_S, PROBE_LIFE_MS = 1.0, 1_000
LANE_NAME = "brushloop_{}"
KNOWN_S = 3.0
"""So long what was found about the queue is told again without asking Redis."""
STOP_S = 22.0
"""Jobs that run have this long to end; docker compose waits 30 s for the process."""

THREADS: Mapping[str, int] = {"rounds": 3, "consolidations": 1, "builds": 4, "calls": 6, "scores": 3}
"""Most of the time jobs wait for Label Studio or for images, so there are more threads than places to
compute. Those are `TRAINING_SLOTS`, `Parts.computing` and the suggester's slots. Rounds get so many more as
`TRAINING_SLOTS` says."""
THREADS_PER_PROJECT: Mapping[str, int] = {"calls": 2}
"""Elsewhere one. A project whose Label Studio or images are slow delays itself, and others like it."""

WATCHED = ("calls", "builds")
"""Lanes whose jobs wait for Label Studio and images alone: who takes long there is slow, not busy."""

Job = Callable[[int], None]


class JsonSerializer(Serializer):  # type: ignore[misc]
    """Messages as JSON: who can write to the queue cannot have code run here, as pickle would allow."""

    def _serialize(self, data: Any) -> bytes:
        return json.dumps(list(data)).encode()

    def _deserialize(self, data: bytes) -> Any:
        return Message(*json.loads(data))


class QuietConsumer(Consumer):  # type: ignore[misc]
    """Huey's consumer, which leaves the signals of the process to the worker that owns it."""

    def _set_signal_handlers(self) -> None:
        pass


class Queue:
    """Lanes, so that a round that trains for long, or scoring, never keeps a label map or a push waiting."""

    LANES: Mapping[JobKind, str] = {
        "draft": "rounds",
        "round": "rounds",
        "consolidate": "consolidations",
        "build": "builds",
        "reconcile": "calls",
        "push": "calls",
        "rank": "calls",
        "sync": "calls",
        "score": "scores",
    }

    def __init__(self, settings: Settings, jobs: Mapping[JobKind, Job]) -> None:
        if not settings.redis_url:
            _replace_damaged(settings.data_dir / QUEUE_FILE)
        self._hueys = {lane: _open(settings, lane) for lane in sorted(set(self.LANES.values()))}
        # Huey knows a job by the module of its function too, which is another one in a worker that was
        # started as a script: so every job gets a function of this module.
        self._send = {
            kind: self._hueys[self.LANES[kind]].task(name=f"brushloop_{kind}")(_of_this_module(job))
            for kind, job in jobs.items()
        }
        self._threads = {**THREADS, "rounds": THREADS["rounds"] + settings.training_slots}
        slow = SlowProjects()
        self._places = {
            lane: FairPlaces(n_threads, THREADS_PER_PROJECT.get(lane, 1), slow, watches=lane in WATCHED)
            for lane, n_threads in self._threads.items()
        }
        self._consumers: list[QuietConsumer] = []

    def send(self, kind: JobKind, project_id: int) -> None:
        """Put a job into its lane."""
        try:
            self._send[kind](project_id)
        except sqlite3.OperationalError as error:
            if "no such table" not in str(error):
                raise
            # Somebody emptied the file, or put a new one into its place: what was in it is sent again.
            self._hueys[self.LANES[kind]].storage.initialize_schema()
            self._send[kind](project_id)

    def places(self, kind: JobKind) -> FairPlaces:
        """The threads of a job's lane in this process, as projects share them."""
        return self._places[self.LANES[kind]]

    def start(self) -> None:
        """Work off all lanes in threads of this process."""
        for lane, huey in self._hueys.items():
            consumer = QuietConsumer(
                huey,
                workers=self._threads[lane],
                periodic=False,
                initial_delay=POLL_S,
                max_delay=LONGEST_POLL_S,
            )
            consumer.start()
            self._consumers.append(consumer)

    def check(self) -> None:
        """Replace threads that died."""
        for consumer in self._consumers:
            consumer.check_worker_health()

    def stop(self) -> None:
        """Take no more jobs, and wait for those that run; what takes too long ends with the process."""
        for consumer in self._consumers:
            consumer.stop_flag.set()
        deadline = time.monotonic() + STOP_S
        for consumer in self._consumers:
            consumer.shutdown_timeout = max(deadline - time.monotonic(), 0.1)
            consumer.stop(graceful=True)
        for huey in self._hueys.values():
            _disconnect(huey)


def _disconnect(huey: Huey) -> None:
    """Give Redis its connections back; a file is closed by the thread that opened it."""
    pool = getattr(huey.storage, "pool", None)
    if pool is not None:
        pool.disconnect()


def _of_this_module(job: Job) -> Job:
    def run(project_id: int) -> None:
        job(project_id)

    return run


def _open(settings: Settings, lane: str) -> Huey:
    name = LANE_NAME.format(lane)
    # Nobody reads results, and kept ones would fill the queue's store.
    options: dict[str, Any] = {"results": False, "serializer": JsonSerializer()}
    if settings.redis_url:
        return RedisHuey(name, url=settings.redis_url.get_secret_value(), **options)
    path = settings.data_dir / QUEUE_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    return SqliteHuey(name, filename=str(path), timeout=15, **options)


def _replace_damaged(path: Path) -> None:
    """Remove a file that is no queue any more: whatever was in it is sent again."""
    cause = _find_damage(path)
    if cause is None:
        return
    log.warning("replace_queue path=%s cause=%s", path, cause)
    for name in (path, *(path.with_name(path.name + suffix) for suffix in ("-wal", "-shm"))):
        remove(name)


def _find_damage(path: Path) -> str | None:
    """Why a file cannot be a queue, or None; one that is locked or not there yet is well."""
    if path.is_dir():
        return "it is a folder"
    if not path.exists():
        return None
    try:
        with closing(sqlite3.connect(path, timeout=1)) as connection:
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError:
        return None
    except sqlite3.DatabaseError as error:
        return str(error)
    return None if verdict == "ok" else str(verdict).splitlines()[-1]


def list_errors() -> tuple[type[Exception], ...]:
    """What the queue raises while its server is away; nothing where Redis's package, an extra, is missing."""
    if find_spec("redis") is None:
        return ()
    from redis.exceptions import RedisError

    return (RedisError,)


def watch_queue(
    find: Callable[[], str | None], known_s: float = KNOWN_S, now: Callable[[], float] = time.monotonic
) -> Callable[[], str | None]:
    """Ask `find_problem`, or the like, now and then alone: probes and scrapes come from several sides."""
    lock = threading.Lock()
    known: list[tuple[float, str | None]] = [(-math.inf, None)]

    def ask() -> str | None:
        with lock:
            asked_at, problem = known[0]
            if now() - asked_at >= known_s:
                problem = find()
                known[0] = (now(), problem)
            return problem

    return ask


def find_problem(settings: Settings) -> str | None:
    """What keeps the queue from carrying jobs, with the remedy, or None."""
    if not settings.redis_url:
        return _find_problem_of_file(settings.data_dir / QUEUE_FILE)
    from redis import Redis

    url = settings.redis_url.get_secret_value()
    try:
        with Redis.from_url(
            url, socket_timeout=REDIS_PATIENCE_S, socket_connect_timeout=REDIS_PATIENCE_S
        ) as server:
            # A server may answer, and take nothing: it is full, a replica, or its disk is.
            server.set(LANE_NAME.format("probe"), 1, px=PROBE_LIFE_MS)
            return _find_foreign_key(server)
    except list_errors() as error:
        return _describe_refusal(error)


def _find_problem_of_file(path: Path) -> str | None:
    cause = _find_damage(path)
    if cause:
        return f"the queue {path} is damaged ({cause}): start the worker again, which makes it anew"
    if not path.exists():
        return None
    try:
        with closing(sqlite3.connect(path, timeout=REDIS_PATIENCE_S, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("UPDATE task SET id = id WHERE id < 0")
            connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        return f"the queue {path} takes no jobs ({error}): see that it may be written, and its disk"
    return None


def _find_foreign_key(server: Any) -> str | None:
    """That something else than our lists lies where jobs are put, or None."""
    for lane in sorted(set(Queue.LANES.values())):
        key = f"huey.redis.{LANE_NAME.format(lane)}"
        if server.type(key) not in (b"list", b"none"):
            return f"the key {key} in Redis is of another program: name another database in REDIS_URL"
    return None


def _describe_refusal(error: Exception) -> str:
    """Why Redis took no job, with the remedy."""
    from redis.exceptions import AuthenticationError, OutOfMemoryError, ReadOnlyError, ResponseError

    if isinstance(error, ResponseError) and not isinstance(error, AuthenticationError):
        remedy = "see Redis's log, and its disk"
        if isinstance(error, OutOfMemoryError):
            remedy = "give Redis more memory (`maxmemory`)"
        elif isinstance(error, ReadOnlyError):
            remedy = "it is a replica: name the primary in REDIS_URL"
        return f"the queue takes no jobs ({error}): {remedy}"
    return f"the queue cannot be reached ({type(error).__name__}): see that Redis runs, and REDIS_URL"
