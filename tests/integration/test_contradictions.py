"""Status, metrics and page under load: whatever is polled while rounds run never contradicts itself."""

from __future__ import annotations

import itertools
import os
import re
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from flask.testing import FlaskClient
from loop_fakes import Bench

from ml_backend.storage import health
from ml_backend.storage.models import round_of
from ml_backend.web.app import create_app

pytestmark = [pytest.mark.integration, pytest.mark.timeout(3000)]

MANY = int(os.environ.get("POLLS", "10000"))
"""`POLLS=30000` asks 10,000 times for each of status, metrics and page."""

STATE = re.compile(r'class="state state-(\w+)">')
FACT = re.compile(r"<dt>([^<]+)</dt><dd>(?:<code>)?([^<]*)")
METRIC = re.compile(
    r'brushloop_(\w+)\{(?:(?:kind|state|outcome)="(\w+)",)?project="1"(?:,state="(\w+)")?\} (\S+)'
)


def find_contradictions(
    state: str | None, counts: Mapping[str, float], model: str | None, is_training: bool, n_promoted: float
) -> Iterator[str]:
    """What cannot be true together, of one answer; the story has no rollback, failure or deletion."""
    if counts["trained"] + counts["pending"] > counts["received"]:
        yield f"more trained and pending than received: {counts}"
    if counts["trained"] and model is None:
        yield f"{counts['trained']} trained, and no model"
    if (model is None) != (n_promoted == 0):
        yield f"model {model} after {n_promoted} promoted rounds"
    if state is not None and (state == "training") != is_training:
        yield f"{state}, while training is {is_training}"
    if state == "idle" and counts["pending"]:
        yield f"idle with {counts['pending']} pending"
    if state == "queued" and not counts["pending"]:
        yield "queued with nothing pending"
    if state == "error":
        yield "error, and nothing failed"


def check_status(client: FlaskClient) -> Iterator[str]:
    status = client.get("/api/projects/1/status").get_json()
    last, model = status["last_round"], status["model_version"]
    n_promoted = status["round"]
    yield from find_contradictions(
        status["state"], status["annotations"], model, status["training"] is not None, n_promoted
    )
    if model is not None and round_of(model) != status["round"]:
        yield f"model {model} of round {status['round']}"
    if last and last["model_version"] not in (None, model):
        yield f"model {model} beside the last round's {last['model_version']}"
    if status["training"] and last and status["training"]["round"] <= last["round"]:
        yield f"round {status['training']['round']} runs, and {last['round']} ended"
    if status["pool"]["scored"] + status["pool"]["stale"] > status["pool"]["tasks"]:
        yield f"more scored than there are: {status['pool']}"
    if status["last_error"]:
        yield f"a trouble that there is not: {status['last_error']}"


def check_metrics(client: FlaskClient) -> Iterator[str]:
    values: dict[tuple[str, str], float] = {}
    for name, first, second, value in METRIC.findall(client.get("/metrics").text):
        values[name, first or second] = float(value)
    states = [kind for (name, kind), value in values.items() if name == "project_state" and value]
    if len(states) != 1:
        yield f"{states} at once"
        return
    counts = {kind: values["annotations", kind] for kind in ("received", "trained", "pending")}
    n_promoted = values.get(("rounds", "promoted"), 0.0)
    # Which model there is, metrics do not say: that one was promoted is all they know.
    model = "some" if n_promoted else None
    yield from find_contradictions(states[0], counts, model, ("round_progress", "") in values, n_promoted)
    if bool(values.get(("rounds", "running"))) != (states[0] == "training"):
        yield f"{states[0]}, and {values.get(('rounds', 'running'), 0)} rounds run"


def check_page(client: FlaskClient) -> Iterator[str]:
    page = client.get("/projects/1").text
    facts, shown = dict(FACT.findall(page)), STATE.search(page)
    received, trained, pending = (
        float(facts[name].replace(",", "").replace("\N{NARROW NO-BREAK SPACE}", ""))
        for name in ("Annotations received", "trained on", "pending")
    )
    model = None if facts["Model"] == "none yet" else facts["Model"]
    is_training, state = 'id="progress"' in page, shown[1] if shown else None
    counts = {"received": received, "trained": trained, "pending": pending}
    # A class that is not learnt yet is shown in the place of a state.
    yield from find_contradictions(
        None if state == "waiting" else state, counts, model, is_training, float(model is not None)
    )


CHECKS = (check_status, check_metrics, check_page)


def poll(
    bench: Bench, n_polls: int, found: list[str], polled: threading.Event, ended: threading.Event
) -> None:
    """Ask so often, and on until the rounds are over."""
    client = create_app(bench.loop, bench.parts.settings).test_client()
    for number in itertools.count():
        check = CHECKS[number % len(CHECKS)]
        found += [f"poll {number}, {check.__name__}: {said}" for said in check(client)]
        if number + 1 >= n_polls:
            polled.set()
        if ended.is_set():
            return


def run_rounds(bench: Bench, least_rounds: int, polled: threading.Event) -> int:
    """People submit and a worker trains, until everything was polled; returns the number of rounds."""
    n_rounds = 0
    while n_rounds < least_rounds or not polled.is_set():
        bench.submit(1 + n_rounds % 40)
        bench.clock.now += 1
        bench.loop.build_truth(1)
        n_rounds += bench.loop.run_round(1) is not None
        bench.loop.suggest(1, [bench.task(50 + n_rounds % 10)], None, float("inf"))
    return n_rounds


@pytest.mark.parametrize(
    ("n_polls", "least_rounds"),
    [
        pytest.param(90, 1, id="a few"),
        pytest.param(
            MANY, min(50, MANY // 40), id="many", marks=[pytest.mark.thorough, pytest.mark.slow(about_s=600)]
        ),
    ],
)
def test_nothing_that_is_polled_while_rounds_run_contradicts_itself(
    service_backend: Any, n_polls: int, least_rounds: int
) -> None:
    torch.set_num_threads(1)
    bench = Bench(service_backend.settings(min_pixels_per_class=100, draft_s=0.0, consolidate_s=0.0))
    with bench.parts.database.write() as connection:
        health.note_worker(connection, bench.parts.owner, bench.clock() + 10_000)
    found: list[str] = []
    polled, ended = threading.Event(), threading.Event()
    poller = threading.Thread(target=poll, args=(bench, n_polls, found, polled, ended))
    bench.submit(1)
    poller.start()
    try:
        n_rounds = run_rounds(bench, least_rounds, polled)
    finally:
        ended.set()
        poller.join()
    bench.close()
    assert found == []
    assert n_rounds >= least_rounds
