"""Between an image and its bytes an answer stays on its device.

torch's device `meta` computes shapes alone, on any machine, and refuses what lies elsewhere, as a GPU does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.domain_learners import learn_round
from bench.domain_sets import load_domains
from bench.gpu import count_all
from bench.swaths import paint_swaths
from core.learners.tensor_features import features_of_pixels
from core.network import predict, tile_answers
from core.network.batch import standardise_on
from core.network.device import Compute
from core.network.encoder import load_encoder
from core.network.pixels import PixelStatistics
from core.network.predict import Predictor
from core.rounds import RoundSettings
from core.tiles import Slices

META = torch.device("meta")


class NoMean:
    """Stands for the mean of an image's features, which is a number on the processor."""

    def add(self, deepest: Tensor, core: Slices, width_px: int) -> None:
        assert deepest.device == META

    def embedding(self) -> None:
        return None


@pytest.mark.parametrize("n_looks", [1, 4])
def test_network_encoder_head_and_doubt_are_computed_where_the_image_was_sent(
    n_looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    [domain] = load_domains(None, ["drawn_areas"])
    painted = paint_swaths(domain.pool, 20, np.random.default_rng(0))
    settings = RoundSettings(20, 20, max_steps=2, learners=("network", "head"))
    model = count_all(learn_round(painted, domain.schema, settings, 1)[0])
    written: list[tuple[torch.device, bool]] = []

    def watch(whole: NDArray[Any], core: Slices, part: Tensor) -> None:
        written.append((part.device, part.shape == whole[core].shape))

    monkeypatch.setattr(tile_answers, "_write", watch)
    monkeypatch.setattr(predict, "EmbeddingMean", NoMean)
    image = np.zeros((100, 150, domain.test[0].image.shape[2]), np.uint8)
    Predictor(model, 1, compute=Compute(META)).predict(image, n_augmentations=n_looks)
    assert len(written) == 8
    assert set(written) == {(META, True)}
    assert {parameter.device.type for parameter in load_encoder().parameters()} == {"cpu"}  # all share it


def test_a_forests_features_are_computed_where_the_image_was_sent() -> None:
    image = np.zeros((40, 30, 3), np.uint8)
    found = features_of_pixels(standardise_on(META, image, PixelStatistics((1.0,) * 3, (1.0,) * 3)))
    assert found.device == META
    assert found.shape == (147, 40, 30)
