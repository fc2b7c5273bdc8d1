"""A forest that counts little keeps few of its trees, in both copies, and the answer hardly changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from core.learners.forest import Forest
from core.learners.forest_growth import N_TREES, train_forest
from core.learners.pixel_features import pixel_features
from core.network.checkpoint import Checkpoint, load_checkpoint
from core.network.mixture import FOREST, Share
from core.network.pixels import standardise
from core.network.predict import Predictor
from core.training.candidate import thin_forest

RECORDED = Path(__file__).parents[1] / "fixtures" / "checkpoints" / "format-5"


def noisy_discs() -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """An image of three channels, and where its discs are."""
    rows, columns = np.mgrid[:80, :80]
    inside = (rows % 40 - 20) ** 2 + (columns % 40 - 20) ** 2 < 100
    noise = np.random.default_rng(0).normal(0, 4, (80, 80, 3))
    return (10 + 5 * inside[..., None] + noise).clip(0, 255).astype(np.uint8), inside


@pytest.fixture(scope="module")
def model() -> Checkpoint:
    checkpoint = load_checkpoint(RECORDED)
    image, inside = noisy_discs()
    rows = pixel_features(standardise(image, checkpoint.statistics)).reshape(inside.size, -1)
    forest = train_forest(rows, inside.ravel().astype(np.uint8), len(checkpoint.schema), seed=0)
    return replace(checkpoint, learners={FOREST: forest.to_tensors()}, judged={FOREST: forest.to_tensors()})


def count_trees(checkpoint: Checkpoint) -> set[int]:
    """Of the copy that answers and of the one that is judged."""
    copies = (checkpoint.learners, checkpoint.judged)
    return {len(Forest.from_tensors(own[FOREST]).roots) for own in copies}


@pytest.mark.parametrize(
    ("weight", "n_trees"), [(0.05, 8), (0.3, 8), (0.4, 16), (0.5, 16), (0.6, N_TREES), (1.0, N_TREES)]
)
def test_the_less_it_counts_the_fewer_trees_are_kept(model: Checkpoint, weight: float, n_trees: int) -> None:
    assert count_trees(thin_forest(replace(model, shares={FOREST: Share(weight)}))) == {n_trees}


def test_a_model_without_a_forest_stays_what_it_is(model: Checkpoint) -> None:
    without = replace(model, learners={}, judged={}, shares={})
    assert thin_forest(without) is without


@pytest.mark.parametrize("weight", [0.2, 0.5])
def test_the_answer_hardly_changes(model: Checkpoint, weight: float) -> None:
    whole = replace(model, shares={FOREST: Share(weight)})
    image = noisy_discs()[0]
    before, after = (
        Predictor(one, 1).predict(image, n_augmentations=1, keep_probabilities=True).probabilities
        for one in (whole, thin_forest(whole))
    )
    assert before is not None
    assert after is not None
    assert np.abs(before.astype(np.float32) - after).mean() < 0.1 * weight
    assert np.mean(before.argmax(0) == after.argmax(0)) > 0.98
