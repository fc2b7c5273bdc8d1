"""The learner of rounds of swaths: the quick learners' head, on encoder's maps that are computed once.

It starts from nothing in every round, as the service's does. Pixel statistics are those of the whole pool
from the start, and no exposures are borrowed, so that the maps of an image serve all rounds, arms and seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.domain_sets import MappedImage
from core.network import uncertainty
from core.network.encoder import STRIDE
from core.network.feature_maps import FeatureMaps
from core.network.head import Head, hypercolumns, train_head
from core.network.map_stores import KeptInMemory
from core.network.pixels import PixelStatistics, measure_pixels
from core.prediction import Prediction
from core.rounds import Example
from core.schema import IGNORE_INDEX, LabelSchema
from core.training.metrics import FALSE_NEGATIVE, TRUE_POSITIVE, count_pixels, dice
from core.training.painted_pixels import draw_painted
from core.training.sampling import open_positions

MOST_PIXELS = 12_000
"""Painted pixels of one round: drawn evenly among the classes, as the draft's 40,000 are."""

SAMPLED_STEP = 7
"""Statistics are those of each seventh pixel in each direction."""

MAPS_BYTES = 2_000_000_000


class Encoded:
    """The encoder's maps of the images of one set, by name; each is computed when it is first asked for."""

    def __init__(self, images: Sequence[MappedImage]) -> None:
        self._images = {one.name: one.image for one in images}
        self._maps = FeatureMaps(_statistics(images), KeptInMemory(MAPS_BYTES))
        self._kept: dict[str, list[Tensor]] = {}

    def of(self, name: str) -> list[Tensor]:
        if name not in self._kept:
            image = self._images[name]
            height, width = (-(-size // STRIDE) * STRIDE for size in image.shape[:2])
            self._kept[name] = self._maps.window(image, (slice(0, height), slice(0, width)))
        return self._kept[name]

    def embedding(self, name: str) -> NDArray[np.float64]:
        """What an image looks like: the mean of its deepest map, of length 1."""
        mean = self.of(name)[-1].double().mean((1, 2)).numpy()
        return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-9))


def learn(
    painted: Mapping[str, NDArray[np.uint8]],
    encoded: Encoded,
    schema: LabelSchema,
    n_steps: int,
    rng: np.random.Generator,
) -> Head:
    """Train a head from partial label maps `(H, W)` uint8 by image name, as a draft does."""
    names = sorted(name for name, label_map in painted.items() if (label_map != IGNORE_INDEX).any())
    opened = []
    for name in names:
        nothing = np.full_like(painted[name], IGNORE_INDEX)
        opened.append(
            open_positions(Example(name, painted[name][..., None], painted[name], nothing), True, rng)
        )
    drawn = draw_painted(opened, rng, MOST_PIXELS)
    rows, labels = [], []
    for index, name in enumerate(names):
        own = drawn.image == index
        if own.any():
            rows.append(hypercolumns(encoded.of(name), drawn.at[own, 0], drawn.at[own, 1]))
            labels.append(drawn.labels[own])
    return train_head(
        torch.cat(rows), np.concatenate(labels), len(schema), rng, lambda steps: steps / n_steps
    )


def look_at(head: Head, encoded: Encoded, image: MappedImage) -> Prediction:
    """What the head says of an image, with all that an acquisition may want to know."""
    height, width = image.label_map.shape
    with torch.inference_mode():
        logits = head.logits_of_maps(encoded.of(image.name))[:, :height, :width]
        mean = torch.softmax(logits, dim=0)
        best = mean.topk(min(2, len(mean)), dim=0)
        doubt = uncertainty.predictive_entropy(mean[None]).numpy().astype(np.float16)
        margin = uncertainty.margin(mean[None]).numpy().astype(np.float16)
    return Prediction(
        best.indices[0].numpy().astype(np.uint8),
        best.indices[-1].numpy().astype(np.uint8),
        best.values[0].numpy().astype(np.float16),
        doubt,
        doubt,
        np.zeros_like(doubt),
        margin,
    )


def macro_dice(head: Head, encoded: Encoded, judged: Sequence[MappedImage], schema: LabelSchema) -> float:
    """Mean Dice of the classes that the truth of all these images together holds."""
    counts = np.sum(
        [count_pixels(look_at(head, encoded, one).label_map, one.label_map, len(schema)) for one in judged],
        axis=0,
    )
    held = counts[:, TRUE_POSITIVE] + counts[:, FALSE_NEGATIVE] > 0
    return float(np.nan_to_num(dice(counts)[held]).mean())


def _statistics(images: Sequence[MappedImage]) -> PixelStatistics:
    n_channels = max(one.image.shape[2] for one in images)
    samples = [one.image[::SAMPLED_STEP, ::SAMPLED_STEP].reshape(-1, n_channels) for one in images]
    return measure_pixels(samples, n_channels)
