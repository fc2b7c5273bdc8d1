"""Painted pixels of the opened images, drawn for the quick learners."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.learners.forest import FEWEST_PIXELS_PER_CLASS
from core.training.sampling import OpenExample

MOST_PIXELS = 40_000
"""Painted pixels that a head learns from, drawn evenly among the classes; 2 kB each while it learns."""

MOST_FOREST_PIXELS = 20_000
"""Pixels that a forest is grown from, in the shares in which they were painted."""


@dataclass(frozen=True)
class Painted:
    """Painted pixels of the opened images: the index of the image, row and column, and class, each `(n,)`."""

    image: NDArray[np.intp]
    at: NDArray[np.int64]
    labels: NDArray[np.uint8]

    def __getitem__(self, chosen: NDArray[Any]) -> Painted:
        return Painted(self.image[chosen], self.at[chosen], self.labels[chosen])

    def __len__(self) -> int:
        return len(self.labels)


def draw_painted(
    examples: Sequence[OpenExample], rng: np.random.Generator, limit: int = MOST_PIXELS
) -> Painted:
    """At most `limit` painted pixels; classes get equal parts as far as they have so many."""
    parts: dict[int, list[tuple[int, NDArray[np.int64]]]] = {}
    for index, opened in enumerate(examples):
        for label, positions in opened.by_class.items():
            parts.setdefault(label, []).append((index, positions))
    sizes = {label: sum(len(at) for _, at in found) for label, found in parts.items()}
    images, places, labels = [], [], []
    left = limit
    for n_done, label in enumerate(sorted(sizes, key=lambda name: (sizes[name], name))):  # the rarest first
        image = np.concatenate([np.full(len(at), index) for index, at in parts[label]])
        at = np.concatenate([at for _, at in parts[label]])
        # What a rare class cannot fill of its part goes to the more frequent ones.
        chosen = rng.permutation(len(at))[: left // (len(sizes) - n_done)]
        left -= len(chosen)
        images.append(image[chosen])
        places.append(at[chosen])
        labels.append(np.full(len(chosen), label, np.uint8))
    return Painted(np.concatenate(images), np.concatenate(places), np.concatenate(labels))


def draw_as_painted(
    labels: NDArray[np.uint8],
    class_pixels: Sequence[int],
    rng: np.random.Generator,
    limit: int = MOST_FOREST_PIXELS,
) -> NDArray[np.intp]:
    """Indices of about `limit` pixels, in order, in which classes have the shares that were painted of them.

    A forest that sees all classes equally often answers rare ones too often: .02 Dice where grey values
    decide. Each class gets `FEWEST_PIXELS_PER_CLASS` where it has them.

    Examples
    --------
    >>> labels = np.repeat(np.array([0, 1], np.uint8), 5000)
    >>> np.bincount(labels[draw_as_painted(labels, [90_000, 10_000], np.random.default_rng(0), 5000)])
    array([4500,  500])
    """
    shares = np.asarray(class_pixels, float) / max(sum(class_pixels), 1)
    quotas = np.maximum(np.ceil(shares * limit), FEWEST_PIXELS_PER_CLASS).astype(int)
    drawn = [rng.permutation(np.flatnonzero(labels == label))[: quotas[label]] for label in np.unique(labels)]
    return np.sort(np.concatenate(drawn))
