"""Acquisition functions: what is most uncertain comes first, noise fades, chance is fair."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from core.asking.acquisition import entropy, rank_in_turns
from core.asking.regions import Region, choose_regions, find_candidates, propose_regions
from core.painting import Mask
from core.prediction import Prediction
from core.schema import LabelSchema
from simulation.acquisitions import (
    ACQUISITIONS,
    BY_CHANCE,
    MAPS,
    Acquisition,
    add_power_noise,
    beta_of_round,
    choose_places,
    find_places,
    rank_by_chance,
    rank_class_stratified,
)

SCHEMA = LabelSchema.of("Background", "Nucleus")


def predict(shape: tuple[int, int] = (200, 200), p: float | NDArray[np.float64] = 0.999) -> Prediction:
    """A model that is sure of Background with probability `p`, with half of its entropy from disagreement."""
    sure = np.broadcast_to(np.asarray(p, np.float64), shape)
    nats = -(sure * np.log(sure) + (1 - sure) * np.log(1 - sure))
    labels = np.zeros(shape, np.uint8)
    return Prediction(
        labels,
        labels + np.uint8(1),
        sure.astype(np.float16),
        nats.astype(np.float16),
        (nats / 2).astype(np.float16),
        (nats / 2).astype(np.float16),
        (2 * sure - 1).astype(np.float16),
    )


def ask(name: Acquisition, prediction: Prediction, known: Mask, n: int, seed: int = 0) -> list[Region]:
    rng = np.random.default_rng(seed)
    found = find_places(name, prediction, known, SCHEMA, 24, rng)
    return [found[index] for index in choose_places(name, found, n, rng, beta=1000)]


def unsure_at(row: int, column: int, p: float = 0.55) -> Prediction:
    sure = np.full((200, 200), 0.97)
    sure[row : row + 48, column : column + 48] = p
    return predict(p=sure)


@pytest.mark.parametrize("name", [name for name in ACQUISITIONS if name not in BY_CHANCE])
@pytest.mark.parametrize(("row", "column"), [(4, 148), (100, 52), (148, 4)])
def test_the_most_uncertain_place_really_comes_first(name: Acquisition, row: int, column: int) -> None:
    first, *_ = ask(name, unsure_at(row, column), np.zeros((200, 200), bool), 5)
    assert abs(first.box.top - row) <= 8
    assert abs(first.box.left - column) <= 8


@pytest.mark.parametrize("name", [name for name in ACQUISITIONS if name not in BY_CHANCE])
def test_a_map_is_higher_where_the_model_is_less_sure(name: Acquisition) -> None:
    found = MAPS.get(name, entropy)(predict((1, 3), np.array([[0.5001, 0.8, 0.99]])), 2)
    assert found[0, 0] > found[0, 1] > found[0, 2] >= 0
    assert found.max() <= 1


def test_the_most_uncertain_image_of_many_comes_first() -> None:
    known = np.zeros((200, 200), bool)
    per_image = [find_candidates(unsure_at(60, 60, p), known, SCHEMA, 24) for p in (0.9, 0.55, 0.7)]
    owners = [image for image, found in enumerate(per_image) for _ in found]
    order = choose_regions([region for found in per_image for region in found], 3)
    assert [owners[index] for index in order] == [1, 2, 0]


def test_a_model_that_is_sure_asks_nothing() -> None:
    known = np.zeros((200, 200), bool)
    for p in (0.9999, 0.99):
        assert propose_regions(predict(p=p), known, SCHEMA, 24, 5) == ()
    assert len(propose_regions(predict(p=0.95), known, SCHEMA, 24, 5)) == 5


def test_a_sure_model_asks_about_the_one_place_where_it_is_not() -> None:
    sure = np.full((200, 200), 0.995)
    sure[60:70, 60:75] = 0.6
    (question,) = propose_regions(predict(p=sure), np.zeros((200, 200), bool), SCHEMA, 24, 5)
    assert question.expected_error > 0.02
    assert question.box.top <= 60 < 70 <= question.box.top + question.box.height


def test_chance_asks_a_sure_model_too_and_stays_off_what_is_known() -> None:
    known = np.zeros((200, 200), bool)
    known[:, :100] = True
    for name in sorted(BY_CHANCE):
        found = ask(name, predict(p=0.9999), known, 3)
        assert len(found) == 3
        assert all(region.box.left >= 100 for region in found)


@pytest.mark.parametrize("name", [*sorted(BY_CHANCE), "class-stratified"])
def test_chance_comes_from_the_rng_alone(name: Acquisition) -> None:
    def found(seed: int) -> list[Region]:
        return ask(name, predict(p=0.8), np.zeros((200, 200), bool), 3, seed)

    assert found(1) == found(1)
    if name in BY_CHANCE:
        assert found(1) != found(2)


def test_foreground_aware_chance_takes_its_share_from_predicted_objects() -> None:
    is_foreground = [i < 100 for i in range(1000)]
    rng = np.random.default_rng(0)
    drawn = [rank_by_chance(is_foreground, 10, rng, 0.66) for _ in range(60)]
    share = np.mean([i < 100 for chosen in drawn for i in chosen])
    assert abs(share - (0.66 + 0.34 * 0.1)) < 0.06
    plain = np.mean([i < 100 for _ in range(60) for i in rank_by_chance(is_foreground, 10, rng)])
    assert abs(plain - 0.1) < 0.05


@settings(max_examples=50, deadline=None)
@given(st.lists(st.booleans(), max_size=12), st.integers(0, 15), st.floats(0, 1), st.integers(0, 999))
def test_chance_chooses_each_candidate_at_most_once(
    kinds: list[bool], n: int, share: float, seed: int
) -> None:
    chosen = rank_by_chance(kinds, n, np.random.default_rng(seed), share)
    assert len(set(chosen)) == len(chosen) == min(n, len(kinds))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(1e-6, 1), max_size=12), st.integers(0, 15), st.integers(0, 999))
def test_stratified_ranking_chooses_each_candidate_at_most_once(
    scores: list[float], n: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    chosen = rank_class_stratified(scores, [i % 3 for i in range(len(scores))], n, rng, beta=1.0)
    assert len(set(chosen)) == len(chosen) == min(n, len(scores))


def test_a_rare_class_gets_its_share_of_a_stratified_budget() -> None:
    scores, predicted = [0.9] * 30 + [0.2] * 5, [0] * 30 + [1] * 5
    chosen = rank_class_stratified(scores, predicted, 9, np.random.default_rng(0), beta=100)
    assert sum(predicted[i] == 1 for i in chosen) == 3  # half of two thirds
    assert sum(predicted[i] == 1 for i in rank_in_turns(scores, ["one group"] * 35)[:9]) == 0


def test_noise_fades_over_the_rounds() -> None:
    assert [round(beta_of_round(r, 5), 1) for r in range(5)] == [1.0, 3.2, 10.0, 31.6, 100.0]
    assert beta_of_round(0, 1) == 1.0
    assert beta_of_round(99, 5) == 100.0
    scores = np.array([0.5, 0.45])

    def swaps(beta: float) -> float:
        rng = np.random.default_rng(0)
        return float(np.mean([np.argmax(add_power_noise(scores, rng, beta)) for _ in range(800)]))

    assert abs(swaps(1.0) - 0.45 / 0.95) < 0.05
    assert swaps(100.0) < 0.01


def test_power_noise_draws_in_proportion_to_the_score() -> None:
    rng = np.random.default_rng(3)
    first = [int(np.argmax(add_power_noise([0.1, 0.3, 0.6], rng, 1.0))) for _ in range(3000)]
    assert np.allclose(np.bincount(first) / 3000, [0.1, 0.3, 0.6], atol=0.03)
    assert math.isfinite(add_power_noise(np.zeros(1), rng, 1.0)[0])
