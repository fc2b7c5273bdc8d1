"""Scores count annotated pixels only, and say how sure they are."""

from __future__ import annotations

import numpy as np
import pytest

from core.training.metrics import (
    average_precision,
    bootstrap_interval,
    boundary_f1,
    count_pixels,
    dice,
    expected_calibration_error,
    iou,
)


def _square(top: int, left: int, side: int = 6) -> np.ndarray:
    mask = np.zeros((30, 30), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_unlabelled_pixels_do_not_count() -> None:
    truth = np.array([[0, 1, 255, 255]], np.uint8)
    one = count_pixels(np.array([[0, 1, 0, 1]], np.uint8), truth, 2)
    other = count_pixels(np.array([[0, 1, 1, 0]], np.uint8), truth, 2)
    np.testing.assert_array_equal(one, other)
    assert dice(one).tolist() == [1.0, 1.0]


def test_dice_and_iou_of_half_an_overlap() -> None:
    counts = np.array([[10, 5, 5]])
    assert dice(counts)[0] == pytest.approx(2 / 3)
    assert iou(counts)[0] == pytest.approx(1 / 2)


def test_prediction_and_truth_of_different_size_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        count_pixels(np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8), 2)


def test_the_interval_holds_the_score_and_is_wider_for_fewer_units() -> None:
    rng = np.random.default_rng(0)
    many = np.stack([rng.integers(20, 60, 100), rng.integers(0, 30, 100), rng.integers(0, 30, 100)], -1)[
        :, None
    ]
    wide, narrow = (
        bootstrap_interval(many[:n], np.arange(n), dice, np.random.default_rng(1))[0] for n in (5, 100)
    )
    assert narrow[0] < dice(many.sum(0))[0] < narrow[1]
    assert wide[1] - wide[0] > narrow[1] - narrow[0]


def test_units_that_come_in_groups_give_a_wider_interval_than_as_many_on_their_own() -> None:
    # Ten groups, within which all units are equal: as good as ten units.
    hits = np.repeat(np.random.default_rng(0).integers(20, 90, 10), 20)
    counts = np.stack([hits, 100 - hits, 100 - hits], -1)[:, None]
    widths = [
        float(np.diff(bootstrap_interval(counts, groups, dice, np.random.default_rng(1))[0])[0])
        for groups in (np.arange(200), np.arange(200) // 20)
    ]
    assert widths[1] > 3 * widths[0]  # the root of 20 is 4.5


def test_a_class_that_is_never_there_has_no_interval() -> None:
    counts = np.zeros((4, 1, 3), np.int64)
    assert np.isnan(bootstrap_interval(counts, np.arange(4), dice, np.random.default_rng(0))).all()


def test_outlines_two_pixels_apart_count_and_five_apart_do_not() -> None:
    assert boundary_f1(_square(5, 5), _square(5, 7)) == 1.0
    assert boundary_f1(_square(5, 5), _square(20, 20)) == 0.0
    assert boundary_f1(_square(0, 0) & False, _square(0, 0) & False) == 1.0
    assert boundary_f1(_square(5, 5), _square(0, 0) & False) == 0.0


def test_a_split_object_is_two_errors_or_one_hit() -> None:
    truth = _square(5, 5).astype(np.int32) * 7
    halves = truth.copy()
    halves[5:8] *= 2
    assert average_precision(truth, truth) == 1.0
    assert average_precision(halves, truth) == 0.0  # each half has an IoU of exactly one half
    assert average_precision(np.zeros_like(truth), np.zeros_like(truth)) == 1.0
    with pytest.raises(ValueError, match="unique"):
        average_precision(truth, truth, threshold=0.3)


def test_calibration_error_is_the_gap_between_confidence_and_accuracy() -> None:
    confidence = np.full(1000, 0.9)
    correct = np.arange(1000) < 700
    assert expected_calibration_error(confidence, correct[np.random.default_rng(0).permutation(1000)], 1) == (
        pytest.approx(0.2)
    )
