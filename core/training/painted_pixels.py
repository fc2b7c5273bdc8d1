"""Painted pixels of the opened images, drawn for the quick learners."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.learners.forest_growth import FEWEST_PIXELS_PER_CLASS
from core.training.sampling import OpenExample

MOST_POSITIONS = 200_000
"""Painted pixels that are drawn at all, as evenly among the classes as there are pixels of them."""

MOST_PIXELS = 40_000
"""Pixels that a head learns from, drawn evenly among the classes; 2 kB each while it learns."""

MOST_FOREST_PIXELS, LONG_FOREST_PIXELS = 60_000, 120_000
"""Pixels that a forest is grown from, in the shares in which they were painted; the second number where
nobody waits. 200,000 gained .004 Dice on three sets, and made trees three times as large for each answer."""


SEEN_BEFORE = 0.02
"""Share of a class that counts as met before any image was: a first strip of a class is worth most."""


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
    examples: Sequence[OpenExample], rng: np.random.Generator, limit: int = MOST_POSITIONS
) -> Painted:
    """At most `limit` painted pixels; classes get equal parts as far as they have so many."""
    parts: dict[int, list[tuple[int, NDArray[np.int64]]]] = {}
    for index, opened in enumerate(examples):
        for label, positions in opened.painted.items():
            parts.setdefault(label, []).append((index, positions))
    quotas = _share_evenly({label: sum(len(at) for _, at in found) for label, found in parts.items()}, limit)
    images, places, labels = [], [], []
    for label, quota in quotas.items():
        image = np.concatenate([np.full(len(at), index) for index, at in parts[label]])
        at = np.concatenate([at for _, at in parts[label]])
        chosen = rng.permutation(len(at))[:quota]
        images.append(image[chosen])
        places.append(at[chosen])
        labels.append(np.full(len(chosen), label, np.uint8))
    return Painted(np.concatenate(images), np.concatenate(places), np.concatenate(labels))


def draw_evenly(
    labels: NDArray[np.uint8], rng: np.random.Generator, limit: int = MOST_PIXELS
) -> NDArray[np.intp]:
    """Indices of at most `limit` pixels, in order; classes get equal parts as far as they have so many.

    Examples
    --------
    >>> labels = np.repeat(np.array([0, 1], np.uint8), [9000, 600])
    >>> np.bincount(labels[draw_evenly(labels, np.random.default_rng(0), 2000)])
    array([1400,  600])
    """
    found, counts = np.unique(labels, return_counts=True)
    quotas = _share_evenly(dict(zip(found.tolist(), counts.tolist(), strict=True)), limit)
    drawn = [rng.permutation(np.flatnonzero(labels == label))[:quota] for label, quota in quotas.items()]
    return np.sort(np.concatenate([np.zeros(0, np.intp), *drawn]))


def _share_evenly(sizes: Mapping[int, int], limit: int) -> dict[int, int]:
    """Pixels of each class, the rarest first: what one cannot fill of its part goes to the next ones."""
    quotas: dict[int, int] = {}
    for n_done, label in enumerate(sorted(sizes, key=lambda name: (sizes[name], name))):
        part = (limit - sum(quotas.values())) // (len(sizes) - n_done)
        quotas[label] = min(sizes[label], part)
    return quotas


def draw_as_painted(
    labels: NDArray[np.uint8],
    class_pixels: Sequence[int],
    rng: np.random.Generator,
    limit: int = MOST_FOREST_PIXELS,
) -> NDArray[np.intp]:
    """Indices of about `limit` pixels, in order, in which classes have the shares that were painted of them.

    A forest that sees all classes equally often answers rare ones too often: .02 Dice where grey values
    decide; `core.learners.forest_growth` weighs them half way. Each class gets `FEWEST_PIXELS_PER_CLASS`
    where it has them.

    Examples
    --------
    >>> labels = np.repeat(np.array([0, 1], np.uint8), 5000)
    >>> np.bincount(labels[draw_as_painted(labels, [90_000, 10_000], np.random.default_rng(0), 5000)])
    array([4500,  500])
    """
    shares = np.asarray(class_pixels, float) / max(sum(class_pixels), 1)
    quotas = np.maximum(np.ceil(shares * limit), FEWEST_PIXELS_PER_CLASS).astype(int)
    drawn = [rng.permutation(np.flatnonzero(labels == label))[: quotas[label]] for label in np.unique(labels)]
    return np.sort(np.concatenate([np.zeros(0, np.intp), *drawn]))


def visiting_order(painted: Painted, rng: np.random.Generator) -> NDArray[np.intp]:
    """The images with painted pixels, those first that show most of what the ones before them showed least.

    Where the time ends, it ends after some of the images: no class may be missing then, not even one that a
    single image shows.

    Examples
    --------
    >>> image, labels = np.array([0, 1, 2, 3]), np.array([0, 0, 0, 1], np.uint8)
    >>> painted = Painted(image, np.zeros((4, 2), np.int64), labels)
    >>> 3 in visiting_order(painted, np.random.default_rng(0))[:2]
    True
    """
    images, rows = np.unique(painted.image, return_inverse=True)
    classes, columns = np.unique(painted.labels, return_inverse=True)
    shares = np.zeros((len(images), len(classes)))
    np.add.at(shares, (rows, columns), 1.0)
    shares /= np.maximum(shares.sum(0), 1)
    left = list(rng.permutation(len(images)))
    covered = np.full(len(classes), SEEN_BEFORE)
    order = []
    while left:
        best = left.pop(int((shares[left] / covered).sum(1).argmax()))
        covered += shares[best]
        order.append(best)
    return np.asarray(images[order])
