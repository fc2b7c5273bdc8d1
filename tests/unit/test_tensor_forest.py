"""A forest on tensors, as a GPU and a graph have it, says what the compiled loops say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from core.learners import tensor_forest
from core.learners.feature_plan import count_features
from core.learners.forest import Forest
from core.learners.forest_growth import train_forest
from core.learners.forest_map import forest_map
from core.learners.pixel_features import pixel_features
from core.learners.tensor_features import features_of_pixels
from core.learners.tensor_forest import TensorForest, between_neighbours, map_forest
from core.network import quick
from core.network.batch import standardise_on, to_batch
from core.network.feature_maps import FeatureMaps
from core.network.mixture import FOREST
from core.network.pixels import NumberRange, PixelStatistics, standardise
from core.network.quick import QuickLearners, ask_on_device

CPU = torch.device("cpu")


def noise(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


def grow(n_channels: int, n_trees: int = 3) -> Forest:
    rows = pixel_features(noise((32, 32, n_channels))).reshape(-1, count_features(n_channels))
    labels = (rows[:, 0] > 0).astype(np.uint8) + (rows[:, 9] > 0.6)
    return train_forest(rows, labels.astype(np.uint8), 3, 1, n_trees=n_trees)


@pytest.mark.parametrize("shape", [(64, 96), (33, 43)])
@pytest.mark.parametrize("n_channels", [1, 3])
def test_features_as_tensors_are_those_of_the_compiled_loops(shape: tuple[int, int], n_channels: int) -> None:
    image = noise((*shape, n_channels))
    expected = pixel_features(image)
    found = features_of_pixels(torch.from_numpy(image).permute(2, 0, 1)[None])
    np.testing.assert_allclose(found.permute(1, 2, 0).numpy(), expected, atol=2e-5)


def test_equal_features_get_equal_votes_however_many_walk_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_forest, "PIXELS_AT_ONCE", 100)
    forest, rows = grow(1, 9), pixel_features(noise((31, 17, 1), 4)).reshape(-1, count_features(1))
    found = TensorForest(forest, CPU).probabilities(torch.from_numpy(rows.T))
    np.testing.assert_allclose(found.T.numpy(), forest.probabilities(rows), atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (6, 7), (31, 40)])
def test_between_asked_pixels_tensors_say_what_the_forest_map_says(shape: tuple[int, int]) -> None:
    forest = grow(1)
    rows = pixel_features(noise((*shape, 1), 5))
    expected = forest_map(forest, lambda y, x: rows[y, x], shape)
    everywhere = torch.from_numpy(forest.probabilities(rows.reshape(-1, rows.shape[2])).reshape(*shape, -1))
    everywhere = everywhere.permute(2, 0, 1)
    mean, settled = between_neighbours(everywhere[:, ::2, ::2], shape)
    assert (torch.where(settled, mean, everywhere).permute(1, 2, 0).numpy() == expected).all()
    planes = torch.from_numpy(rows).permute(2, 0, 1)
    np.testing.assert_allclose(
        map_forest(TensorForest(forest, CPU), planes, shape).permute(1, 2, 0).numpy(), expected, atol=1e-6
    )


def test_a_forest_that_counts_little_is_asked_as_seldom_on_a_device() -> None:
    rows, forest = pixel_features(noise((31, 40, 1), 5)), grow(1)
    expected = forest_map(forest, lambda y, x: rows[y, x], (31, 40), weight=0.1)
    planes = torch.from_numpy(rows).permute(2, 0, 1)
    found = map_forest(TensorForest(forest, CPU), planes, (31, 40), weight=0.1)
    np.testing.assert_allclose(found.permute(1, 2, 0).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("window", [(slice(0, 200), slice(0, 300)), (slice(64, 130), slice(32, 290))])
def test_a_part_of_an_image_is_answered_on_a_device_as_by_the_loops(
    window: tuple[slice, slice], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quick, "FOREST_TILE_PX", 48)
    image = (noise((200, 300, 3), 2) * 40 + 100).clip(0, 255).astype(np.uint8)
    statistics, forest = PixelStatistics((100.0,) * 3, (40.0,) * 3), grow(3, 8)
    loops = QuickLearners({FOREST: forest.to_tensors()}, FeatureMaps(statistics), 1)
    found = ask_on_device(TensorForest(forest, CPU), statistics, image, window, CPU)
    expected = loops.logits(FOREST, image, window)
    assert found.shape == expected.shape
    # Where a feature meets a threshold but for rounding, a tree votes otherwise.
    assert ((found - expected).abs() > 1e-4).float().mean() < 2e-3


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("n_channels", [1, 3, 4])
def test_an_image_is_standardised_on_its_device_as_by_numpy(kind: type, n_channels: int) -> None:
    image = (np.random.default_rng(0).random((33, 41, n_channels)) * 250).astype(kind)
    ranges = tuple(NumberRange(k, (0.0,) * 3, (s,) * 3) for k, s in (("uint8", 200.0), ("uint16", 4e3)))
    statistics = PixelStatistics((90.0,) * 3, (40.0,) * 3, ranges)
    found = standardise_on(CPU, image, statistics)
    assert np.array_equal(found[0].permute(1, 2, 0).numpy(), standardise(image, statistics))


def test_a_device_continues_an_image_as_opencv_does() -> None:
    image = np.random.default_rng(0).integers(0, 255, (3, 41, 1), np.uint8)
    statistics = PixelStatistics((90.0,), (40.0,))
    meta = to_batch(image, statistics, 32, torch.device("meta"))
    assert meta.shape == (1, 1, 32, 64)
