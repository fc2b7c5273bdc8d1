"""Learning curves as numbers: areas, efforts to reach a level, paired intervals."""

from __future__ import annotations

import numpy as np
import pytest

from simulation.learning_curves import area_under_curve, effort_to_reach, paired_interval


def test_the_area_is_the_mean_quality_over_the_effort() -> None:
    assert area_under_curve([0, 10], [0.8, 0.8]) == 0.8
    assert area_under_curve([0, 1, 10], [0.0, 1.0, 1.0]) == pytest.approx(0.95)
    assert area_under_curve([5], [0.7]) == 0.7


def test_a_curve_that_ends_early_keeps_its_last_quality() -> None:
    assert area_under_curve([0, 10], [0.0, 1.0], until=20) == pytest.approx((5 + 10) / 20)


def test_a_curve_that_goes_back_is_refused() -> None:
    with pytest.raises(ValueError, match="ascending"):
        area_under_curve([1, 0], [0.1, 0.2])
    with pytest.raises(ValueError, match="ascending"):
        area_under_curve([], [])


def test_a_level_is_reached_between_two_points_or_never() -> None:
    assert effort_to_reach([10, 20, 30], [0.4, 0.8, 0.9], 0.5) == 12.5
    assert effort_to_reach([10, 20, 30], [0.4, 0.8, 0.9], 0.4) == 10
    assert effort_to_reach([10, 20, 30], [0.4, 0.8, 0.9], 0.95) is None
    assert effort_to_reach([10, 20, 30], [0.4, 0.9, 0.5], 0.9) == 20


def test_pairs_take_out_what_differs_between_seeds() -> None:
    seeds = np.array([0.5, 0.7, 0.9, 0.6, 0.8])
    found = paired_interval(
        (seeds + np.array([0.02, 0.03, 0.02, 0.03, 0.02])).tolist(), seeds.tolist(), np.random.default_rng(0)
    )
    assert 0 < found.low <= found.mean <= found.high < 0.04
    assert found.n == 5


def test_an_interval_without_pairs_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        paired_interval([], [], np.random.default_rng(0))
