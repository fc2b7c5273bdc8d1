"""Trouble of the machine, tried on real processes: said while it lasts, and afterwards all is as before.

`make faults` runs all of it and writes the table of `docs/reliability.md` to `test-artifacts/faults.md`.
"""

from __future__ import annotations

import json
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from cut_wires import Wire, wire_to
from stack import ROOT, Stack, children_of, is_alive, running_stack, wait_until
from stored_rows import list_trained

from ml_backend.bootstrap import connect
from ml_backend.storage import tasks
from ml_backend.storage.database import SQLITE_NAME
from ml_backend.storage.projects import get_project

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

FAULT_S = 6.0
"""Longer than a round takes here, so that whatever is due meets the fault."""
HEALED_S = 120.0
TABLE = ROOT / "test-artifacts" / "faults.md"
FILE_LIMIT = 20_000
"""Bytes that a file may have while the disk is full: less than any checkpoint has."""


class House:
    """A stack with all that can be taken away from it."""

    def __init__(self, stack: Stack, data_dir: Path, wires: dict[str, Wire]) -> None:
        self.stack, self.data_dir, self.wires = stack, data_dir, wires

    @property
    def worker(self) -> psutil.Process:
        return psutil.Process(self.stack.workers[-1].pid)


Fault = Callable[[House], Any]


@contextmanager
def wire_cut(house: House, name: str) -> Iterator[None]:
    house.wires[name].cut()
    yield
    house.wires[name].mend()


@contextmanager
def write_lock(house: House) -> Iterator[None]:
    """Somebody else writes, and goes on writing."""
    other = sqlite3.connect(house.data_dir / SQLITE_NAME, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    yield
    other.execute("ROLLBACK")
    other.close()


@contextmanager
def label_studio_away(house: House) -> Iterator[None]:
    house.stack.server.is_down = True
    yield
    house.stack.server.is_down = False


@contextmanager
def disk_full(house: House) -> Iterator[None]:
    """No file of the worker or of its trainings may grow, as by a quota."""
    set_file_limit(house, FILE_LIMIT)
    yield
    set_file_limit(house, -1)


def set_file_limit(house: House, limit: int) -> None:
    for pid in [house.worker.pid, *children_of(house.worker.pid)]:
        with suppress(psutil.NoSuchProcess):
            psutil.Process(pid).rlimit(psutil.RLIMIT_FSIZE, (limit, -1))


@contextmanager
def worker_stopped(house: House) -> Iterator[None]:
    house.worker.send_signal(signal.SIGSTOP)
    yield
    house.worker.send_signal(signal.SIGCONT)


@contextmanager
def training_killed(house: House) -> Iterator[None]:
    """As the kernel does where memory runs out: whatever trains is killed, again and again."""
    ended = threading.Event()

    def kill() -> None:
        while not ended.wait(0.05):
            for pid in children_of(house.worker.pid):
                with suppress(psutil.NoSuchProcess):
                    process = psutil.Process(pid)
                    if process.ppid() != house.worker.pid:  # the fork server stays
                        process.kill()

    thread = threading.Thread(target=kill)
    thread.start()
    yield
    ended.set()
    thread.join()


@contextmanager
def damaged(house: House, pattern: str) -> Iterator[None]:
    """Half of each such file is garbage, and it stays so."""
    found = [path for path in house.data_dir.rglob(pattern) if path.is_file()]
    assert found, sorted(str(path) for path in house.data_dir.rglob("*"))
    for path in found:
        path.write_bytes(b"garbage" * (path.stat().st_size // 14))
    yield


FAULTS: dict[str, tuple[Fault, str | None]] = {
    "database locked by another writer": (write_lock, "sqlite"),
    "connections to the database cut": (lambda house: wire_cut(house, "database"), "postgres+redis"),
    "queue away": (lambda house: wire_cut(house, "queue"), "postgres+redis"),
    "Label Studio answers 503": (label_studio_away, None),
    "disk full": (disk_full, None),
    "worker stopped and continued": (worker_stopped, None),
    "training killed": (training_killed, None),
    "label maps damaged": (lambda house: damaged(house, "truth/*"), None),
    "live version damaged": (lambda house: damaged(house, "models/*/*.safetensors"), None),
}
"""Each with the backend that it is about, or None for both."""

SHORT = {("training killed", "sqlite")}
"""What `make test` runs too."""


def choose() -> Iterator[Any]:
    for name, (_, only) in FAULTS.items():
        for backend in ("sqlite", "postgres+redis"):
            if only in (None, backend):
                marks = [] if (name, backend) in SHORT else [pytest.mark.thorough]
                yield pytest.param(name, backend, marks=[*marks, pytest.mark.slow(about_s=35)])


@contextmanager
def house_for(service_backend: Any, folder: Path) -> Iterator[House]:
    with ExitStack() as exits:
        environment, wires = service_backend.environment(), {}
        for name, variable in (("database", "DATABASE_URL"), ("queue", "REDIS_URL")):
            if variable in environment:
                wires[name] = exits.enter_context(wire_to(environment[variable]))
                environment[variable] = wires[name].address
        stack = exits.enter_context(running_stack(folder, {**environment, "RECONCILE_EVERY_S": "3"}))
        stack.start_web()
        stack.start_worker()
        stack.server.connect_backend()
        yield House(stack, service_backend.data_dir, wires)


@pytest.mark.parametrize(("fault", "service_backend"), list(choose()), indirect=["service_backend"])
def test_when_the_cause_is_gone_everything_is_as_if_it_had_never_been(
    fault: str, service_backend: Any, tmp_path: Path
) -> None:
    with house_for(service_backend, tmp_path / "logs") as house:
        stack = house.stack
        for number in (1, 2, 3):
            stack.server.submit_as(number, number)
        stack.wait_until_trained()
        for number in (4, 5):
            stack.server.submit_as(number, number)
        with FAULTS[fault][0](house):
            stack.server.submit_as(6, 6)
            said = listen(stack)
            with suppress(httpx.HTTPError):
                stack.server.predict(901, timeout_s=30)
        began = time.monotonic()
        wait_until(lambda: is_whole(stack, 6), HEALED_S, "everything is trained on", stack.describe)
        healed_s = time.monotonic() - began
        (answer,) = stack.server.predict(900)
        assert answer["model_version"] == stack.status()["model_version"]
        below = children_of(house.worker.pid)
        stack.stop()
        wait_until(lambda: not any(map(is_alive, below)), 60, "no process is left")
        check_nothing_doubled_or_left(service_backend)
    note(fault, service_backend.name, said, healed_s)


def is_whole(stack: Stack, n_annotations: int) -> bool:
    status = stack.status()
    wanted = {"received": n_annotations, "trained": n_annotations, "pending": 0}
    return status["state"] == "idle" and status["annotations"] == wanted


def listen(stack: Stack) -> str:
    """What `/ready` and the project's status say of trouble while the fault lasts; last words count."""
    said, until = "nothing", time.monotonic() + FAULT_S
    while time.monotonic() < until:
        time.sleep(0.5)
        with suppress(httpx.HTTPError):
            checks = httpx.get(f"{stack.url}/ready", timeout=30).json()["checks"]
            status = httpx.get(f"{stack.url}/api/projects/1/status", timeout=30).json()
            problems = [*checks.values(), status.get("last_error"), status.get("error")]
            said = next((text for text in problems if text), said)
    return said


def check_nothing_doubled_or_left(service_backend: Any) -> None:
    database = connect(service_backend.settings())
    with database.read() as connection:
        project = get_project(connection, 1)
        listed = [task for task in tasks.list_truth(connection, 1) if task.truth and task.truth["maps"]]
        trained = list_trained(connection, 1)
    database.close()
    used = Counter(annotation_id for task in listed for annotation_id in task.truth["annotation_ids"])
    assert used == Counter(dict.fromkeys(range(1, 7), 1))
    assert sorted(trained) == sorted(used)
    assert project.current_version is not None
    scratch = [path for path in service_backend.data_dir.rglob("scratch/*") if path.is_file()]
    assert scratch == []


def note(fault: str, backend: str, said: str, healed_s: float) -> None:
    """A line of the table, for people."""
    TABLE.parent.mkdir(exist_ok=True)
    rows = json.loads(TABLE.with_suffix(".json").read_text()) if TABLE.with_suffix(".json").exists() else {}
    rows[f"{fault}|{backend}"] = [said.splitlines()[0][:160], f"{healed_s:.0f}"]
    TABLE.with_suffix(".json").write_text(json.dumps(rows))
    lines = [f"| {key.replace('|', ' | ')} | {' | '.join(values)} |" for key, values in sorted(rows.items())]
    TABLE.write_text(
        "\n".join(["| fault | backend | said | healed after s |", "|---|---|---|---|", *lines, ""])
    )
