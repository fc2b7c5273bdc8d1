"""The soak's verdict: what levels off passes, what grows from quarter to quarter does not."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import psutil
import pytest

from bench.process_tree import roles_of
from bench.soak import to_result

STEADY = {"web memory": 400.0, "web threads": 18.0, "worker memory": 440.0, "worker files": 35.0}


def verdicts(growth: dict[str, float], calls: dict[str, int]) -> dict[str, bool]:
    """Whether each goal is met, by its first words, after 40 looks that grow by so much each."""
    looks = [{name: value + n * growth.get(name, 0.0) for name, value in STEADY.items()} for n in range(40)]
    result = to_result(20.0, looks, calls)
    return {goal.text.partition(":")[0]: goal.met for goal in result.goals}


def test_a_service_that_levels_off_meets_every_goal() -> None:
    assert all(verdicts({}, {"polls 200": 9, "polls 503": 1}).values())


@pytest.mark.parametrize("name", sorted(STEADY))
def test_what_grows_without_end_misses_its_goal_alone(name: str) -> None:
    found = verdicts({name: STEADY[name] / 10}, {})
    assert [goal for goal, is_met in found.items() if not is_met] == [f"{name} levels off"]


def test_a_process_that_is_gone_does_not_level_off() -> None:
    looks = [{"worker memory": 440.0 if n < 10 else 0.0} for n in range(40)]
    assert not any(goal.met for goal in to_result(20.0, looks, {}).goals if "worker" in goal.text)


def test_calls_that_failed_are_counted() -> None:
    assert not verdicts({}, {"webhooks 500": 2})["no call answered 500"]


def test_a_process_that_waits_to_be_asked_for_its_code_hides_no_other() -> None:
    with (
        subprocess.Popen([sys.executable, "-c", ""]) as ended,
        subprocess.Popen(
            [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE
        ) as lives,
    ):
        while psutil.Process(ended.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        assert lives.pid in roles_of(os.getpid())
