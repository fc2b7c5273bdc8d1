"""A round brush: never over the edge, few strokes, and what they cost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.synthetic import make_image
from simulation.brush import Effort, Pace, Stroke, cover, draw, effort_of


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_strokes_stay_inside_and_cover_objects_but_for_crumbs(seed: int) -> None:
    _, instances = make_image("tissue", np.random.default_rng(seed), (96, 96))
    for number in np.unique(instances[instances > 0]):
        area = instances == number
        painted = draw(cover(area), area.shape) >= 128
        assert not (painted & ~area).any()
        assert np.count_nonzero(area & ~painted) <= max(12, 0.1 * np.count_nonzero(area))


def test_a_round_object_takes_one_stroke_with_a_wide_brush() -> None:
    rows, columns = np.mgrid[:60, :60]
    area = (rows - 30) ** 2 + (columns - 30) ** 2 <= 15**2
    strokes = cover(area)
    assert len(strokes) == 1
    assert strokes[0].radius_px == pytest.approx(7.5, abs=1)


def test_an_area_that_goes_on_beyond_the_image_is_covered_to_the_edge() -> None:
    area = np.zeros((60, 60), bool)
    area[:, :20] = True
    painted = draw(cover(area), area.shape) >= 128
    assert painted[:, 0].all()
    assert not painted[:, 20:].any()


def test_only_what_is_wanted_is_gone_for() -> None:
    area = np.ones((300, 300), bool)
    wanted = np.zeros_like(area)
    wanted[140:150, 140:150] = True
    painted = draw(cover(area, wanted), area.shape) >= 128
    assert painted[wanted].mean() > 0.9
    assert not painted[:80].any()


def test_nothing_wanted_takes_no_stroke_and_a_single_pixel_is_let_be() -> None:
    area = np.zeros((20, 20), bool)
    assert cover(area) == ()
    area[3, 3] = True
    assert draw(cover(area), area.shape)[3, 3] in (0, 255)


def test_edges_are_soft() -> None:
    alpha = draw([Stroke(np.array([[20.0, 10.0], [20.0, 40.0]]), 4.25)], (40, 50))
    assert set(np.unique(alpha)) - {0, 255}
    assert (alpha[:, 25] >= 128).sum() == 9


def test_effort_counts_strokes_and_ways_and_adds_up() -> None:
    strokes = [Stroke(np.array([[0.0, 3.0], [4.0, 3.0]]), 2), Stroke(np.array([[4.0, 6.0], [4.0, 16.0]]), 2)]
    effort, hand = effort_of(strokes, (0, 0))
    assert effort == Effort(strokes=2, travelled_px=6.0, painted_px=14.0)
    assert hand == (4.0, 16.0)
    assert (effort + Effort(places=1, questions=2)) == Effort(2, 6.0, 14.0, 1, 2)


def test_seconds_follow_the_pace() -> None:
    effort = Effort(strokes=3, travelled_px=1600, painted_px=200, places=2, questions=1)
    assert Pace().seconds(effort) == pytest.approx(0.6 + 2 + 0.5 + 0.4 + 1)
    assert Pace(search_s=0.4).seconds(effort) == pytest.approx(Pace().seconds(effort) + 0.6)
