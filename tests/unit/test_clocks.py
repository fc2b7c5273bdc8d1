"""No two clocks agree: web and worker, ahead and behind, by seconds and by a year, and clocks that jump."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from loop_fakes import Bench, make_bench

from ml_backend.due import find_due
from ml_backend.learning_loop import LearningLoop
from ml_backend.rounds.lease import LOST_AFTER_S, is_lost, may_take_over
from ml_backend.storage import predictions, rounds, wakeups
from ml_backend.storage.projects import get_project

SKEWS_S = [sign * size for size in (0.5, 5, 60, 3600, 365 * 24 * 3600.0) for sign in (1, -1)]
OWNER = "elsewhere|1|1|other"


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = make_bench(tmp_path)
    yield bench
    bench.close()


def web_beside(bench: Bench, skew_s: float) -> LearningLoop:
    """Another process over the same database, whose clock differs."""
    return LearningLoop(replace(bench.parts, clock=lambda: bench.clock() + skew_s, owner=OWNER))


def due(bench: Bench) -> list[str]:
    with bench.parts.database.read() as connection:
        project = get_project(connection, 1)
        return list(find_due(connection, project, bench.parts.settings, bench.clock()))


@pytest.mark.parametrize("skew_s", SKEWS_S)
def test_a_request_makes_one_round_and_a_cancel_ends_one(bench: Bench, skew_s: float) -> None:
    web = web_beside(bench, skew_s)
    web.cancel(1)
    web.request_training(1)
    bench.submit(1)
    assert bench.loop.run_round(1) is not None  # not the one that was cancelled before it began
    assert "round" not in due(bench)
    bench.submit(2)

    def cancel_and_wait() -> None:
        web.cancel(1)
        bench.trainer.wait_for_a_stop()

    bench.trainer.during = cancel_and_wait
    assert bench.loop.run_round(1) is None
    assert bench.loop.rounds(1)[0]["state"] == "cancelled"


@pytest.mark.parametrize("skew_s", SKEWS_S)
def test_a_running_round_shows_in_every_status_and_is_not_stolen(bench: Bench, skew_s: float) -> None:
    web = web_beside(bench, skew_s)
    states: list[str] = []
    stolen: list[str | None] = []

    def look() -> None:
        states.append(web.status(1)["state"])
        stolen.append(web.run_round(1))

    bench.submit(1)
    bench.trainer.during = look
    assert bench.loop.run_round(1) is not None
    assert (states, stolen) == (["training"], [None])


@pytest.mark.parametrize("jump_s", [-365 * 24 * 3600.0, -3600.0, 3600.0, 365 * 24 * 3600.0])
def test_a_clock_that_jumps_holds_nothing_up_and_steals_nothing(bench: Bench, jump_s: float) -> None:
    with bench.parts.database.write() as connection:
        rounds.begin(connection, 1, OWNER, 0, bench.clock(), lambda running: False)
        running = rounds.find_running(connection, 1)
        assert running is not None
        assert wakeups.take(connection, 1, "reconcile", bench.clock(), 60.0)
        predictions.enqueue_pushes(connection, 1, [1], bench.clock() + 600, is_open=True)
    assert not is_lost(running, bench.clock())
    bench.loop.reconcile(1)
    bench.clock.now += jump_s
    assert not is_lost(running, bench.clock())
    assert {"reconcile", "push"} <= set(due(bench))
    with bench.parts.database.write() as connection:
        assert wakeups.take(connection, 1, "reconcile", bench.clock(), 60.0)
        assert predictions.lease_pushes(connection, 1, OWNER, bench.clock(), bench.clock() + 300, set(), 10)
    bench.clock.now += jump_s
    with bench.parts.database.read() as connection:
        assert predictions.has_due_push(connection, 1, bench.clock())


def test_a_silent_round_is_taken_over_only_once_its_owner_could_have_beaten(bench: Bench) -> None:
    with bench.parts.database.write() as connection:
        rounds.begin(connection, 1, OWNER, 0, bench.clock(), lambda running: False)
        running = rounds.find_running(connection, 1)
    assert running is not None
    for _ in range(int(LOST_AFTER_S) + 2):
        is_lost(running, bench.clock())
        bench.clock.now += 1
    assert is_lost(running, bench.clock())
    assert not may_take_over(running, bench.clock())  # the database may have been locked until now
    beaten = replace(running, heartbeat_at=running.heartbeat_at + 1)
    assert not may_take_over(beaten, bench.clock())
    for _ in range(int(LOST_AFTER_S) + 6):
        bench.clock.now += 1
        taken = may_take_over(beaten, bench.clock())
    assert taken


def test_people_who_pause_by_another_clock_still_get_their_round(bench: Bench) -> None:
    bench.clock.now += 3600
    bench.submit(1)
    bench.loop.build_truth(1)
    bench.clock.now -= 3600
    assert "round" in due(bench)
