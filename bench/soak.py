"""A service that runs on and on: memory, threads, open files and disk of each process; see its --options.

People edit the same tasks again and again, open tasks, and pages poll, while rounds train. So nothing has to
grow but rows of rounds and of what was sent. The run is looked at in quarters: the first warms up.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from itertools import count, pairwise
from pathlib import Path
from statistics import median
from typing import Any

import click
import psutil

from bench import BenchmarkResult, Goal, Options
from bench.fake_label_studio import FakeLabelStudio
from bench.fake_label_studio_app import run_fake
from bench.http_calls import Service
from bench.process_tree import roles_of
from bench.service import repeat, running_service

TAKES_ARGUMENTS = True

PROJECTS, TASKS, OBJECTS = (1, 2), 12, 6
SIDE_PX = 256
SETTINGS = {
    "ROUND_BUDGET_S": "3",
    "ROUND_WARM_BUDGET_S": "2",
    "CONSOLIDATE_S": "0",
    "MIN_PIXELS_PER_CLASS": "500",
}
SUBMIT_EVERY_S, OPEN_EVERY_S, POLL_EVERY_S, LOOK_EVERY_S = 4.0, 2.0, 0.5, 5.0
POLLED = (
    "/health",
    "/ready",
    "/metrics",
    "/api/projects",
    "/",
    "/api/projects/1/status",
    "/api/projects/2/rounds",
)

MEASURES = {"memory": "MB", "threads": "", "files": ""}
LASTING = ("web", "worker")
"""Processes that stay; trainings and decoders come and go."""
ALLOWED_SHARE, ALLOWED = 1.1, {"memory": 30.0, "threads": 3.0, "files": 5.0}
"""What the last quarter may hold more than the one before: a tenth, or so much."""

Look = Mapping[str, float]


def run(options: Options) -> BenchmarkResult:
    """Let a service work for some minutes, and look at it every few seconds."""
    minutes = float(_parse(options.arguments)["minutes"])
    fake = FakeLabelStudio(dict.fromkeys(PROJECTS, SIDE_PX))
    calls: Counter[str] = Counter()
    with (
        tempfile.TemporaryDirectory(prefix="brushloop-bench-", ignore_cleanup_errors=True) as name,
        run_fake(fake),
        running_service(fake, Path(name), SETTINGS) as service,
        ExitStack() as people,
    ):
        for work, pause_s in _people(service, fake, calls):
            people.enter_context(repeat(work, pause_s))
        looks = watch(service, Path(name) / "data", 60 * minutes)
        rounds = sum(len(service.get(f"/api/projects/{project_id}/rounds")) for project_id in PROJECTS)
    return to_result(minutes, looks, {**calls, "rounds": rounds})


def watch(service: Service, data_dir: Path, seconds: float) -> list[Look]:
    """What every process holds, every few seconds."""
    until = time.monotonic() + seconds
    looks: list[Look] = []
    while time.monotonic() < until:
        looks.append({**look_at_processes(service.pid), **look_at_disk(data_dir)})
        time.sleep(LOOK_EVERY_S)
    return looks


def look_at_processes(root_pid: int) -> Look:
    """Sums over the processes of each role: memory in MB without what they share, threads, open files."""
    found: defaultdict[str, float] = defaultdict(float)
    for pid, role in roles_of(root_pid).items():
        with suppress(psutil.Error):  # it has ended meanwhile
            process = psutil.Process(pid)
            found[f"{role} memory"] += process.memory_full_info().uss / 1e6
            found[f"{role} threads"] += process.num_threads()
            found[f"{role} files"] += process.num_fds()
    return dict(found)


def look_at_disk(data_dir: Path) -> Look:
    """MB of the database, with its log, and of everything in the data folder."""
    sizes = {}
    for path in data_dir.rglob("*"):
        with suppress(OSError):
            sizes[path] = path.stat().st_size / 1e6 if path.is_file() else 0.0
    database = sum(size for path, size in sizes.items() if path.name.startswith("brushloop.sqlite3"))
    return {"database MB": database, "data folder MB": sum(sizes.values())}


def _people(service: Service, fake: FakeLabelStudio, calls: Counter[str]) -> list[tuple[Any, float]]:
    tasks = {project_id: fake.add_tasks(project_id, TASKS) for project_id in PROJECTS}
    for project_id in PROJECTS:
        service.post("/setup", fake.setup_body(project_id))
    turns = {name: count() for name in ("submit", "open", "poll")}

    def submit() -> None:
        turn = next(turns["submit"])
        task_id = tasks[PROJECTS[turn % 2]][turn // 2 % TASKS]
        body = fake.submit(task_id, 1, fake.make_result(task_id, OBJECTS - turn % 3))
        status, _ = service.timed_post("/webhook", json.dumps(body).encode())
        calls[f"webhooks {status}"] += 1

    def open_task() -> None:
        turn = next(turns["open"])
        project_id = PROJECTS[turn % 2]
        body = fake.predict_body(project_id, [tasks[project_id][turn // 2 % TASKS]])
        status, _ = service.timed_post("/predict", json.dumps(body).encode())
        calls[f"predictions {status}"] += 1

    def poll() -> None:
        status, _ = service.call("GET", POLLED[next(turns["poll"]) % len(POLLED)])
        calls[f"polls {status}"] += 1

    return [(submit, SUBMIT_EVERY_S), (open_task, OPEN_EVERY_S), (poll, POLL_EVERY_S)]


def to_result(minutes: float, looks: Sequence[Look], calls: Mapping[str, int]) -> BenchmarkResult:
    """A row for each measure, quarter by quarter, and whether the last is like the one before."""
    names = sorted({name for look in looks for name in look})
    quarters = {name: _quarters([look.get(name, 0.0) for look in looks]) for name in names}
    rows = tuple(
        (name, *values, max(look.get(name, 0.0) for look in looks)) for name, values in quarters.items()
    )
    goals = tuple(
        _to_goal(f"{role} {measure}", ALLOWED[measure], quarters[f"{role} {measure}"])
        for role in LASTING
        for measure in MEASURES
        if f"{role} {measure}" in quarters
    )
    # /ready answers 503 until the worker has shown itself.
    failed = sum(n for name, n in calls.items() if name.endswith(" 500"))
    goals += (Goal(f"no call answered 500: {failed}", failed == 0),)
    columns = ("what (medians)", "first quarter", "second", "third", "last", "most")
    notes = (", ".join(f"{n} {name}" for name, n in sorted(calls.items())),)
    record = {"minutes": minutes, "calls": dict(calls), "looks": [dict(look) for look in looks]}
    return BenchmarkResult(f"{minutes:g} minutes", columns, rows, record, goals, notes)


def _quarters(values: Sequence[float]) -> tuple[float, ...]:
    edges = [len(values) * n // 4 for n in range(5)]
    return tuple(median(values[start:end] or values) for start, end in pairwise(edges))


def _to_goal(name: str, allowed: float, quarters: Sequence[float]) -> Goal:
    third, last = quarters[2:]
    # What was not seen did not level off: the process died, or nobody looked at the right one.
    is_level = min(quarters) > 0 and last <= max(ALLOWED_SHARE * third, third + allowed)
    return Goal(f"{name} levels off: {third:.4g}, then {last:.4g}", is_level)


def _parse(arguments: Sequence[str]) -> dict[str, Any]:
    """The options of this benchmark; raises click's own errors."""
    with _command.make_context("soak", list(arguments)) as context:
        return dict(context.params)


@click.command(context_settings={"help_option_names": ["--options"]})
@click.option(
    "--minutes", type=click.FloatRange(0.1), default=20.0, show_default=True, help="How long it runs."
)
def _command(**options: Any) -> None:
    """Only read for its options."""
