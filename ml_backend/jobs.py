"""The queue: Huey carries wake-ups, the database is the truth of what needs doing.

A job names a project and nothing else. Whoever gets it looks in the database what is to be done, so a job
that arrives twice does no harm, and one that is lost with a killed worker is sent again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from huey import Huey, RedisHuey, SqliteHuey
from huey.consumer import Consumer
from huey.registry import Message
from huey.serializer import Serializer
from redis import Redis
from redis.exceptions import RedisError

from ml_backend.config import Settings
from ml_backend.due import JobKind

log = logging.getLogger(__name__)

QUEUE_FILE = "queue.sqlite3"
POLL_S, LONGEST_POLL_S = 0.1, 0.25
"""How often an idle consumer looks into the SQLite queue; Redis tells by itself."""
QUICK_THREADS = 2
REDIS_PATIENCE_S = 1.0

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
        "build": "quick",
        "reconcile": "quick",
        "push": "quick",
        "rank": "quick",
        "sync": "quick",
        "score": "scores",
    }

    def __init__(self, settings: Settings, jobs: Mapping[JobKind, Job]) -> None:
        self._hueys = {lane: _open(settings, lane) for lane in sorted(set(self.LANES.values()))}
        # Huey knows a job by the module of its function too, which is another one in a worker that was
        # started as a script: so every job gets a function of this module.
        self._send = {
            kind: self._hueys[self.LANES[kind]].task(name=f"brushloop_{kind}")(_of_this_module(job))
            for kind, job in jobs.items()
        }
        self._threads = {"rounds": settings.training_slots, "quick": QUICK_THREADS}  # elsewhere one
        self._consumers: list[QuietConsumer] = []

    def send(self, kind: JobKind, project_id: int) -> None:
        """Put a job into its lane."""
        self._send[kind](project_id)

    def start(self) -> None:
        """Work off all lanes in threads of this process."""
        for lane, huey in self._hueys.items():
            consumer = QuietConsumer(
                huey,
                workers=self._threads.get(lane, 1),
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
        """Take no more jobs, and wait for those that run."""
        for consumer in self._consumers:
            consumer.stop_flag.set()
        for consumer in self._consumers:
            consumer.stop(graceful=True)


def _of_this_module(job: Job) -> Job:
    def run(project_id: int) -> None:
        job(project_id)

    return run


def _open(settings: Settings, lane: str) -> Huey:
    name = f"brushloop_{lane}"
    # Nobody reads results, and kept ones would fill the queue's store.
    options: dict[str, Any] = {"results": False, "serializer": JsonSerializer()}
    if settings.redis_url:
        return RedisHuey(name, url=settings.redis_url.get_secret_value(), **options)
    path = Path(settings.data_dir) / QUEUE_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    return SqliteHuey(name, filename=str(path), timeout=15, **options)


def find_problem(settings: Settings) -> str | None:
    """What keeps the queue from carrying jobs, with the remedy, or None."""
    if not settings.redis_url:
        return None  # a file beside the database, which is looked at anyway
    url = settings.redis_url.get_secret_value()
    try:
        with Redis.from_url(
            url, socket_timeout=REDIS_PATIENCE_S, socket_connect_timeout=REDIS_PATIENCE_S
        ) as server:
            server.ping()
    except RedisError as error:
        return f"the queue cannot be reached ({type(error).__name__}): see that Redis runs, and REDIS_URL"
    return None
