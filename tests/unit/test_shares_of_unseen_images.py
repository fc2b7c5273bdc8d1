"""What learners say of images that they did not see decides among the quick ones, beside a hold-out too."""

from __future__ import annotations

import numpy as np
import pytest

from core.network.mixture import FOREST, HEAD, NETWORK, Share
from core.training.candidate import Judges, find_shares
from core.training.evaluation import HeldOutBlock
from core.training.folds import HeldBack

N = 2500
LABELS = np.random.default_rng(0).integers(0, 2, N).astype(np.uint8)
TRUTH = np.eye(2, dtype=np.float32)[LABELS]


def says(strength: float, seed: int) -> np.ndarray:
    return (TRUTH * strength + np.random.default_rng(seed).normal(size=TRUTH.shape)).astype(np.float32)


def blocks() -> list[HeldOutBlock]:
    image = np.zeros((50, 50, 1), np.uint8)
    window = (slice(0, 50), slice(0, 50))
    return [HeldOutBlock("a", image, LABELS.reshape(50, 50), image, window)]


HOLD_OUT = {NETWORK: says(3, 1), HEAD: says(3, 2), FOREST: says(3, 3)}
"""In the images that they saw the rest of, all are equally good."""

ELSEWHERE = HeldBack({HEAD: says(0, 4), FOREST: says(3, 5)}, LABELS)
"""Of an image that they did not see the head knows nothing."""


def find(names: tuple[str, ...], elsewhere: HeldBack | None) -> dict[str, Share]:
    logits = {name: HOLD_OUT[name] for name in names}
    return find_shares(names, logits, Judges(blocks(), elsewhere), np.random.default_rng(1))[0]


def test_a_learner_that_fails_on_another_image_loses_weight_though_the_hold_out_likes_it() -> None:
    before, now = find((HEAD, FOREST), None), find((HEAD, FOREST), ELSEWHERE)
    assert before[HEAD].weight == pytest.approx(0.5, abs=0.15)
    assert now[HEAD].weight < before[HEAD].weight / 2
    assert sum(share.weight for share in now.values()) == pytest.approx(1)


def test_the_network_keeps_what_the_hold_out_gives_it() -> None:
    names = (NETWORK, HEAD, FOREST)
    before, now = find(names, None), find(names, ELSEWHERE)
    assert now[NETWORK] == before[NETWORK]
    assert now[HEAD].weight < before[HEAD].weight / 2
    assert sum(share.weight for share in now.values()) == pytest.approx(1)
