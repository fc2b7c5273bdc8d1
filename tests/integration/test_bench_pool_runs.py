"""The benchmark of a large pool, with small pools: real services, and the record that people compare."""

from __future__ import annotations

import pytest

from bench import Options
from bench.pool import run

pytestmark = [pytest.mark.integration, pytest.mark.thorough, pytest.mark.slow(about_s=60)]


def test_two_small_pools_are_measured_side_by_side() -> None:
    arguments = "--sizes 20,40 --rounds 1 --steps 5 --annotated 12 --per-round 2 --budget 6"
    result = run(Options(arguments=tuple(arguments.split())))
    pools = result.record["pools"]
    assert list(pools) == ["20", "40"]
    for pool in pools.values():
        (one,) = pool["rounds"]
        assert one["n_scored"] == 6
        assert one["n_scored_before"] == 6
        assert 0 < one["scoring_s"] < one["review_s"] < one["overhead_s"]
        assert pool["database_bytes"] > 0
        assert set(pool["peak_bytes"]) <= {"web", "worker", "training"}
