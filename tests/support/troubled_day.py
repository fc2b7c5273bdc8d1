"""A project's life on a clock that runs fast: people paint, and every few minutes something goes wrong."""

from __future__ import annotations

import errno
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sa
from loop_fakes import Bench, Killed
from sqlalchemy.exc import SQLAlchemyError
from stored_rows import list_trained

from core.errors import BrushloopError, OutOfMemoryError
from ml_backend.due import JobKind, find_due
from ml_backend.learning_loop import LearningLoop
from ml_backend.storage import tasks
from ml_backend.storage.projects import get_project

N_TASKS = 24
TICK_S, TICKS = 6.0, 12
"""A worker's looks; so many at least while a fault lasts, and after it."""
HEALED_S = 3600.0
"""Label Studio is asked by itself every five minutes, and what it left out is believed after several."""


@dataclass
class Day:
    """What happened, and what is wanted at its end."""

    bench: Bench
    chance: random.Random
    faults: Counter[str] = field(default_factory=Counter)
    healed_s: list[float] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    disk: list[int] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    n_starts: int = 0
    lived_s: float = 0.0

    def live(self, hours: float, look: Callable[[], None] = lambda: None) -> None:
        """Let so much time pass, and `look` after each fault."""
        while self.lived_s < 3600 * hours:
            self.paint()
            name = self.chance.choice(sorted(FAULTS))
            self.faults[name] += 1
            with FAULTS[name](self):
                self.wait(TICKS)
            self.heal(name)
            self.pass_by(self.chance.uniform(30, 240))
            root = self.bench.parts.settings.data_dir
            self.disk.append(sum(path.stat().st_size for path in root.rglob("*") if path.is_file()))
            self.memory.append(psutil.Process().memory_info().rss)
            look()

    def paint(self) -> None:
        """A person submits, corrects or deletes; one event in five is lost."""
        task_id = self.chance.randint(1, N_TASKS)
        if self.chance.random() < 0.05 and 100 * task_id in self.bench.server.annotations:
            self.bench.server.drop(100 * task_id)
            return
        record = self.bench.painted(task_id)
        if self.chance.random() < 0.8:
            self.bench.tell(record)

    def heal(self, name: str) -> None:
        began = self.lived_s
        while not self.is_whole():
            if self.lived_s - began > HEALED_S:
                self.stuck.append(f"{name} at {began:.0f} s: {self.bench.status()['annotations']}")
                return
            self.wait(TICKS)
        self.healed_s.append(self.lived_s - began)

    def is_whole(self) -> bool:
        """Nothing is pending, nothing is troubled, and a task that is opened gets an answer."""
        status = self.bench.status()
        wanted = len(self.bench.server.annotations)
        counts = {"received": wanted, "trained": wanted, "pending": 0}
        if status["annotations"] != counts or status["state"] not in ("idle", "refining"):
            return False
        return self.bench.loop.suggest(1, [self.bench.task(900)], None, float("inf")) != [None]

    def wait(self, n_ticks: int) -> None:
        for _ in range(n_ticks):
            self.pass_by(TICK_S)

    def pass_by(self, seconds: float) -> None:
        self.bench.clock.now += seconds
        self.lived_s += seconds
        try:
            self.work()
        except Killed:
            self.restart()

    def work(self) -> None:
        """What a worker does with one look; a job that fails is due again."""
        loop = self.bench.loop
        jobs: dict[JobKind, Callable[[int], Any]] = {
            "reconcile": loop.reconcile, "build": loop.build_truth, "round": loop.run_round,
            "push": loop.push, "score": loop.score, "rank": loop.rank, "sync": loop.sync_project_order,
        }  # fmt: skip
        for kind in self.list_due():
            try:
                jobs[kind](1)
            except (BrushloopError, SQLAlchemyError, OSError):  # noqa: PERF203 - each job stands for itself
                continue
            except Exception as error:
                self.unexpected.append(f"{kind}: {type(error).__name__}: {error}")

    def list_due(self) -> list[JobKind]:
        parts = self.bench.parts
        with parts.database.read() as connection:
            return find_due(connection, get_project(connection, 1), parts.settings, parts.clock())

    def restart(self) -> None:
        """A new process takes over."""
        self.n_starts += 1
        self.bench.parts = replace(self.bench.parts, owner=f"elsewhere|{2 + self.n_starts}|1|bench")
        self.bench.loop = LearningLoop(self.bench.parts)

    @property
    def project(self) -> Path:
        (folder,) = (self.bench.parts.settings.data_dir / "projects").iterdir()
        return folder

    def count_lost_and_doubled(self) -> tuple[list[int], list[int], list[int]]:
        """Annotations that are not trained on, that are twice in the maps, tasks with two predictions."""
        with self.bench.parts.database.read() as connection:
            trained = list_trained(connection, 1)
            listed = [task for task in tasks.list_truth(connection, 1) if task.truth and task.truth["maps"]]
        used = Counter(number for task in listed for number in task.truth["annotation_ids"])
        held = Counter(task_id for task_id, _ in self.bench.server.predictions.values())
        return (
            sorted(set(self.bench.server.annotations) ^ set(trained)),
            [number for number, times in used.items() if times > 1],
            [task_id for task_id, times in held.items() if times > 1],
        )


@contextmanager
def label_studio_away(day: Day) -> Iterator[None]:
    day.bench.server.is_down = True
    yield
    day.bench.server.is_down = False


@contextmanager
def images_away(day: Day) -> Iterator[None]:
    day.bench.images.away = set(range(1000))
    yield
    day.bench.images.away = set()


@contextmanager
def listing_empty(day: Day) -> Iterator[None]:
    """Label Studio lists no tasks for a moment, and answers 200."""
    server, listed = day.bench.server, day.bench.server.tasks
    server.tasks = {}
    day.pass_by(400)
    server.tasks = listed
    yield


@contextmanager
def killed_in_a_call(day: Day) -> Iterator[None]:
    day.bench.server.kill_after = day.chance.randint(1, 8)
    yield
    day.bench.server.kill_after = 0


@contextmanager
def in_training(error: Callable[[], BaseException], day: Day) -> Iterator[None]:
    """What is trained meets this, once more after each repetition while it lasts."""

    def fail() -> None:
        raise error()

    day.bench.trainer.during = fail
    yield
    day.bench.trainer.during = lambda: None


@contextmanager
def damaged(pattern: str, day: Day) -> Iterator[None]:
    for path in sorted(day.project.glob(pattern)):
        path.write_bytes(day.chance.randbytes(day.chance.randint(0, 200)))
    yield


@contextmanager
def models_gone(day: Day) -> Iterator[None]:
    shutil.rmtree(day.project / "models", ignore_errors=True)
    yield


@contextmanager
def clock_off(seconds: float, day: Day) -> Iterator[None]:
    """The clock is wrong for a while, and right again."""
    day.bench.clock.now += seconds
    yield
    day.bench.clock.now -= seconds


@contextmanager
def database_cut(day: Day) -> Iterator[None]:
    """PostgreSQL ends all sessions; with SQLite every connection is opened anew."""
    database = day.bench.parts.database
    if database.is_postgres:
        others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        with database.engine.connect() as connection:
            connection.execute(sa.text(f"{others} AND datname = current_database()"))
    else:
        database.engine.dispose()
    yield


@contextmanager
def killed(day: Day) -> Iterator[None]:
    day.restart()
    yield


def full_disk() -> OSError:
    return OSError(errno.ENOSPC, "No space left on device")


FAULTS = {
    "Label Studio away": label_studio_away,
    "images away": images_away,
    "Label Studio lists nothing": listing_empty,
    "killed in a call": killed_in_a_call,
    "killed in a training": partial(in_training, Killed),
    "disk full in a training": partial(in_training, full_disk),
    "memory gone in a training": partial(in_training, lambda: OutOfMemoryError("memory ran out")),
    "label maps damaged": partial(damaged, "truth/*"),
    "model damaged": partial(damaged, "models/*/*.safetensors"),
    "records of models damaged": partial(damaged, "models/*/*.json"),
    "models gone": models_gone,
    "clock an hour back": partial(clock_off, -3600.0),
    "clock a day ahead": partial(clock_off, 86400.0),
    "database cut": database_cut,
    "killed": killed,
}
