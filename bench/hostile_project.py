"""Eight projects, one or more of them hostile: how long the others wait for a fresh model; see its --options.

Real web process and worker; Label Studio is played by `fake_label_studio.py`. A hostile project has all of
this at once: images that send a byte a second, images of 64 Mpx and some beyond every limit, and an API that
takes seconds for each call. Its people submit and open tasks all the time. The other projects submit one
after the other; beside the hostile ones they are timed without them, and with ordinary projects as busy.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from http.client import HTTPException
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import click
import cv2
import numpy as np
from flask import Flask, Response, request

from bench import BenchmarkResult, Goal, Options
from bench.fake_label_studio import FakeLabelStudio, to_png
from bench.fake_label_studio_app import build_app, run_app
from bench.http_calls import Service
from bench.painted_results import to_region
from bench.service import repeat, running_service
from bench.service_loop import submit_and_wait

TAKES_ARGUMENTS = True

PROJECTS, SIDE_PX, SUBMITS, OBJECTS = 8, 256, 3, 6
BUSY_FROM = 101
"""Numbers of the projects that are there beside those that are timed."""
TASKS = 12
TRICKLE_S, SLOW_S = 1.0, 8.0
HUGE_PX, BEYOND_PX = 8_000, 20_000
"""Sides of images within the limit of pixels (120 Mpx), and beyond it."""
SUBMIT_EVERY_S, OPEN_EVERY_S = 3.0, 3.0
FAKE_THREADS = 64
"""So many calls of slow projects wait in the stand-in before one of another project would."""
SETTINGS = {
    "ROUND_BUDGET_S": "3",
    "ROUND_WARM_BUDGET_S": "2",
    "DRAFT_S": "0",
    "CONSOLIDATE_S": "0",
    "MIN_PIXELS_PER_CLASS": "500",
}
LEARN_TIMEOUT_S = 600.0
LARGEST_RATIO = 1.3
GONE = (OSError, HTTPException)
"""What a call meets at the end, when the service stops."""
LONGEST_CALL_S = 100.0
"""Label Studio gives `/predict` up after this."""


def run(options: Options) -> BenchmarkResult:
    """Time the ordinary projects in each surrounding."""
    chosen = _parse(options.arguments)
    n_rounds, n_hostile = int(chosen["rounds"]), int(chosen["hostile"])
    timed = range(1, PROJECTS - min(n_hostile, PROJECTS - 1) + 1)
    calls: list[float] = []
    said: list[str] = []
    times = {
        "without it": time_projects(timed, n_rounds, 0),
        "beside ordinary ones as busy": time_projects(timed, n_rounds, n_hostile),
        "beside hostile ones": time_projects(timed, n_rounds, n_hostile, calls, said),
    }
    return to_result(n_hostile, times, calls, said)


def time_projects(
    timed: Sequence[int],
    n_rounds: int,
    n_busy: int,
    hostile_calls: list[float] | None = None,
    said: list[str] | None = None,
) -> list[tuple[bool, float]]:
    """Whether it is a project's first model, and seconds from a submit to its answer by a fresh one.

    The busy projects are hostile where there is a list for the seconds of their own `/predict` calls;
    what became of the busy ones is told in `said`.
    """
    busy = range(BUSY_FROM, BUSY_FROM + n_busy)
    fake = FakeLabelStudio(dict.fromkeys([*timed, *busy], SIDE_PX))
    app = build_app(fake)
    if hostile_calls is not None:
        make_hostile(app, fake)
    found = []
    with (
        tempfile.TemporaryDirectory(prefix="brushloop-bench-", ignore_cleanup_errors=True) as name,
        run_app(fake, app, n_threads=FAKE_THREADS),
        ExitStack() as people,  # who end after the service does: their calls may take long
        running_service(fake, Path(name), SETTINGS) as service,
    ):
        for project_id in busy:
            service.post("/setup", fake.setup_body(project_id))
            for work, pause_s in _people(service, fake, project_id, hostile_calls):
                people.enter_context(repeat(work, pause_s))
        unseen = {}
        for project_id in timed:
            service.post("/setup", fake.setup_body(project_id))
            (unseen[project_id],) = fake.add_tasks(project_id, 1)
        if hostile_calls is not None:
            for side in (HUGE_PX, BEYOND_PX):
                huge_png(side)  # drawing it is no part of what is timed
        for n in range(n_rounds):
            for project_id in timed:
                tasks = fake.add_tasks(project_id, SUBMITS)
                took_s = submit_and_wait(
                    service, fake, project_id, tasks, unseen[project_id], OBJECTS, LEARN_TIMEOUT_S
                )
                found.append((n == 0, took_s))
        if said is not None:
            said += [describe(service.status(project_id)) for project_id in busy]
    return found


def describe(status: Mapping[str, Any]) -> str:
    """How far a project came."""
    counts, error = status["annotations"], status["last_error"]
    return (
        f"project {status['project']}: {status['state']}, {counts['received']} annotations,"
        f" {counts['trained']} trained, {counts['pending']} pending, round {status['round']}; {error}"
    )


def make_hostile(app: Flask, fake: FakeLabelStudio) -> None:
    """Have what the stand-in answers of the busy projects be slow, endless or huge."""

    @app.before_request
    def be_hostile() -> Response | None:
        project_id = find_project(fake, request.path, request.args, request.view_args or {})
        if project_id < BUSY_FROM:
            return None
        if not request.path.startswith("/data/"):
            time.sleep(SLOW_S)
            return None
        kind = kind_of((request.view_args or {})["task_id"])
        if kind == "trickling":
            return Response(trickle(), content_type="image/png")
        return Response(huge_png(HUGE_PX if kind == "huge" else BEYOND_PX), content_type="image/png")


def find_project(
    fake: FakeLabelStudio, path: str, arguments: Mapping[str, str], parts: Mapping[str, Any]
) -> int:
    """The project that a call is about, or 0."""
    if "project_id" in parts:
        return int(parts["project_id"])
    if "project" in arguments:
        return int(arguments["project"])
    if "task_id" in parts:
        return int(fake.tasks.get(parts["task_id"], {"project": 0})["project"])
    return 0


def kind_of(task_id: int) -> str:
    """What is wrong with a hostile task's image."""
    return ("trickling", "huge", "trickling", "beyond")[task_id % 4]


def trickle() -> Iterator[bytes]:
    """The first bytes of an image, one after the other, for an hour."""
    yield b"\x89PNG\r\n\x1a\n"
    for _ in range(3600):
        yield b"\0"
        time.sleep(TRICKLE_S)


_HUGE: dict[int, bytes] = {}


def huge_png(side: int) -> bytes:
    """A picture with one bright square; drawn once."""
    if side not in _HUGE:
        image = np.full((side, side), 40, np.uint8)
        image[100:300, 100:300] = 220
        _HUGE[side] = to_png(image)
    return _HUGE[side]


def paint_huge(side: int) -> list[dict[str, Any]]:
    """A square of each class in a picture of that size."""
    regions = []
    for label, left in (("Nucleus", 100), ("Background", 400)):
        mask = np.zeros((side, side), np.uint8)
        cv2.rectangle(mask, (left, 100), (left + 199, 299), 1, -1)
        regions.append(to_region(f"huge-{label}", mask > 0, label))
    return regions


def _people(
    service: Service, fake: FakeLabelStudio, project_id: int, hostile_calls: list[float] | None
) -> list[tuple[Any, float]]:
    """Who submits and who opens tasks of a project, without an end."""
    tasks, painted, opened = fake.add_tasks(project_id, TASKS), count(), count()
    huge = paint_huge(HUGE_PX) if hostile_calls is not None else None

    def submit() -> None:
        task_id = tasks[next(painted) % TASKS]
        result = huge if huge and kind_of(task_id) == "huge" else fake.make_result(task_id, OBJECTS)
        with suppress(*GONE):
            service.timed_post("/webhook", json.dumps(fake.submit(task_id, 1, result)).encode())

    def open_task() -> None:
        body = fake.predict_body(project_id, [tasks[next(opened) % TASKS]])
        began = time.monotonic()
        with suppress(*GONE):
            service.timed_post("/predict", json.dumps(body).encode())
        if hostile_calls is not None:
            hostile_calls.append(time.monotonic() - began)

    return [(submit, SUBMIT_EVERY_S), (open_task, OPEN_EVERY_S)]


def to_result(
    n_hostile: int,
    times: Mapping[str, Sequence[tuple[bool, float]]],
    calls: Sequence[float],
    said: Sequence[str],
) -> BenchmarkResult:
    """A row for each surrounding, and whether the hostile one costs the others little."""
    base = median(seconds for _, seconds in times["without it"])
    rows = []
    for name, found in times.items():
        first = [seconds for is_first, seconds in found if is_first]
        later = [seconds for is_first, seconds in found if not is_first] or first
        middle = median(seconds for _, seconds in found)
        rows.append((name, len(found), median(first), median(later), max(first + later), middle / base))
    ratio = rows[-1][-1]
    goals = (
        Goal(
            f"beside {n_hostile} hostile: within {LARGEST_RATIO} x of without: {ratio:.2f} x",
            ratio <= LARGEST_RATIO,
        ),
        Goal(
            f"a hostile project's own /predict answers within {LONGEST_CALL_S:g} s: {max(calls):.1f} s",
            max(calls) <= LONGEST_CALL_S,
        ),
    )
    columns = (
        "others",
        "rounds",
        "first model s (median)",
        "later s (median)",
        "longest s",
        "median to without",
    )
    record = {"hostile": n_hostile, "seconds": {name: [s for _, s in found] for name, found in times.items()}}
    title = f"Beside {n_hostile} hostile projects"
    return BenchmarkResult(title, columns, tuple(rows), record, goals, tuple(said))


def _parse(arguments: Sequence[str]) -> dict[str, Any]:
    """The options of this benchmark; raises click's own errors."""
    with _command.make_context("hostile_project", list(arguments)) as context:
        return dict(context.params)


@click.command(context_settings={"help_option_names": ["--options"]})
@click.option("--hostile", type=click.IntRange(1, 32), default=1, show_default=True, help="Hostile projects.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="Of each other project.")
def _command(**options: Any) -> None:
    """Only read for its options."""
