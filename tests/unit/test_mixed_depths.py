"""Images of one kind of scene in files of several depths are one project, and the model knows them all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from core.learners.forest_growth import train_forest
from core.learners.pixel_features import features_at
from core.network.checkpoint import Checkpoint
from core.network.pixels import (
    NumberRange,
    PixelStatistics,
    measure_pixels,
    measure_ranges,
    standardise,
)
from core.network.predict import Predictor
from core.rounds import Example, ExampleSummary, RoundSettings
from core.schema import IGNORE_INDEX, LabelSchema
from core.training.beginning import meet
from core.training.recipe import Recipe
from core.training.sampling import open_positions
from core.training.trainer import train_round

SIDE = 64
SCHEMA = LabelSchema.of("Background", "Nucleus")
TINY = Recipe(widths=(6, 8), patch_px=32, batch_size=4, peak_rate=1e-2, base_rate=1e-2, warm_rate=1e-3)

Depth = Callable[[NDArray[np.float64]], NDArray[Any]]
DEPTHS: dict[str, Depth] = {
    "8": lambda scene: (scene * 255).astype(np.uint8),
    "16": lambda scene: (scene * 65535).astype(np.uint16),
    "12 in 16": lambda scene: (scene * 4095).astype(np.uint16),
    "another exposure": lambda scene: (400 + scene * 1800).astype(np.uint16),
}


def scene(seed: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Three bright discs `(H, W, 1)` in 0..1 on darker ground, and where they are."""
    rng = np.random.default_rng(seed)
    values, discs = rng.normal(0.25, 0.03, (SIDE, SIDE)), np.zeros((SIDE, SIDE), bool)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    for row, column in rng.uniform(10, SIDE - 10, (3, 2)):
        discs |= (rows - row) ** 2 + (columns - column) ** 2 < 49
    values[discs] = rng.normal(0.7, 0.03, discs.sum())
    return values.clip(0, 1)[..., np.newaxis], discs


def example(seed: int, depth: str) -> Example:
    values, discs = scene(seed)
    nothing = np.full((SIDE, SIDE), IGNORE_INDEX, np.uint8)
    return Example(f"{seed}", DEPTHS[depth](values), discs.astype(np.uint8), nothing)


class Painted:
    """Painted examples as an `ExampleSource`."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self.examples = {each.key: each for each in examples}

    def summaries(self) -> list[ExampleSummary]:
        counts = {key: np.bincount(each.train_map.ravel()) for key, each in self.examples.items()}
        return [
            ExampleSummary(key, (SIDE, SIDE), tuple(map(int, n)), (0, 0), (0, 3), (0, 0), is_new=False)
            for key, n in counts.items()
        ]

    def open(self, key: str) -> Example:
        return self.examples[key]


def train(examples: Sequence[Example], start: Checkpoint | None = None, max_steps: int = 60) -> Checkpoint:
    settings = RoundSettings(max_steps=max_steps, n_threads=1)
    ticks = count(0, 0.01)
    source = Painted(examples)
    return train_round(source, SCHEMA, start, settings, now=lambda: next(ticks), recipe=TINY).checkpoint


def dice(checkpoint: Checkpoint, depth: str) -> float:
    unseen = example(77, depth)
    answer = Predictor(checkpoint, n_threads=1).predict(unseen.image, n_augmentations=1).label_map
    both = ((answer == 1) & (unseen.train_map == 1)).sum()
    return float(2 * both / max(1, (answer == 1).sum() + (unseen.train_map == 1).sum()))


@pytest.mark.parametrize("other", [name for name in DEPTHS if name != "8"])
def test_a_project_of_8_bit_and_deeper_images_is_learnt_in_both(other: str) -> None:
    checkpoint = train([example(seed, "8" if seed < 2 else other) for seed in range(4)])
    assert dice(checkpoint, "8") > 0.95
    assert dice(checkpoint, other) > 0.95


def test_deeper_images_that_come_later_are_learnt_and_the_first_ones_not_forgotten() -> None:
    first = train([example(seed, "8") for seed in range(3)])
    later = train([example(seed, "8" if seed < 3 else "12 in 16") for seed in range(5)], first, max_steps=15)
    assert later.statistics.mean == first.statistics.mean
    assert [r.kind for r in later.statistics.ranges] == ["uint8", "uint16"]
    assert dice(later, "8") > 0.95
    assert dice(later, "12 in 16") > 0.95


def test_sixteen_bit_images_are_answered_before_anybody_painted_in_one() -> None:
    checkpoint = train([example(seed, "8") for seed in range(3)])
    assert dice(checkpoint, "16") == pytest.approx(dice(checkpoint, "8"), abs=0.02)


def test_a_forest_learns_from_both_halves() -> None:
    examples = [example(seed, "8" if seed < 2 else "16") for seed in range(4)]
    statistics = measure_pixels(
        [each.image.reshape(-1, 1) for each in examples],
        1,
        measure_ranges([each.image for each in examples], 1),
    )
    at = np.mgrid[:SIDE, :SIDE].reshape(2, -1)

    def rows(image: NDArray[Any]) -> NDArray[np.float32]:
        return features_at(image, at[0], at[1], lambda piece: standardise(piece, statistics))

    features = np.concatenate([rows(each.image) for each in examples])
    labels = np.concatenate([each.train_map.ravel() for each in examples])
    forest = train_forest(features, labels, 2, seed=0, n_trees=10)
    for depth in ("8", "16"):
        unseen = example(77, depth)
        answer = forest.probabilities(rows(unseen.image)).argmax(1)
        assert (answer == unseen.train_map.ravel()).mean() > 0.98


def test_one_type_alone_is_standardised_as_ever() -> None:
    images = [example(seed, "16").image for seed in range(3)]
    samples = [image.reshape(-1, 1) for image in images]
    with_ranges = measure_pixels(samples, 1, measure_ranges(images, 1))
    plain = measure_pixels(samples, 1)
    assert (with_ranges.mean, with_ranges.std) == (plain.mean, plain.std)
    assert np.array_equal(standardise(images[0], with_ranges), standardise(images[0], plain))


def test_a_model_from_before_ranges_were_kept_answers_as_before() -> None:
    old = PixelStatistics((100.0,), (50.0,))
    image = np.full((2, 2, 1), 300, np.uint16)
    assert (standardise(image, old) == 4).all()


def test_the_same_scene_is_standardised_alike_in_every_depth() -> None:
    values, _ = scene(3)
    images = [DEPTHS["8"](values), DEPTHS["12 in 16"](values)]
    ranges = measure_ranges(images, 1)
    statistics = measure_pixels([image.reshape(-1, 1) for image in images], 1, ranges)
    assert np.allclose(*(standardise(image, statistics) for image in images), atol=0.05)


def test_colours_of_another_depth_keep_their_proportions() -> None:
    colour = np.random.default_rng(0).integers(0, 200, (40, 40, 3), np.uint8) // np.array([1, 2, 4], np.uint8)
    deep = colour.astype(np.uint16) * 16
    ranges = measure_ranges([colour, deep], 3)
    assert all(len(set(r.span)) == len(set(r.low)) == 1 for r in ranges)
    statistics = measure_pixels([colour.reshape(-1, 3), deep.reshape(-1, 3)], 3, ranges)
    assert np.allclose(standardise(colour, statistics), standardise(deep, statistics), atol=1e-3)


def test_an_even_image_makes_no_range_of_zero() -> None:
    [found] = measure_ranges([np.full((9, 9, 2), 7, np.uint8)], 2)
    assert found.span == (1.0, 1.0)


def test_the_type_of_most_images_gives_the_unit() -> None:
    images = [example(0, "16").image, example(1, "8").image, example(2, "8").image]
    assert [r.kind for r in measure_ranges(images, 1)] == ["uint8", "uint16"]


def test_an_old_model_of_mixed_depths_keeps_the_unit_that_it_learnt_in() -> None:
    opened = [
        open_positions(example(seed, depth), True, np.random.default_rng(0))
        for seed, depth in enumerate(["8", "8", "16"])
    ]
    met = meet(PixelStatistics((9000.0,), (12_000.0,)), opened, 1)
    assert (met.mean, met.std) == ((9000.0,), (12_000.0,))
    assert [r.kind for r in met.ranges] == ["uint16", "uint8"]


def test_ranges_grow_with_the_channels() -> None:
    colour = Example(
        "c",
        np.random.default_rng(0).integers(0, 99, (SIDE, SIDE, 4), np.uint8),
        *[np.zeros((SIDE, SIDE), np.uint8)] * 2,
    )
    opened = [open_positions(replace(colour), True, np.random.default_rng(0))]
    deep = NumberRange("uint16", (1.0, 2.0), (3.0, 4.0))
    known = PixelStatistics((0.0, 0.0), (1.0, 1.0), (NumberRange("uint8", (0.0, 0.0), (9.0, 9.0)), deep))
    met = meet(known, opened, 4)
    assert met.mean[:2] == (0.0, 0.0)
    assert met.ranges[0].span[:2] == (9.0, 9.0)
    assert met.ranges[0].span[2] == pytest.approx(97, abs=3)
    assert met.ranges[1] == NumberRange("uint16", (1.0, 2.0, 2.0, 2.0), (3.0, 4.0, 4.0, 4.0))
    grey = PixelStatistics((5.0,), (2.0,), (NumberRange("uint8", (1.0,), (9.0,)),))
    assert meet(grey, opened, 4) == PixelStatistics(
        (5.0,) * 4, (2.0,) * 4, (NumberRange("uint8", (1.0,) * 4, (9.0,) * 4),)
    )


def test_ranges_of_another_number_of_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="1 channels"):
        PixelStatistics((0.0,), (1.0,), (NumberRange("uint8", (0.0, 0.0), (1.0, 1.0)),))
