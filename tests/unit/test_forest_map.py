"""A forest is asked at every fourth pixel, and everywhere along borders: hardly any answer changes."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from core.learners.forest import Forest
from core.learners.forest_growth import train_forest
from core.learners.forest_map import forest_map
from core.learners.pixel_features import describe_window, features_at
from core.network.feature_maps import FeatureMaps
from core.network.mixture import FOREST
from core.network.pixels import PixelStatistics
from core.network.quick import QuickLearners

SHAPE = (61, 75)


def disc() -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """A bright disc in faint noise, `(61, 75, 1)`, and its label map."""
    rows, columns = np.indices(SHAPE)
    inside = (rows - 30) ** 2 + (columns - 37) ** 2 < 400
    noise = np.random.default_rng(0).normal(0, 0.1, SHAPE)
    return (inside + noise)[..., np.newaxis].astype(np.float32), inside.astype(np.uint8)


@pytest.fixture(scope="module")
def forest() -> Forest:
    image, label_map = disc()
    rows, columns = (part.ravel() for part in np.indices(SHAPE))
    return train_forest(features_at(image, rows, columns), label_map.ravel(), 2, seed=0)


def test_nearly_every_answer_is_that_of_asking_everywhere(forest: Forest) -> None:
    image, _ = disc()
    window = (slice(3, 60), slice(5, 74))
    rows, columns = (part.ravel() for part in np.mgrid[window])
    everywhere = forest.probabilities(features_at(image, rows, columns)).reshape(57, 69, 2)
    found = forest_map(forest, describe_window(image, window), (57, 69))
    assert (found.argmax(-1) != everywhere.argmax(-1)).mean() < 0.002
    assert np.array_equal(found[::2, ::2], everywhere[::2, ::2])
    assert np.allclose(found.sum(-1), 1, atol=1e-5)


def test_few_pixels_are_asked_in_even_areas_and_most_along_borders(forest: Forest) -> None:
    image, label_map = disc()
    describe = describe_window(image, (slice(0, SHAPE[0]), slice(0, SHAPE[1])))
    asked = np.zeros(SHAPE, bool)

    def watch(rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.float32]:
        asked[rows, columns] = True
        return describe(rows, columns)

    forest_map(forest, watch, SHAPE)
    border = label_map[:, 1:] != label_map[:, :-1]
    assert asked[:, 1:][border].mean() > 0.8
    assert asked.mean() < 0.5


def test_a_forest_that_counts_little_is_asked_at_every_fourth_pixel(forest: Forest) -> None:
    image, _ = disc()
    describe = describe_window(image, (slice(0, SHAPE[0]), slice(0, SHAPE[1])))
    n_asked: list[int] = []

    def watch(rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.float32]:
        n_asked.append(len(rows))
        return describe(rows, columns)

    found = forest_map(forest, watch, SHAPE, weight=0.1)
    assert n_asked == [31 * 38]
    often = forest_map(forest, describe, SHAPE, weight=0.3)
    assert np.array_equal(found[::2, ::2], often[::2, ::2])
    assert np.allclose(found.sum(-1), 1, atol=1e-5)
    assert (found.argmax(-1) != often.argmax(-1)).mean() < 0.02


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (7, 2), (2, 2)])
def test_parts_of_any_size_are_answered(forest: Forest, shape: tuple[int, int]) -> None:
    image, _ = disc()
    describe = describe_window(image, (slice(9, 9 + shape[0]), slice(8, 8 + shape[1])))
    found = forest_map(forest, describe, shape)
    assert found.shape == (*shape, 2)
    assert np.isfinite(found).all()


def test_a_window_has_the_features_of_the_whole_image() -> None:
    image = np.random.default_rng(1).normal(size=(300, 290, 2)).astype(np.float32)
    rows, columns = np.array([0, 4, 29, 7]), np.array([3, 0, 15, 39])
    describe = describe_window(image, (slice(141, 171), slice(122, 162)))
    assert np.allclose(describe(rows, columns), features_at(image, rows + 141, columns + 122), atol=1e-5)


@pytest.mark.parametrize("cut", [(20, 40), (60, 2)])
def test_parts_of_an_image_are_answered_as_the_whole_is(forest: Forest, cut: tuple[int, int]) -> None:
    image, _ = disc()
    whole = forest_map(forest, describe_window(image, (slice(0, 61), slice(0, 75))), SHAPE)
    for rows in (slice(0, cut[0]), slice(cut[0], 61)):
        for columns in (slice(0, cut[1]), slice(cut[1], 75)):
            describe = describe_window(image, (rows, columns))
            shape = rows.stop - rows.start, columns.stop - columns.start
            part = forest_map(forest, describe, shape, (rows.stop < 61, columns.stop < 75))
            assert np.array_equal(part, whole[rows, columns])


def test_an_answer_does_not_depend_on_how_many_threads_give_it(forest: Forest) -> None:
    image = (disc()[0] * 100).clip(0, 255).astype(np.uint8)
    maps, window = FeatureMaps(PixelStatistics((0.0,), (100.0,))), (slice(0, 61), slice(0, 75))
    one, three = (QuickLearners({FOREST: forest.to_tensors()}, maps, n) for n in (1, 3))
    assert np.array_equal(one.logits(FOREST, image, window), three.logits(FOREST, image, window))
