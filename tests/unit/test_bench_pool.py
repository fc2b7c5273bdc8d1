"""The benchmark of a large pool: its options, what it compares, and what it reads from outside a service."""

from __future__ import annotations

import os
import sys
from typing import Any

import click
import pytest

from bench.fake_label_studio import FakeLabelStudio
from bench.fake_label_studio_app import find_tasks
from bench.pool import _parse, measure, to_result
from bench.pool_project import NAMES, PoolRound, PoolSettings
from bench.process_tree import peaks_by_role

SETTINGS = PoolSettings(rounds=3)


def a_round(**values: Any) -> PoolRound:
    usual: dict[str, Any] = {**dict.fromkeys(NAMES, 0.1), "n_scored": 200, "n_scored_before": 300}
    return PoolRound(**{**usual, "training_s": 8.0, "overhead_s": 10.0, "review_s": 9.0, **values})


def found(overhead_s: float, worker_bytes: int, ranking_s: float) -> dict[str, Any]:
    one = a_round(overhead_s=overhead_s, ranking_s=ranking_s)
    return {
        "rounds": [{name: getattr(one, name) for name in NAMES}],
        "median": {name: getattr(one, name) for name in NAMES},
        "peak_bytes": {"web": 2**28, "worker": worker_bytes},
        "database_bytes": 2**20,
    }


class Played:
    """A pool whose rounds are known beforehand; None is one that was not promoted."""

    def __init__(self, log: list[str], name: str, rounds: list[PoolRound | None]) -> None:
        self.log, self.name, self.left = log, name, rounds

    def begin(self) -> None:
        self.log.append(f"{self.name} begins")

    def run_round(self) -> PoolRound | None:
        self.log.append(self.name)
        return self.left.pop(0)


def test_the_options_name_the_pools_and_what_a_round_is() -> None:
    assert _parse(["--sizes", "20,9000,20", "--budget", "7"]) == {
        "sizes": (20, 9000),
        "rounds": PoolSettings.rounds,
        "steps": PoolSettings.steps,
        "side_px": PoolSettings.side_px,
        "annotated": PoolSettings.annotated,
        "per_round": PoolSettings.per_round,
        "budget": 7,
    }
    with pytest.raises(click.UsageError, match="--sizes"):
        _parse(["--sizes", "500,many"])


def test_pools_take_turns_and_rounds_without_a_review_do_not_count() -> None:
    log: list[str] = []
    small = Played(log, "small", [a_round(), None, a_round(review_s=5.0)])
    large = Played(log, "large", [a_round(), a_round(), a_round()])
    rounds = measure({5: small, 50: large}, SETTINGS)  # type: ignore[dict-item]
    assert log == ["small begins", "large begins", *["small", "large"] * 3]
    assert [one.review_s for one in rounds[5]] == [9.0, 5.0]
    assert len(rounds[50]) == 3


def test_a_pool_that_costs_more_than_its_share_misses_the_goals() -> None:
    result = to_result({500: found(10.0, 2**29, 0.01), 10_000: found(11.9, 2**29, 0.199)}, SETTINGS)
    assert [goal.met for goal in result.goals] == [True, True, True, True]
    assert result.goals[0].text == "10000 tasks against 500: 1.19 x the overhead of a round, allowed 1.2 x"
    result = to_result({500: found(10.0, 2**29, 0.01), 10_000: found(12.1, 2**30, 0.2)}, SETTINGS)
    assert [goal.met for goal in result.goals] == [False, True, False, False]
    assert all(len(table.columns) == len(row) for table in result.further for row in table.rows)
    assert {len(row) for row in result.rows} == {len(result.columns)}


def test_a_pool_without_a_promoted_round_is_no_result() -> None:
    with pytest.raises(RuntimeError, match="promoted"):
        to_result({5: found(1.0, 1, 0.1), 9: {**found(1.0, 1, 0.1), "rounds": []}}, SETTINGS)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_memory_of_a_process_is_read_from_outside() -> None:
    peaks = peaks_by_role(os.getpid())
    assert peaks["web"] > 2**24
    assert "worker" not in peaks


def test_named_tasks_are_found_without_a_look_at_all_others() -> None:
    fake = FakeLabelStudio({1: 64, 2: 64})
    first, other = fake.add_tasks(1, 5), fake.add_tasks(2, 2)
    wanted = [first[3], other[0], 999, first[1]]
    named = {"filters": {"items": [{"filter": "filter:tasks:id", "operator": "in_list", "value": wanted}]}}
    assert find_tasks(fake, 1, named) == [first[1], first[3]]
    behind = {"filter": "filter:tasks:id", "operator": "greater", "value": first[1]}
    assert find_tasks(fake, 1, {"filters": {"items": [behind]}}) == first[2:]
    fake.paint(first[0])
    fake.paint(first[3])
    painted = {"filter": "filter:tasks:total_annotations", "operator": "greater", "value": 0}
    assert find_tasks(fake, 1, {"filters": {"items": [behind, painted]}}) == [first[3]]
