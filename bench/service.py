"""A real service under load: webhooks, health, predictions, and from a submit to the fresh prediction.

`brushloop serve --with-worker` runs in processes of its own, with a fresh data folder and the settings that
people get by default. Label Studio is played by `fake_label_studio.py`. Every call opens a connection of its
own, as Label Studio does.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from bench import BenchmarkResult, Goal, Options
from bench.fake_label_studio import API_KEY, FakeLabelStudio
from bench.fake_label_studio_app import run_fake
from bench.free_ports import free_port
from bench.http_calls import Service, percentile
from bench.service_loop import LOOP_PROJECTS, ROUND_TIMEOUT_S, Loop, measure_loop
from ml_backend.command.child_process import ChildProcess
from ml_backend.config import child_environment

N_WEBHOOKS, N_AT_ONCE = 500, 50
WEBHOOK_SIDE_PX, WEBHOOK_OBJECTS = 1024, 24
"""Such a webhook has 25 regions and some 200 kB."""

LOOP_SIDE_PX = 256
TRAINING_PROJECT, WEBHOOK_PROJECT = 21, 31
PREDICT_PROJECTS = {41: 512, 42: 1024, 43: 2048}
PREDICT_REPEATS = 5

HEALTH_PAUSE_S = 0.02
START_TIMEOUT_S = 60.0

STOP_GRACE_S = 60.0
"""The web process waits for its worker, which has hundreds of label maps to build by then."""


@dataclass
class Load:
    """What happened while the webhooks were posted; seconds per call."""

    one_by_one: list[float] = field(default_factory=list)
    at_once: list[float] = field(default_factory=list)
    health: list[float] = field(default_factory=list)
    n_lost: int = 0
    body_bytes: int = 0
    training_share: float = 0.0


def run(options: Options) -> BenchmarkResult:
    """Measure everything against one running service."""
    sides = {
        **dict.fromkeys((*LOOP_PROJECTS, TRAINING_PROJECT), LOOP_SIDE_PX),
        WEBHOOK_PROJECT: WEBHOOK_SIDE_PX,
        **PREDICT_PROJECTS,
    }
    fake = FakeLabelStudio(sides)
    with (
        tempfile.TemporaryDirectory(prefix="brushloop-bench-", ignore_cleanup_errors=True) as name,
        run_fake(fake),
        running_service(fake, Path(name)) as service,
    ):
        loop = measure_loop(service, fake)
        seconds_per_mp = measure_predict(service, fake)
        load = measure_load(service, fake)
    return to_result(loop, seconds_per_mp, load)


@contextmanager
def running_service(
    fake: FakeLabelStudio, folder: Path, settings: Mapping[str, str] | None = None
) -> Iterator[Service]:
    """Web process and worker by the command that people use; `settings` go into their environment."""
    port = free_port()
    fixed = {"LABEL_STUDIO_URL": fake.url, "LABEL_STUDIO_API_KEY": API_KEY, "LOG_LEVEL": "WARNING"}
    environment = child_environment(
        {**fixed, **(settings or {})},
        without=("DATABASE_URL", "REDIS_URL", "BASIC_AUTH_USER", "BASIC_AUTH_PASS"),
    )
    command = [sys.executable, "-m", "ml_backend.command.cli", "serve", "--with-worker"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--data-dir", str(folder / "data")]
    process = ChildProcess("the service", command, environment, folder / "service.log")
    service = Service("127.0.0.1", port, process.pid)
    try:
        wait_until_up(service, process)
        yield service
    except RuntimeError as error:
        raise RuntimeError(
            f"{error}\nThe end of the log of the service:\n{process.last_lines(60)}"
        ) from error
    finally:
        process.stop(STOP_GRACE_S)


def wait_until_up(service: Service, process: ChildProcess) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not service.is_up():
        if not process.is_running or time.monotonic() > deadline:
            raise RuntimeError("the service did not start")
        time.sleep(0.1)


def measure_predict(service: Service, fake: FakeLabelStudio) -> dict[int, float]:
    """Median seconds per megapixel of `/predict` for one new task, by the side of the image."""
    found = {}
    for project_id, side in PREDICT_PROJECTS.items():
        service.post("/setup", fake.setup_body(project_id))
        tasks = fake.add_tasks(project_id, PREDICT_REPEATS + 2)
        service.post("/webhook", fake.paint(tasks[0], 2 * WEBHOOK_OBJECTS))
        service.wait_until_learnt(project_id, ROUND_TIMEOUT_S)
        service.post("/predict", fake.predict_body(project_id, [tasks[1]]))  # loads the model
        seconds = []
        for task_id in tasks[2:]:
            body = fake.predict_body(project_id, [task_id])
            fake.picture(task_id)
            began = time.monotonic()
            if not service.post("/predict", body)["results"][0]:
                raise RuntimeError(f"no prediction for an image of {side} px")
            seconds.append(time.monotonic() - began)
        found[side] = median(seconds) / (side * side / 1e6)
    return found


def measure_load(service: Service, fake: FakeLabelStudio) -> Load:
    """Post webhooks one after the other and many at once while rounds train, and ask for health meanwhile."""
    load = Load()
    service.post("/setup", fake.setup_body(TRAINING_PROJECT))
    for task_id in fake.add_tasks(TRAINING_PROJECT, 6):
        service.post("/webhook", fake.paint(task_id))
    service.post("/setup", fake.setup_body(WEBHOOK_PROJECT))
    tasks = fake.add_tasks(WEBHOOK_PROJECT, N_WEBHOOKS + N_AT_ONCE)
    bodies = [json.dumps(fake.paint(task_id, WEBHOOK_OBJECTS)).encode() for task_id in tasks]
    load.body_bytes = round(median(map(len, bodies)))
    while service.status(TRAINING_PROJECT)["state"] != "training":
        time.sleep(0.1)
    with keep_training(service) as seen, watch_health(service, load.health):
        answers = [service.timed_post("/webhook", body) for body in bodies[:N_WEBHOOKS]]
        load.one_by_one = [seconds for _, seconds in answers]
        with ThreadPoolExecutor(N_AT_ONCE) as pool:
            together = list(pool.map(lambda body: service.timed_post("/webhook", body), bodies[N_WEBHOOKS:]))
        load.at_once = [seconds for _, seconds in together]
    load.training_share = sum(seen) / max(len(seen), 1)
    n_taken = sum(status == 201 for status, _ in (*answers, *together))
    n_kept = service.status(WEBHOOK_PROJECT)["annotations"]["received"]
    load.n_lost = len(bodies) - min(n_taken, n_kept)
    return load


@contextmanager
def keep_training(service: Service, project_id: int = TRAINING_PROJECT) -> Iterator[list[bool]]:
    """Ask for the next round whenever none is wanted; yields what was seen: whether one was training."""
    seen: list[bool] = []

    def look() -> None:
        states = {row["project"]: row["state"] for row in service.get("/api/projects")}
        seen.append("training" in states.values())
        if states[project_id] not in ("training", "queued"):
            service.post(f"/api/projects/{project_id}/train", None)

    with repeat(look, 0.5):
        yield seen


@contextmanager
def watch_health(service: Service, seconds: list[float]) -> Iterator[None]:
    with repeat(lambda: seconds.append(service.timed_health()), HEALTH_PAUSE_S):
        yield


@contextmanager
def repeat(work: Any, pause_s: float) -> Iterator[None]:
    """Do something again and again in a thread, while the block runs."""
    stop = threading.Event()

    def go_on() -> None:
        while not stop.wait(pause_s):
            work()

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def to_result(loop: Loop, seconds_per_mp: dict[int, float], load: Load) -> BenchmarkResult:
    """The table and the goals."""
    timings = {
        f"webhook, {len(load.one_by_one)} one after the other": load.one_by_one,
        f"webhook, {len(load.at_once)} at once": load.at_once,
        "health meanwhile": load.health,
        f"submit to the first prediction, by a draft, {LOOP_SIDE_PX} px": loop.draft,
        f"submit to fresh prediction, first model, {LOOP_SIDE_PX} px": loop.first,
        f"submit to fresh prediction, later rounds, {LOOP_SIDE_PX} px": loop.later,
        "submit until training over known truth gives way": loop.gave_way,
    }
    rows: list[tuple[Any, ...]] = [
        (what, len(s), median(s), percentile(s, 99), max(s)) for what, s in timings.items()
    ]
    rows += [
        (f"/predict per megapixel, {side} px", PREDICT_REPEATS, s, "", "")
        for side, s in seconds_per_mp.items()
    ]
    p99, slowest = percentile(load.one_by_one, 99), max(*load.one_by_one, *load.at_once)
    health_p99 = percentile(load.health, 99)
    goals = (
        Goal(f"webhook p99 one after the other under 100 ms: {1000 * p99:.0f} ms", p99 < 0.1),
        Goal(f"no webhook over 1 s: {slowest:.3f} s", slowest < 1.0),
        Goal(f"no webhook lost: {load.n_lost}", load.n_lost == 0),
        Goal(f"health p99 under 200 ms: {1000 * health_p99:.0f} ms", health_p99 < 0.2),
        Goal(f"first model, median under 25 s: {median(loop.first):.1f} s", median(loop.first) < 25),
        Goal(f"later rounds, median under 15 s: {median(loop.later):.1f} s", median(loop.later) < 15),
    )
    share_pct = 100 * load.training_share
    notes = (
        f"webhooks of {load.body_bytes / 1000:.0f} kB; rounds trained in {share_pct:.0f} % of the looks",
    )
    record = {
        "seconds": timings,
        "predict_s_per_mp": {str(side): s for side, s in seconds_per_mp.items()},
        "webhook_bytes": load.body_bytes,
        "n_lost": load.n_lost,
        "training_share": load.training_share,
    }
    columns = ("what", "n", "median s", "p99 s", "max s")
    return BenchmarkResult("Service under load", columns, tuple(rows), record, goals, notes)
