"""Trouble of the machine, tried on real processes: said while it lasts, and afterwards all is as before.

Each fault begins at each moment of a project's life, over both backends. `make faults` runs all of it and
writes the table of `docs/reliability.md` to `test-artifacts/faults.md`.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from cut_wires import wire_to
from machine_faults import FAULTS, Fault, House
from stack import ROOT, Stack, children_of, is_alive, running_stack, wait_until
from stored_rows import list_trained

from ml_backend.outside import connect
from ml_backend.storage import tasks
from ml_backend.storage.projects import get_project

pytestmark = [pytest.mark.integration, pytest.mark.timeout(3000)]

UNSAID_S = 25.0
"""A fault that nobody names lasts so long after its moment: a worker counts as silent after 20 s."""
STARTED = "start_worker owner="
HEALED_S = 120.0
TABLE = ROOT / "test-artifacts" / "faults"
NOTHING = "nothing"
UNHURT = "nothing: all that was wanted was done meanwhile"
"""As where a training is killed and none is due."""


def submit(house: House, number: int) -> None:
    house.stack.server.submit_as(number, number)


def nothing_before(house: House, number: int) -> None:
    """The fault is there when the moment comes."""


def until_training(least_progress: float) -> Callable[[House, int], None]:
    def arrange(house: House, number: int) -> None:
        submit(house, number)

        def has_come() -> bool:
            status = house.stack.status()
            training = status["training"]
            is_over = status["annotations"]["trained"] >= number
            return is_over or (training is not None and training["progress"] >= least_progress)

        wait_until(has_come, 60, f"a round is {least_progress:.0%} done", house.stack.describe)

    return arrange


def until_pushing(house: House, number: int) -> None:
    submit(house, number)
    wait_until(
        lambda: house.stack.status()["annotations"]["trained"] >= number, 60, "a round ended",
        house.stack.describe,
    )  # fmt: skip


def stop_worker(house: House, number: int) -> None:
    submit(house, number)
    house.stack.kill_workers()


def predict(house: House, number: int) -> None:
    with suppress(httpx.HTTPError):
        house.stack.server.predict(900 + number, timeout_s=60)


def start_worker(house: House, number: int) -> None:
    """Until it runs, or refused to: before, nobody knows what it finds out, however slow its start."""
    before = house.stack.log("worker").count(STARTED)
    worker = house.stack.start_worker()
    wait_until(
        lambda: worker.poll() is not None or house.stack.log("worker").count(STARTED) > before, 60,
        "a worker starts", house.stack.describe,
    )  # fmt: skip


Step = Callable[[House, int], None]
MOMENTS: dict[str, tuple[Step, Step]] = {
    "webhook": (nothing_before, submit),
    "build": (submit, nothing_before),
    "round": (until_training(0.05), nothing_before),
    "publish": (until_training(0.9), nothing_before),
    "push": (until_pushing, nothing_before),
    "predict": (submit, predict),
    "start": (stop_worker, start_worker),
}
"""What comes right before the fault, and what happens under it."""

CHOSEN = [name for name in os.environ.get("FAULT_MOMENTS", "").split(",") if name] or list(MOMENTS)
"""`FAULT_MOMENTS=build,round` tries these alone, as to look into one that failed."""

IMPOSSIBLE = {("worker stopped", "start"), ("disk full", "start"), ("too many open files", "start")}
"""A worker that is not there cannot be stopped, and the limit is one of processes that run."""

SHORT = {("training killed", "sqlite"): ["round"]}
"""What `make test` runs too."""


def choose() -> Iterator[Any]:
    for name, fault in FAULTS.items():
        for backend in ("sqlite", "postgres+redis"):
            if fault.backend in (None, backend):
                moments = [moment for moment in CHOSEN if (name, moment) not in IMPOSSIBLE]
                marks = [pytest.mark.thorough, pytest.mark.slow(about_s=120)]
                yield pytest.param(name, moments, backend, marks=marks, id=f"{name}-{backend}")
    for (name, backend), moments in SHORT.items():
        yield pytest.param(
            name, moments, backend, marks=pytest.mark.slow(about_s=35), id=f"{name}-{backend}-short"
        )


@contextmanager
def house_for(service_backend: Any, folder: Path) -> Iterator[House]:
    with ExitStack() as exits:
        environment, wires, addresses = service_backend.environment(), {}, {}
        for name, variable in (("database", "DATABASE_URL"), ("queue", "REDIS_URL")):
            if variable in environment:
                addresses[name] = environment[variable]
                wires[name] = exits.enter_context(wire_to(environment[variable]))
                environment[variable] = wires[name].address
        stack = exits.enter_context(running_stack(folder, {**environment, "RECONCILE_EVERY_S": "3"}))
        stack.start_web()
        stack.start_worker()
        stack.server.connect_backend()
        yield House(stack, service_backend.data_dir, wires, addresses)


@pytest.mark.parametrize(("name", "moments", "service_backend"), list(choose()), indirect=["service_backend"])
def test_when_the_cause_is_gone_everything_is_as_if_it_had_never_been(
    name: str, moments: list[str], service_backend: Any, tmp_path: Path
) -> None:
    with house_for(service_backend, tmp_path / "logs") as house:
        for number in (1, 2, 3):
            submit(house, number)
        house.stack.wait_until_trained()
        for number, moment in enumerate(moments, 4):
            said, healed_s = try_fault(house, FAULTS[name], moment, number)
            note(name, service_backend.name, moment, said, healed_s)
            assert said != NOTHING or name in SILENT, f"{moment}: heard {house.heard}"
            (answer,) = house.stack.server.predict(900)
            assert answer["model_version"] == house.stack.status()["model_version"]
        below = children_of(house.worker.pid)
        house.stack.stop()
        wait_until(lambda: not any(map(is_alive, below)), 60, "no process is left")
        check_nothing_doubled_or_left(service_backend, 3 + len(moments))


SILENT = {"queue emptied"}
"""What nobody has to know: jobs are sent again."""


def try_fault(house: House, fault: Fault, moment: str, number: int) -> tuple[str, float]:
    """One fault at one moment: what was said of it, and the seconds until all was as before."""
    before, under = MOMENTS[moment]
    before(house, number)
    # Somebody looks from the first moment: what heals at once is over when a call under it is answered.
    with fault.make(house), ThreadPoolExecutor() as threads:
        acting = threads.submit(under, house, number)
        said = listen(house, fault, number, lambda: not acting.done())
        acting.result()
    began = time.monotonic()

    def is_as_before() -> bool:
        house.restart_ended()
        return is_trained(house.stack, number)

    wait_until(is_as_before, HEALED_S, f"all is trained on after {moment}", house.stack.describe)
    return said, time.monotonic() - began


def is_trained(stack: Stack, n_annotations: int) -> bool:
    status = stack.status()
    wanted = {"received": n_annotations, "trained": n_annotations, "pending": 0}
    return status["state"] == "idle" and status["annotations"] == wanted


def listen(house: House, fault: Fault, number: int, is_acting: Callable[[], bool]) -> str:
    """How `/ready` or the project's status name this fault; it lasts until they do, for a while."""
    said, began = NOTHING, time.monotonic()
    acted = began
    house.heard.clear()
    while True:
        time.sleep(0.5)
        if said == NOTHING:
            troubles = find_troubles(house.stack)
            house.heard += [text for text in troubles if text not in house.heard]
            said = next((text for text in troubles if re.search(fault.words, text)), said)
        now = time.monotonic()
        acted = now if is_acting() else acted
        if now - began >= fault.least_s and said != NOTHING:
            return said
        is_over = now - began >= fault.least_s and now - acted >= UNSAID_S
        if is_over and not works_on(house, fault, number, now - acted):
            return UNHURT if is_whole(house.stack, number) else said


def works_on(house: House, fault: Fault, number: int, lasted_s: float) -> bool:
    """Whether a round runs, or what was damaged is mended, whatever it is: a busy machine takes its time."""
    with suppress(httpx.HTTPError):
        is_training = house.stack.status()["training"] is not None
        return lasted_s < HEALED_S and (is_training or (fault.heals and not is_whole(house.stack, number)))
    return False


def is_whole(stack: Stack, n_annotations: int) -> bool:
    with suppress(httpx.HTTPError):
        return is_trained(stack, n_annotations) and not find_troubles(stack)
    return False


def find_troubles(stack: Stack) -> list[str]:
    problems: list[str | None] = []
    for path in ("/ready", "/api/projects/1/status"):
        try:
            answer = httpx.get(f"{stack.url}{path}", timeout=30).json()
        except (httpx.HTTPError, ValueError):
            continue
        problems += [*(answer.get("checks") or {}).values(), answer.get("last_error"), answer.get("error")]
    return [text for text in problems if text]


def check_nothing_doubled_or_left(service_backend: Any, n_annotations: int) -> None:
    database = connect(service_backend.settings())
    with database.read() as connection:
        project = get_project(connection, 1)
        listed = [task for task in tasks.list_truth(connection, 1) if task.truth and task.truth["maps"]]
        trained = list_trained(connection, 1)
    database.close()
    used = Counter(annotation_id for task in listed for annotation_id in task.truth["annotation_ids"])
    assert used == Counter(range(1, n_annotations + 1))
    assert sorted(trained) == sorted(used)
    assert project.current_version is not None
    scratch = [path for path in service_backend.data_dir.rglob("scratch/*") if path.is_file()]
    assert scratch == []


def note(fault: str, backend: str, moment: str, said: str, healed_s: float) -> None:
    """A file for each row, because several processes write; all of them make the table for people."""
    TABLE.mkdir(parents=True, exist_ok=True)
    row = [fault, backend, moment, said.splitlines()[0][:160], f"{healed_s:.0f}"]
    (TABLE / f"{fault}-{backend}-{moment}.json".replace(" ", "-")).write_text(json.dumps(row))
    rows = sorted(json.loads(path.read_text()) for path in TABLE.glob("*.json"))
    head = ["| fault | backend | moment | said | healed after s |", "|---|---|---|---|---|"]
    TABLE.with_suffix(".md").write_text("\n".join([*head, *(f"| {' | '.join(r)} |" for r in rows), ""]))
