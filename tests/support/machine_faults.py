"""Trouble of the machine, made on real processes: each fault lasts while its context does."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
import pytest
import sqlalchemy as sa
from cut_wires import Wire
from stack import Stack, children_of

from ml_backend.storage.database import SQLITE_NAME

FILE_LIMIT = 20_000
"""Bytes that a file may have while the disk is full: less than any checkpoint has."""
DRIP_S = 150.0
"""Calls that drip are given up after two minutes (`label_studio.connection`), and only then it is said."""
HANDLES, ROOM_OF_HANDLES = 3, 1024
FROZEN = (".sqlite3", ".sqlite3-wal")
LOCK_S = 22.0
"""Longer than a writer waits for another one."""


class House:
    """A stack with all that can be taken away from it."""

    def __init__(
        self, stack: Stack, data_dir: Path, wires: dict[str, Wire], addresses: dict[str, str]
    ) -> None:
        self.stack, self.data_dir, self.wires, self.addresses = stack, data_dir, wires, addresses
        self.heard: list[str] = []  # what was said during the last fault

    @property
    def worker(self) -> psutil.Process:
        return psutil.Process(self.stack.workers[-1].pid)

    def restart_ended(self) -> None:
        """As a container's restart policy: with a worker that refused to start, or one that was killed."""
        if self.stack.workers and self.stack.workers[-1].poll() is not None:
            self.stack.workers.pop()
            self.stack.start_worker()
        if self.stack.web and self.stack.web.poll() is not None:
            self.stack.start_web()

    def list_processes(self) -> list[int]:
        """Web process and worker, and all below them."""
        started = [*([self.stack.web] if self.stack.web else []), *self.stack.workers]
        living = [process.pid for process in started if process.poll() is None]
        return [*living, *(child for pid in living for child in children_of(pid))]


@contextmanager
def wire_cut(name: str, house: House) -> Iterator[None]:
    house.wires[name].cut()
    yield
    house.wires[name].mend()


@contextmanager
def write_lock(house: House) -> Iterator[None]:
    """Somebody else writes, and goes on writing."""
    other = sqlite3.connect(house.data_dir / SQLITE_NAME, isolation_level=None, timeout=60)
    other.execute("BEGIN IMMEDIATE")
    yield
    other.execute("ROLLBACK")
    other.close()


@contextmanager
def sqlite_read_only(house: House) -> Iterator[None]:
    """Nobody may write to the database and its log, whoever has them open.

    The memory that processes share (`-shm`) stays: a page of it that became immutable ends whoever writes to
    it by SIGBUS, before it could say anything. Whoever starts them again, as a container does, heals that.
    """
    files = [str(path) for path in house.data_dir.glob(f"{SQLITE_NAME}*") if path.suffix in FROZEN]
    with _immutable(files):
        yield


@contextmanager
def postgres_read_only(house: House) -> Iterator[None]:
    """As a server that became a standby."""
    engine = sa.create_engine(house.addresses["database"].replace("postgresql:", "postgresql+psycopg:"))

    def set_all(value: str) -> None:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("SET default_transaction_read_only = off"))
            name = connection.execute(sa.text("SELECT current_database()")).scalar_one()
            connection.execute(sa.text(f"ALTER DATABASE {name} SET default_transaction_read_only = {value}"))
            # What is connected already has the old setting.
            others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            connection.execute(sa.text(f"{others} AND datname = current_database()"))

    set_all("on")
    try:
        yield
    finally:
        set_all("off")
        engine.dispose()


@contextmanager
def queue_emptied(house: House) -> Iterator[None]:
    """All jobs are lost, again and again."""
    import redis

    ended = threading.Event()

    def empty() -> None:
        with redis.Redis.from_url(house.addresses["queue"]) as client:
            while not ended.wait(0.2):
                client.flushdb()

    yield from _in_a_thread(empty, ended)


@contextmanager
def label_studio_away(how: int | str, house: House) -> Iterator[None]:
    house.stack.server.away_as = how
    house.stack.server.is_down = True
    yield
    house.stack.server.is_down = False


@contextmanager
def disk_full(house: House) -> Iterator[None]:
    """No file of web process, worker or training may grow, as by a quota."""
    _limit_files(house, FILE_LIMIT)
    yield
    _limit_files(house, -1)


def _limit_files(house: House, limit: int) -> None:
    _limit(house.list_processes, psutil.RLIMIT_FSIZE, limit)


def _limit(find: Callable[[], list[int]], resource: int, limit: int) -> None:
    """For all processes, also those that were started meanwhile by one that was not reached yet."""
    reached: set[int] = set()
    while missing := set(find()) - reached:
        for pid in missing:
            with suppress(psutil.NoSuchProcess):
                process = psutil.Process(pid)
                process.rlimit(resource, (limit, process.rlimit(resource)[1]))
        reached |= missing


@contextmanager
def no_handles(house: House) -> Iterator[None]:
    """The worker and what it started may open nothing more; what is open stays so."""

    def find() -> list[int]:
        worker = house.stack.workers[-1]
        return [worker.pid, *children_of(worker.pid)] if worker.poll() is None else []

    _limit(find, psutil.RLIMIT_NOFILE, HANDLES)
    yield
    _limit(find, psutil.RLIMIT_NOFILE, ROOM_OF_HANDLES)


@contextmanager
def folders_closed(house: House) -> Iterator[None]:
    """No file may be made, renamed or removed in any folder of the data."""
    folders = [str(path) for path in (house.data_dir, *house.data_dir.rglob("*")) if path.is_dir()]
    with _immutable(folders):
        yield


@contextmanager
def _immutable(paths: list[str]) -> Iterator[None]:
    """Files that nobody may write to, folders in which nobody may make or remove one; not even root."""
    try:
        if subprocess.run(["chattr", "+i", *paths], capture_output=True, check=False).returncode:
            pytest.skip("the file system of this machine has no immutable files (chattr +i)")
        yield
    finally:
        subprocess.run(["chattr", "-i", *paths], capture_output=True, check=False)


@contextmanager
def worker_stopped(house: House) -> Iterator[None]:
    worker = house.worker
    worker.send_signal(signal.SIGSTOP)
    yield
    with suppress(psutil.NoSuchProcess):
        worker.send_signal(signal.SIGCONT)


@contextmanager
def training_killed(house: House) -> Iterator[None]:
    """As the kernel does where memory runs out: whatever trains is killed, again and again."""
    ended = threading.Event()

    def kill() -> None:
        while not ended.wait(0.05):
            with suppress(psutil.NoSuchProcess, IndexError):
                worker = house.worker.pid
                for pid in children_of(worker):
                    with suppress(psutil.NoSuchProcess):
                        process = psutil.Process(pid)
                        if process.ppid() != worker:  # the fork server stays
                            process.kill()

    yield from _in_a_thread(kill, ended)


def _in_a_thread(work: Callable[[], None], ended: threading.Event) -> Iterator[None]:
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def damaged(pattern: str, house: House) -> Iterator[None]:
    """Each such file is garbage, and stays so."""
    found = [path for path in house.data_dir.rglob(pattern) if path.is_file()]
    assert found, sorted(str(path) for path in house.data_dir.rglob("*"))
    for path in found:
        path.write_bytes(b"garbage" * max(1, path.stat().st_size // 14))
    yield


@contextmanager
def cut_short(pattern: str, house: House) -> Iterator[None]:
    """Each such file loses its end under whoever has it mapped: reading on ends a process by SIGBUS."""
    found = [path for path in house.data_dir.rglob(pattern) if path.is_file()]
    assert found, sorted(str(path) for path in house.data_dir.rglob("*"))
    for path in found:
        os.truncate(path, path.stat().st_size // 8)
    yield


@dataclass(frozen=True)
class Fault:
    """How to make it, and what names it: a pattern that the words of another trouble do not fit."""

    make: Callable[[House], AbstractContextManager[None]]
    words: str
    backend: str | None = None
    """What it is about; None: both."""
    least_s: float = 3.0
    heals: bool = False
    """Whether the service mends it by itself meanwhile: then it may be over before anybody looked."""


def away(how: int | str, words: str, least_s: float = 3.0) -> Fault:
    return Fault(partial(label_studio_away, how), words, least_s=least_s)


DATABASE = "database did not answer as it should"

FAULTS: dict[str, Fault] = {
    "database locked for 22 s": Fault(write_lock, "database is locked", "sqlite", LOCK_S),
    "database files read-only": Fault(sqlite_read_only, DATABASE, "sqlite"),
    "database read-only": Fault(postgres_read_only, "read-only", "postgres+redis"),
    "database away": Fault(partial(wire_cut, "database"), DATABASE, "postgres+redis"),
    "queue away": Fault(partial(wire_cut, "queue"), "queue cannot be reached", "postgres+redis"),
    "queue emptied": Fault(queue_emptied, "queue", "postgres+redis"),
    "Label Studio answers 401": away(401, r"refuses the credential \(401\)"),
    "Label Studio answers 404": away(404, r"\(404|has no project"),
    "Label Studio answers 429": away("busy", "takes no calls until"),
    "Label Studio answers 500": away(500, "Label Studio"),
    "Label Studio answers HTML": away("html", "not JSON"),
    "Label Studio drips": away("drip", "Label Studio", DRIP_S),
    "disk full": Fault(disk_full, "DATA_DIR"),
    "folders closed to writing": Fault(folders_closed, "DATA_DIR"),
    "too many open files": Fault(no_handles, "open files"),
    "worker stopped": Fault(worker_stopped, "no worker has been seen"),
    "training killed": Fault(training_killed, "SIGKILL"),
    "label maps damaged": Fault(partial(damaged, "truth/*"), "label maps", heals=True),
    "cached images cut short": Fault(partial(cut_short, "*.npy"), "SIGBUS", heals=True),
    "live version damaged": Fault(partial(damaged, "models/*/*.safetensors"), "weights of r", heals=True),
}
