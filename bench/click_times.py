"""How long a click takes over HTTP: first and later ones, without a model, with one, while a round trains.

A real service answers for images that somebody opens, with the calls that Label Studio makes. The first click
comes as soon as the opened image is answered, so it waits for whatever is still looked at ahead.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
import psutil

from bench import BenchmarkResult, Goal, Options
from bench.fake_label_studio import LABEL_CONFIG, FakeLabelStudio
from bench.fake_label_studio_app import run_fake
from bench.http_calls import Service, percentile
from bench.process_tree import roles_of
from bench.service import keep_training, running_service
from bench.service_loop import ROUND_TIMEOUT_S

TAKES_ARGUMENTS = True

SMART_CONFIG = LABEL_CONFIG.replace(
    "</View>",
    '<KeyPointLabels name="click" toName="image" smart="true"><Label value="Background"/>'
    '<Label value="Nucleus"/></KeyPointLabels></View>',
)
BARE, TAUGHT, TRAINING = 1, 2, 3
"""Projects: nobody has painted, a model answers, and one that only trains beside it."""

OBJECTS_PAINTED, SMALLEST_PX = 40, 60
WANTED_LATER_S, WANTED_FIRST_S, WANTED_RATIO = 0.150, 1.0, 2.0
COLUMNS = ("clicks", "n", "median ms", "p90 ms", "max ms", "CPU ms each")


@dataclass(frozen=True)
class TimesSettings:
    """`images` are opened in each part, with `clicks` in each; rounds of the model take `round_s`."""

    images: int = 5
    clicks: int = 8
    side_px: int = 1024
    round_s: float = 10.0


@dataclass
class Clicked:
    """Seconds of each click, and those of a processor that the web process spent on all of them."""

    wall_s: list[float] = field(default_factory=list)
    cpu_s: float = 0.0


def run(options: Options) -> BenchmarkResult:
    settings = TimesSettings(**_parse(options.arguments))
    fake = FakeLabelStudio(dict.fromkeys((BARE, TAUGHT, TRAINING), settings.side_px))
    fake.label_config = SMART_CONFIG
    rounds = {"ROUND_BUDGET_S": str(settings.round_s), "CONSOLIDATE_S": "0"}
    with (
        tempfile.TemporaryDirectory(prefix="brushloop-bench-", ignore_cleanup_errors=True) as name,
        run_fake(fake),
        running_service(fake, Path(name), rounds) as service,
    ):
        found = _measure(Clicks(service, fake, settings))
    return _to_result(found, settings)


@dataclass(frozen=True)
class Clicks:
    """Somebody who opens images of a project, and clicks in them."""

    service: Service
    fake: FakeLabelStudio
    settings: TimesSettings

    def connect(self, project_id: int) -> None:
        self.service.post("/setup", self.fake.setup_body(project_id))

    def teach(self, project_id: int) -> None:
        for task_id in self.fake.add_tasks(project_id, 2):
            self.service.post("/webhook", self.fake.paint(task_id, OBJECTS_PAINTED))

    def visit(self, project_id: int, n_images: int) -> tuple[Clicked, Clicked, list[float]]:
        """The first clicks in new images, the later ones, and how long it took to open each image."""
        first, later, opened = Clicked(), Clicked(), []
        for task_id in self.fake.add_tasks(project_id, n_images):
            self.fake.picture(task_id)
            began = time.perf_counter()
            self.service.post("/predict", self.fake.predict_body(project_id, [task_id]))
            opened.append(time.perf_counter() - began)
            contexts = self._contexts(task_id)
            self._click(project_id, task_id, contexts[:1], first)
            self._click(project_id, task_id, contexts[1:], later)
        return first, later, opened

    def _contexts(self, task_id: int) -> list[dict[str, Any]]:
        instances = self.fake.picture(task_id)[1]
        numbers, areas = np.unique(instances[instances > 0], return_counts=True)
        chosen = numbers[areas >= SMALLEST_PX][: 1 + self.settings.clicks]
        middles = (np.argwhere(instances == number).mean(axis=0) for number in chosen)
        return [_context(float(row), float(column), instances.shape) for row, column in middles]

    def _click(
        self, project_id: int, task_id: int, contexts: Sequence[dict[str, Any]], into: Clicked
    ) -> None:
        before = _cpu_s(self.service.pid)
        for context in contexts:
            body = self.fake.predict_body(project_id, [task_id])
            body["params"]["context"] = context
            began = time.perf_counter()
            self.service.post("/predict", body)
            into.wall_s.append(time.perf_counter() - began)
        into.cpu_s += _cpu_s(self.service.pid) - before


def _context(row: float, column: float, shape: tuple[int, ...]) -> dict[str, Any]:
    """What Label Studio 1.23.2 sends for a click of a smart key point."""
    value = {
        "x": 100 * column / shape[1],
        "y": 100 * row / shape[0],
        "width": 0.3,
        "keypointlabels": ["Nucleus"],
    }
    region = {
        "id": "p1", "type": "keypointlabels", "from_name": "click", "to_name": "image", "is_positive": True,
        "original_width": shape[1], "original_height": shape[0], "image_rotation": 0, "value": value,
    }  # fmt: skip
    return {"result": [region]}


def _cpu_s(pid: int) -> float:
    """Of the web process and what decodes images for it; workers and their rounds left out."""
    times = [
        psutil.Process(one).cpu_times() for one, role in roles_of(pid).items() if role in ("web", "decoder")
    ]
    return float(sum(time.user + time.system for time in times))


def _measure(hand: Clicks) -> dict[str, Any]:
    n_images = hand.settings.images
    found: dict[str, Any] = {}
    hand.connect(BARE)
    found["no model, the process's first image"] = hand.visit(BARE, 1)
    found["no model"] = hand.visit(BARE, n_images)
    hand.connect(TAUGHT)
    hand.teach(TAUGHT)
    hand.service.wait_until_learnt(TAUGHT, ROUND_TIMEOUT_S)
    found["model, nobody clicked lately"] = hand.visit(TAUGHT, 1)
    found["model"] = hand.visit(TAUGHT, n_images)
    hand.connect(TRAINING)
    hand.teach(TRAINING)
    with _training(hand.service) as seen:
        found["model, beside a round"] = hand.visit(TAUGHT, n_images)
    found["share of looks that saw training"] = sum(seen) / max(len(seen), 1)
    return found


@contextmanager
def _training(service: Service) -> Iterator[list[bool]]:
    """Begin when a round trains, and keep rounds training."""
    deadline = time.monotonic() + ROUND_TIMEOUT_S
    while service.status(TRAINING)["state"] != "training" and time.monotonic() < deadline:
        time.sleep(0.1)
    with keep_training(service, TRAINING) as seen:
        yield seen


def _to_result(found: dict[str, Any], settings: TimesSettings) -> BenchmarkResult:
    share = found.pop("share of looks that saw training")
    rows = []
    for what, (first, later, opened) in found.items():
        rows += [_row(f"{what}: first", first), _row(f"{what}: later", later)]
        rows.append((f"{what}: the image opened", len(opened), *_ms(opened), ""))
    alone, beside = found["model"], found["model, beside a round"]
    first_s, later_s = median(alone[0].wall_s), median(alone[1].wall_s)
    ratio = median(beside[1].wall_s) / later_s
    goals = (
        Goal(f"a later click, median under {1000 * WANTED_LATER_S:.0f} ms: {1000 * later_s:.0f} ms",
             later_s <= WANTED_LATER_S),
        Goal(f"a first click, median under {WANTED_FIRST_S} s: {first_s:.2f} s", first_s <= WANTED_FIRST_S),
        Goal(f"beside a round, at most {WANTED_RATIO} times as long: {ratio:.2f}", ratio <= WANTED_RATIO),
    )  # fmt: skip
    record = {"settings": asdict(settings), "training_share": share, "seconds": {
        what: {"first": asdict(first), "later": asdict(later), "opened": opened}
        for what, (first, later, opened) in found.items()
    }}  # fmt: skip
    note = f"images of {settings.side_px} px; a round trained in {100 * share:.0f} % of the looks"
    return BenchmarkResult("Milliseconds of a click", COLUMNS, tuple(rows), record, goals, (note,))


def _row(what: str, clicked: Clicked) -> tuple[Any, ...]:
    n = len(clicked.wall_s)
    return what, n, *_ms(clicked.wall_s), round(1000 * clicked.cpu_s / n)


def _ms(seconds: Sequence[float]) -> tuple[float, float, float]:
    return tuple(1000 * s for s in (median(seconds), percentile(seconds, 90), max(seconds)))  # type: ignore[return-value]


def _parse(arguments: tuple[str, ...]) -> dict[str, Any]:
    parsed = _options.main(arguments, "python -m bench click_times", standalone_mode=False)
    if not isinstance(parsed, dict):  # --options was answered
        raise SystemExit(0)
    return parsed


@click.command(context_settings={"help_option_names": ["--options"], "show_default": True})
@click.option("--images", default=TimesSettings.images, type=click.IntRange(1), help="Opened in each part.")
@click.option("--clicks", default=TimesSettings.clicks, type=click.IntRange(1), help="After the first.")
@click.option("--side", "side_px", default=TimesSettings.side_px, type=click.IntRange(64), help="Of images.")
@click.option("--round", "round_s", default=TimesSettings.round_s, help="Seconds of a round.")
def _options(**values: Any) -> dict[str, Any]:
    """Options of this benchmark, beside --json."""
    return values
