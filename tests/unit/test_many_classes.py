"""What a first round learns of a rare class, of several classes, and of phases without any Background."""

from __future__ import annotations

import time
from collections.abc import Mapping

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from core.asking.suggestion import build_suggestion
from core.network.checkpoint import Checkpoint
from core.network.predict import Predictor
from core.objects.of_prediction import separated_objects
from core.rounds import Example, ExampleSummary, RoundSettings
from core.schema import IGNORE_INDEX, LabelSchema
from core.training.metrics import count_pixels, dice
from core.training.recipe import Recipe
from core.training.trainer import train_round
from core.truth.holdout import summarise

SIDE = 96
SMALL = Recipe(patch_px=64, batch_size=6)

Picture = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""Image `(H, W, 1)` and its true label map."""


class Painted:
    """Images in memory as an `ExampleSource`, without a hold-out."""

    def __init__(self, schema: LabelSchema, examples: Mapping[str, Example]) -> None:
        self.schema, self.examples = schema, examples

    def summaries(self) -> list[ExampleSummary]:
        return [
            summarise(key, example.train_map, example.held_out_map, self.schema, is_new=True)
            for key, example in self.examples.items()
        ]

    def open(self, key: str) -> Example:
        return self.examples[key]


def _painted(schema: LabelSchema, pictures: list[Picture]) -> Painted:
    """Each image painted on its left three quarters."""
    examples = {}
    for number, (image, truth) in enumerate(pictures):
        train = truth.copy()
        train[:, SIDE * 3 // 4 :] = IGNORE_INDEX
        examples[f"{number}"] = Example(f"{number}", image, train, np.full_like(truth, IGNORE_INDEX))
    return Painted(schema, examples)


def _learn(schema: LabelSchema, pictures: list[Picture], n_steps: int) -> Checkpoint:
    settings = RoundSettings(max_steps=n_steps, n_threads=1, learners=("network",))
    source = _painted(schema, pictures)
    return train_round(source, schema, None, settings, now=time.perf_counter, recipe=SMALL).checkpoint


def _noisy(tones: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.uint8]:
    image = cv2.GaussianBlur(tones, (0, 0), 0.8) + rng.normal(0, 6, tones.shape)
    return np.clip(image, 0, 255).astype(np.uint8)[..., None]


def _discs_with_a_rare_kind(rng: np.random.Generator) -> Picture:
    """Dim discs everywhere, and one small bright one: about 1 % of the pixels."""
    truth = np.zeros((SIDE, SIDE), np.uint8)
    for row in (16, 48, 80):
        for column in (16, 48, 80):
            cv2.circle(truth, (column + int(rng.integers(-4, 5)), row), 9, 1, -1)
    for column in (33, 64):
        cv2.circle(truth, (column, int(rng.integers(20, 76))), 4, 2, -1)
    return _noisy(np.array([30.0, 110.0, 220.0])[truth], rng), truth


def _two_phases(rng: np.random.Generator) -> Picture:
    field = cv2.GaussianBlur(rng.standard_normal((SIDE, SIDE)), (0, 0), 8)
    truth = (field > 0).astype(np.uint8)
    return _noisy(np.array([70.0, 150.0])[truth], rng), truth


@pytest.mark.slow(about_s=30)
def test_a_class_of_one_percent_of_the_pixels_is_learnt_beside_a_common_one() -> None:
    schema, rng = LabelSchema.of("Background", "Cell", "Crystal"), np.random.default_rng(0)
    pictures = [_discs_with_a_rare_kind(rng) for _ in range(4)]
    assert np.mean([truth == 2 for _, truth in pictures]) < 0.012
    checkpoint = _learn(schema, pictures, 120)
    image, truth = _discs_with_a_rare_kind(rng)
    prediction = Predictor(checkpoint, 1).predict(image)
    scores = dice(count_pixels(prediction.label_map, truth, 3))
    assert scores.min() > 0.8, scores
    assert separated_objects(prediction, schema, checkpoint.limits).max() == 11


def test_two_phases_without_background_are_learnt_and_sent_as_they_are() -> None:
    schema, rng = LabelSchema.of("Ferrite", "Pearlite"), np.random.default_rng(1)
    assert schema.background_index is None
    pictures = [_two_phases(rng) for _ in range(3)]
    checkpoint = _learn(schema, pictures, 40)
    image, truth = _two_phases(rng)
    prediction = Predictor(checkpoint, 1).predict(image)
    assert dice(count_pixels(prediction.label_map, truth, 2)).min() > 0.9
    suggestion = build_suggestion(prediction, schema, np.zeros(truth.shape, bool), checkpoint.limits)
    assert {mask.class_index for mask in suggestion.masks} == {0, 1}
    covered = sum(int(mask.mask.sum()) for mask in suggestion.masks)
    assert covered > 0.9 * truth.size  # no line is carved between phases
