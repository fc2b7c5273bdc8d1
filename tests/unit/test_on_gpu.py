"""What a GPU says and learns is what the processor does; skipped where torch sees none."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bench.domain_learners import learn_round
from bench.domain_sets import load_domains
from bench.gpu import count_all, tile_up
from bench.swaths import paint_swaths
from core.network.checkpoint import Checkpoint
from core.network.device import choose_compute
from core.network.predict import Predictor
from core.prediction import Prediction
from core.rounds import RoundSettings

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")

SETTINGS = RoundSettings(20, 20, max_steps=60, device="cuda")


@pytest.fixture(scope="module")
def model() -> Checkpoint:
    [domain] = load_domains(None, ["drawn_areas"])
    painted = paint_swaths(domain.pool, 20, np.random.default_rng(0))
    checkpoint, _ = learn_round(painted, domain.schema, SETTINGS, 1)
    return count_all(checkpoint)


def both(model: Checkpoint, image: NDArray[np.uint8], n_looks: int) -> Sequence[Prediction]:
    return [
        Predictor(model, compute=choose_compute(device)).predict(image, n_augmentations=n_looks)
        for device in ("cpu", "cuda")
    ]


@pytest.mark.parametrize("n_looks", [1, 4])
@pytest.mark.parametrize("side", [100, 700])
def test_answers_are_those_of_the_processor(model: Checkpoint, n_looks: int, side: int) -> None:
    [domain] = load_domains(None, ["drawn_areas"])
    image = tile_up([one.image for one in domain.test], side)[: side - 13]
    one, other = both(model, image, n_looks)
    assert (one.label_map == other.label_map).mean() > 0.995
    assert np.abs(one.confidence.astype(float) - other.confidence).mean() < 0.01
    assert np.abs(one.mutual_information.astype(float) - other.mutual_information).mean() < 0.01
    assert one.embedding is not None
    assert float(one.embedding.astype(float) @ other.embedding.astype(float)) > 0.99  # type: ignore[union-attr]


def test_a_round_on_a_gpu_learns_what_one_on_the_processor_does(model: Checkpoint) -> None:
    [domain] = load_domains(None, ["drawn_areas"])
    found = []
    for one in domain.test:
        answer = Predictor(model, compute=choose_compute("cuda")).predict(one.image, n_augmentations=1)
        known = one.label_map != 255
        found.append((answer.label_map[known] == one.label_map[known]).mean())
    assert np.mean(found) > 0.8


def test_a_round_on_a_gpu_obeys_its_budget() -> None:
    [domain] = load_domains(None, ["drawn_areas"])
    painted = paint_swaths(domain.pool, 20, np.random.default_rng(0))
    began = time.monotonic()
    learn_round(painted, domain.schema, RoundSettings(6, 6, device="cuda"), 1)
    assert time.monotonic() - began < 12
