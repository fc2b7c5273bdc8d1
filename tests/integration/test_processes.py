"""Web and workers in earnest: what one does to the others, and what Label Studio's absence does to them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from itertools import pairwise
from typing import Any

import httpx
import psutil
import pytest
from stack import Stack, children_of, is_alive, running_stack, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]


@pytest.fixture
def stack(service_backend: Any, tmp_path: Any) -> Iterator[Stack]:
    environment = {**service_backend.environment(), "RECONCILE_EVERY_S": "2"}
    with running_stack(tmp_path / "logs", environment) as stack:
        stack.start_web()
        stack.server.connect_backend()
        yield stack


def rounds(stack: Stack) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = httpx.get(f"{stack.url}/api/projects/1/rounds", timeout=60).json()
    return found


@pytest.mark.slow(about_s=45)
def test_from_strokes_to_predictions_and_through_a_failing_label_studio(stack: Stack) -> None:
    """One story, because starting processes takes longer than the rest of it."""
    # Two workers, ten submits: the rounds never overlap, and nothing is trained twice.
    stack.start_worker()
    stack.start_worker()
    for task_id in range(1, 11):
        stack.server.submit_as(100 + task_id, task_id)
    status = stack.wait_until_trained()
    assert status["annotations"] == {"received": 10, "trained": 10, "pending": 0}
    assert stack.server.lost_webhooks == 0
    spans = sorted((moment(r["started_at"]), moment(r["finished_at"])) for r in rounds(stack))
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    assert stack.server.predict(50)[0]["model_version"] == status["model_version"]

    # A webhook that never arrived is found by asking.
    stack.server.sends_webhooks = False
    stack.server.submit_as(120, 20)
    wait_until(lambda: stack.status()["annotations"]["trained"] == 11, 60, "it is found", stack.describe)
    stack.server.delete(101)
    wait_until(lambda: stack.status()["annotations"]["trained"] == 10, 60, "it is dropped", stack.describe)
    stack.server.sends_webhooks = True

    # An annotation deleted in Label Studio stops teaching.
    stack.server.delete(102)
    wait_until(lambda: stack.status()["annotations"]["received"] == 9, 30, "it is deleted", stack.describe)
    stack.wait_until_trained()
    pixels = rounds(stack)[0]["seen"]["annotated_images"]
    assert pixels == 9

    # Without Label Studio a round goes on with what it has, and says so.
    stack.server.is_down = True
    stack.server.submit_as(103, 3, user_id=1)
    status = stack.wait_until_trained()
    assert "Label Studio could not be asked" in status["last_error"]
    assert "Label Studio could not be asked" in rounds(stack)[0]["note"]
    stack.server.is_down = False
    stack.server.submit_as(104, 4, user_id=1)
    stack.wait_until_trained()
    wait_until(lambda: stack.status()["last_error"] is None, 90, "no trouble is left", stack.describe)


@pytest.mark.slow(about_s=45)
@pytest.mark.parametrize(
    "service_backend", ["sqlite", pytest.param("postgres+redis", marks=pytest.mark.thorough)], indirect=True
)
def test_what_happens_to_a_training_happens_to_nothing_else(stack: Stack) -> None:
    stack.environment["ROUND_BUDGET_S"] = stack.environment["ROUND_WARM_BUDGET_S"] = "60"
    worker = stack.start_worker()
    for number in (1, 2, 3):
        stack.server.submit_as(100 + number, number)

    # A training that is killed is trouble of the machine: the worker lives, and repeats the round by itself.
    os.kill(wait_for_training(stack, worker.pid), signal.SIGKILL)
    wait_until(
        lambda: rounds(stack)[-1]["state"] == "interrupted", 30, "the round is interrupted", stack.describe
    )
    assert "SIGKILL" in rounds(stack)[-1]["error"]
    assert worker.poll() is None

    # Cancel stops a round, and what is pending waits for something new.
    wait_until(lambda: len(rounds(stack)) == 2, 60, "the round is repeated", stack.describe)
    wait_for_training(stack, worker.pid)
    httpx.post(f"{stack.url}/api/projects/1/cancel", timeout=60).raise_for_status()
    wait_until(lambda: rounds(stack)[0]["state"] == "cancelled", 30, "the round is cancelled", stack.describe)
    assert stack.status()["training"] is None

    # A worker that is asked to stop leaves its round to the next one.
    httpx.post(f"{stack.url}/api/projects/1/train", timeout=60).raise_for_status()
    child = wait_for_training(stack, worker.pid)
    worker.terminate()
    assert worker.wait(200) == 0
    assert not is_alive(child)
    assert rounds(stack)[0]["state"] == "interrupted"

    # So does one that is killed, and its training dies with it.
    stack.workers.clear()
    worker = stack.start_worker()
    child = wait_for_training(stack, worker.pid)
    stack.kill_workers()
    wait_until(lambda: not is_alive(child), 10, "no orphan trains on")
    stack.environment["ROUND_BUDGET_S"] = stack.environment["ROUND_WARM_BUDGET_S"] = "1"
    stack.start_worker()
    assert stack.wait_until_trained()["annotations"] == {"received": 3, "trained": 3, "pending": 0}
    assert [r["state"] for r in rounds(stack)] == [
        "done",
        "interrupted",
        "interrupted",
        "cancelled",
        "interrupted",
    ]


def wait_for_training(stack: Stack, worker_pid: int) -> int:
    """The training process of a running round: the round has its place a moment before its process begins."""
    trainings: list[int] = []

    def is_training() -> bool:
        trainings[:] = list_trainings(worker_pid)
        return bool(trainings) and (stack.status()["training"] or {"progress": 0})["progress"] > 0

    wait_until(is_training, 60, "a round trains", stack.describe)
    assert len(trainings) == 1, trainings
    return trainings[0]


def list_trainings(worker_pid: int) -> list[int]:
    """The processes below a worker that give way to everything else."""
    usual = os.getpriority(os.PRIO_PROCESS, worker_pid)  # not 0 everywhere that tests run
    below = [pid for pid in children_of(worker_pid) if niceness(pid) >= min(usual + 10, 19)]
    return [pid for pid in below if not is_decoder(pid)]


def is_decoder(pid: int) -> bool:
    """Whether it decodes images for the process above it, with that one's priority."""
    with suppress(psutil.NoSuchProcess):
        return "ml_backend.label_studio.decoder_process" in psutil.Process(pid).cmdline()
    return False


def niceness(pid: int) -> int:
    """The priority of a process; the lowest number for one that has ended meanwhile."""
    try:
        return os.getpriority(os.PRIO_PROCESS, pid)
    except ProcessLookupError:
        return -20


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
