"""Temperature scaling makes confidence honest on the pixels it is fitted to."""

from __future__ import annotations

import numpy as np
import pytest

from core.training.calibration import MAX_TEMPERATURE, MIN_TEMPERATURE, fit_temperature


@pytest.mark.parametrize("true_temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_made_the_labels_is_found_again(true_temperature: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (20_000, 2))
    chance = 1 / (1 + np.exp((logits[:, 0] - logits[:, 1]) / true_temperature))
    labels = (rng.random(len(chance)) < chance).astype(np.uint8)
    assert fit_temperature(logits, labels) == pytest.approx(true_temperature, rel=0.05)


def test_a_hold_out_without_pixels_changes_nothing() -> None:
    assert fit_temperature(np.zeros((0, 2)), np.zeros(0, np.uint8)) == 1.0


def test_a_perfect_hold_out_does_not_make_confidence_boundless() -> None:
    logits, labels = np.array([[0.0, 1.0]]), np.array([1])
    assert MIN_TEMPERATURE * 0.99 < fit_temperature(logits, labels) < MIN_TEMPERATURE * 1.1
    assert fit_temperature(logits * 100, np.array([0])) <= MAX_TEMPERATURE
