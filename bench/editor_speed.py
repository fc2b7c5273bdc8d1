"""How fast Label Studio's editor is with one region per object, beside the same masks as one region a class.

It works in a Label Studio that is running, with a Chromium of this machine, in projects that it makes for
this: `--url`, `--email` and `--password` are those of a person there, `--api-key` is theirs. Seconds are
those of the page and those of the processor in all of Chromium, as the machine may be busy.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
import psutil
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from bench import BenchmarkResult, Goal, Options
from core.asking.suggestion import SuggestedMask, Suggestion
from ml_backend.command.setup_project import read_default_config
from ml_backend.label_studio.admin import LabelStudioAdmin
from ml_backend.label_studio.client import LabelStudioClient
from ml_backend.label_studio.connection import Connection
from ml_backend.label_studio.label_config import parse_label_config
from ml_backend.label_studio.results import to_prediction

TAKES_ARGUMENTS = True

SIDE_PX, CELL_PX, RADIUS_PX = 512, 22, 6
CHROMIUM_FLAGS = ("--no-sandbox", "--disable-gpu")
USABLE_S, SLOWER = 1.0, 3.0
"""A region is selected and deleted in so many seconds, or in so many times those of one region a class."""

REGIONS_SHOWN = "n => Htx.annotationStore.selected.regions.length === n"
SELECTED = "() => Htx.annotationStore.selected.regions.some(region => region.inSelection)"
NEXT_FRAMES = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


@click.command()
@click.option("--url", required=True)
@click.option("--api-key", required=True, envvar="LABEL_STUDIO_API_KEY")
@click.option("--email", required=True)
@click.option("--password", required=True, envvar="LABEL_STUDIO_PASSWORD")
@click.option("--chromium", default="/usr/bin/chromium", show_default=True)
@click.option("--counts", default="50,200", show_default=True, help="500 want more than 24 GB of memory.")
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True)
def arguments(**given: Any) -> dict[str, Any]:
    """Read this benchmark's own options."""
    return given


@dataclass(frozen=True)
class Times:
    """Seconds of the page, and of the processor in Chromium, for each step."""

    opened: tuple[float, float]
    selected: tuple[float, float]
    deleted: tuple[float, float]


def run(options: Options) -> BenchmarkResult:
    given = arguments.main(list(options.arguments), prog_name="editor_speed", standalone_mode=False)
    if not isinstance(given, dict):
        raise SystemExit(0)
    connection = Connection(given["url"], given["api_key"])
    counts = [int(count) for count in given["counts"].split(",")]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=given["chromium"], args=list(CHROMIUM_FLAGS))
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.set_default_timeout(240_000)
        log_in(page, given["url"], given["email"], given["password"])
        rows = measure(page, connection, given["url"], counts, given["repeats"])
        browser.close()
    connection.close()
    return report(rows)


def log_in(page: Page, url: str, email: str, password: str) -> None:
    page.goto(f"{url}/user/login/")
    page.fill("input[name=email]", email)
    page.fill("input[name=password]", password)
    page.click("button[type=submit]")
    page.wait_for_url(lambda address: "/user/login" not in address)


def measure(
    page: Page, connection: Connection, url: str, counts: Sequence[int], repeats: int
) -> list[tuple[int, str, Times]]:
    """Open a task with predictions of each kind, in turns; select one region there and delete it."""
    tasks = {(n, kind): add_task(connection, n, kind) for n in counts for kind in ("objects", "class")}
    found: list[tuple[int, str, Times]] = []
    for _ in range(repeats):
        for (n, kind), (project_id, task_id) in tasks.items():
            shown = n if kind == "objects" else 1
            found.append((n, kind, visit(page, f"{url}/projects/{project_id}/data?task={task_id}", shown)))
    return found


def visit(page: Page, address: str, n_regions: int) -> Times:
    clock = _clock(page)
    next(clock)
    page.goto(address)
    page.wait_for_function("() => window.Htx && Htx.annotationStore && Htx.annotationStore.selected")
    page.wait_for_function(REGIONS_SHOWN, arg=n_regions)
    page.evaluate(NEXT_FRAMES)
    opened = next(clock)
    page.locator(".lsf-outliner-item").first.click()
    page.wait_for_function(SELECTED)
    page.evaluate(NEXT_FRAMES)
    selected = next(clock)
    page.keyboard.press("Backspace")
    page.wait_for_function(REGIONS_SHOWN, arg=n_regions - 1)
    page.evaluate(NEXT_FRAMES)
    return Times(opened, selected, next(clock))


def _clock(page: Page) -> Iterator[tuple[float, float]]:
    """Seconds since the last look, of the wall and of the processor in all processes of Chromium."""
    wall, used = time.monotonic(), _chromium_seconds()
    yield 0.0, 0.0
    while True:
        now, now_used = time.monotonic(), _chromium_seconds()
        yield now - wall, now_used - used
        wall, used = now, now_used


def _chromium_seconds() -> float:
    return sum(_seconds(process) for process in psutil.Process().children(recursive=True))


def _seconds(process: psutil.Process) -> float:
    try:
        return sum(process.cpu_times()[:2]) if "chrom" in process.name() else 0.0
    except psutil.Error:  # ended meanwhile
        return 0.0


def add_task(connection: Connection, n_objects: int, kind: str) -> tuple[int, int]:
    """A project of one task, with a prediction of `n_objects` discs."""
    config = read_default_config()
    title = f"Speed of {n_objects} as {kind}, {time.time():.0f}"
    project_id = LabelStudioAdmin(connection).ensure_project(title, config).project_id
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "grey.png"
        Image.fromarray(np.full((SIDE_PX, SIDE_PX, 3), 200, np.uint8)).save(picture)
        LabelStudioAdmin(connection).upload_images(project_id, [picture])
    (task,) = LabelStudioClient(connection).iter_task_summaries(project_id)
    suggestion = Suggestion((SIDE_PX, SIDE_PX), draw(n_objects, kind), (), 0.5)
    prediction, _ = to_prediction(suggestion, parse_label_config(config), "speed", str(task.task_id))
    connection.request("POST", "/api/predictions/", json={"task": task.task_id, **prediction})
    connection.request("PATCH", f"/api/projects/{project_id}", json={"model_version": "speed"})
    return project_id, task.task_id


def draw(n_objects: int, kind: str) -> tuple[SuggestedMask, ...]:
    """Discs in rows: each a mask of its own, or all in one."""
    reach = np.arange(-RADIUS_PX, RADIUS_PX + 1)
    disc = np.hypot(reach[:, None], reach[None, :]) <= RADIUS_PX
    across = SIDE_PX // CELL_PX
    corners = [(CELL_PX * (i // across) + 4, CELL_PX * (i % across) + 4) for i in range(n_objects)]
    if kind == "objects":
        return tuple(SuggestedMask(1, disc, top, left, 0.9) for top, left in corners)
    whole = np.zeros((SIDE_PX, SIDE_PX), np.bool_)
    for top, left in corners:
        whole[top : top + len(disc), left : left + len(disc)] |= disc
    return (SuggestedMask(1, whole, 0, 0, 0.9),)


def report(found: list[tuple[int, str, Times]]) -> BenchmarkResult:
    """Medians of each step, seconds and processor seconds."""
    rows, medians = [], {}
    for n, kind in dict.fromkeys((n, kind) for n, kind, _ in found):
        times = [one for m, other, one in found if (m, other) == (n, kind)]
        steps = [
            [median(getattr(one, step)[i] for one in times) for i in (0, 1)]
            for step in ("opened", "selected", "deleted")
        ]
        medians[n, kind] = steps
        rows.append((n, kind, *(f"{wall:.2f} / {used:.2f}" for wall, used in steps)))
    goals = []
    for n in dict.fromkeys(n for n, _ in medians):
        one, other = (sum(step[1] for step in medians[n, kind][1:]) for kind in ("objects", "class"))
        is_met = one <= max(USABLE_S, SLOWER * other)
        goals.append(Goal(f"{n} objects: selected and deleted in {one:.2f} s of a processor", is_met))
    return BenchmarkResult(
        "Regions in Label Studio's editor, seconds / of a processor",
        ("objects", "regions", "opened", "one selected", "one deleted"),
        tuple(rows),
        {"times": [[n, kind, one.opened, one.selected, one.deleted] for n, kind, one in found]},
        tuple(goals),
    )
