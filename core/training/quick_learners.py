"""Train the quick learners of a round: painted pixels in, a head and a forest out, within seconds.

They start from nothing in every round and see all its images, so nothing is forgotten and nothing lags
behind. What they cost is bounded by the pixels that are drawn, and by the images that a round opens.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.errors import RoundCancelledError
from core.learners.forest import FEWEST_PIXELS_PER_CLASS, train_forest
from core.learners.pixel_features import features_at
from core.network.encoder import N_FEATURES, STRIDE
from core.network.feature_maps import TILE_PX, FeatureMaps
from core.network.head import Head, hypercolumns, train_head
from core.network.mixture import FOREST, HEAD
from core.network.outputs import Weights
from core.network.pixels import conform_channels, standardise
from core.network.quick import forest_logits
from core.training.sampling import OpenExample

MOST_PIXELS = 40_000
"""Painted pixels that a head learns from, drawn evenly among the classes; 2 kB each while it learns."""

MOST_FOREST_PIXELS = 20_000
"""Pixels that a forest is grown from, in the shares in which they were painted."""

HEAD_STEPS = 300
FOLD_STEPS, FOLD_TREES, FOLD_PIXELS = 100, 15, 4_000
"""The learners of a fold only tell how good the real ones are, so a third of the work has to do."""

N_FOLDS = 2

_NO_FEATURES: NDArray[np.float32] = np.zeros((0, 0), np.float32)

Pace = Callable[[], float]
"""The share of the time for quick learners that is spent, 0..1 or more."""


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


@dataclass(frozen=True)
class HeldBack:
    """What learners said, `{name: (n, C)}` logits, of pixels of `n_images` that they did not see."""

    logits: dict[str, NDArray[np.float32]]
    labels: NDArray[np.uint8]
    n_images: int


def train_quick(
    names: Collection[str],
    examples: Sequence[OpenExample],
    n_classes: int,
    maps: FeatureMaps,
    rng: np.random.Generator,
    *,
    class_pixels: Sequence[int],
    pace: Pace,
    should_stop: Callable[[], bool],
    n_threads: int,
    needs_folds: bool,
    n_steps: int = HEAD_STEPS,
) -> tuple[dict[str, Weights], HeldBack | None]:
    """Train the learners `names` among `HEAD` and `FOREST`.

    Parameters
    ----------
    class_pixels : painted pixels per class of the whole project
    needs_folds : bool
        Also find out what such learners say of images that they did not see: for a round without a hold-out.

    Raises
    ------
    RoundCancelledError
        `should_stop` said so.
    """
    painted = draw_painted(examples, rng)
    columns, few = torch.zeros(0, N_FEATURES), _NO_FEATURES
    learners: dict[str, Weights] = {}
    seed = int(rng.integers(2**31))
    if HEAD in names:
        painted, columns = _look(painted, examples, maps, rng, pace, should_stop)
        head = train_head(columns, painted.labels, n_classes, rng, _until(n_steps, pace, should_stop))
        learners[HEAD] = head.to_tensors()
    drawn = draw_as_painted(painted.labels, class_pixels, rng)
    if FOREST in names:
        few = _describe(painted[drawn], examples, maps, n_threads, should_stop)
        labels = painted.labels[drawn]
        learners[FOREST] = train_forest(few, labels, n_classes, seed, n_threads=n_threads).to_tensors()
    if not needs_folds or len(learners) < len((HEAD, FOREST)):
        return learners, None
    return learners, _ask_folds(painted[drawn], columns[drawn], few, n_classes, rng, n_threads, should_stop)


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


def _look(
    painted: Painted,
    examples: Sequence[OpenExample],
    maps: FeatureMaps,
    rng: np.random.Generator,
    pace: Pace,
    should_stop: Callable[[], bool],
) -> tuple[Painted, Tensor]:
    """Hypercolumns of painted pixels, image by image in random order until half of the time is spent.

    Maps that are kept cost nothing, so what is left out now is there in a later round.
    """
    kept: list[NDArray[np.intp]] = []
    rows: list[Tensor] = []
    for index in rng.permutation(len(examples)):
        if should_stop():
            raise RoundCancelledError("stopped while looking at images")
        # Out of time or not, a head needs two classes: with one it would answer nothing else.
        if pace() > LOOKING_SHARE and len(np.unique(painted.labels[np.concatenate(kept)])) > 1:
            break
        for inside, origin, features in _by_tile(painted, index, examples[index], maps):
            kept.append(inside)
            place = painted.at[inside] - origin
            rows.append(hypercolumns(features, place[:, 0], place[:, 1]))
    order = np.concatenate(kept)
    return painted[order], torch.cat(rows)


LOOKING_SHARE = 0.5


def _by_tile(
    painted: Painted, index: int, opened: OpenExample, maps: FeatureMaps
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.int64], list[NDArray[np.float16]]]]:
    """Tile by tile: indices of pixels of one image, the first pixel of a window around them, and its maps."""
    image = opened.example.image
    own = np.flatnonzero(painted.image == index)
    tiles = painted.at[own] // TILE_PX
    for tile in np.unique(tiles, axis=0):
        inside = own[(tiles == tile).all(1)]
        first = np.maximum(painted.at[inside].min(0) // STRIDE - 1, 0) * STRIDE
        last = np.minimum(painted.at[inside].max(0) + 1 + STRIDE, image.shape[:2])
        window = (slice(int(first[0]), int(last[0])), slice(int(first[1]), int(last[1])))
        yield inside, first, maps.window(image, window)


def _describe(
    painted: Painted,
    examples: Sequence[OpenExample],
    maps: FeatureMaps,
    n_threads: int,
    should_stop: Callable[[], bool],
) -> NDArray[np.float32]:
    """`(n, F)` pixel features, in the order of `painted`."""
    described: list[NDArray[np.float32]] = []
    order: list[NDArray[np.intp]] = []
    for index in np.unique(painted.image):
        if should_stop():
            raise RoundCancelledError("stopped while computing features")
        own = np.flatnonzero(painted.image == index)
        at = painted.at[own]
        described.append(
            features_at(
                conform_channels(examples[index].example.image, maps.statistics.n_channels),
                at[:, 0],
                at[:, 1],
                lambda piece: standardise(piece, maps.statistics),
                n_threads,
            )
        )
        order.append(own)
    return np.concatenate(described)[np.argsort(np.concatenate(order), kind="stable")]


def _until(n_steps: int, pace: Pace, should_stop: Callable[[], bool]) -> Callable[[int], float]:
    """Progress that ends after `n_steps`, or when the time is spent."""

    def progress(done: int) -> float:
        if should_stop():
            raise RoundCancelledError(f"stopped after {done} steps of the head")
        return max(done / n_steps, pace() if done >= FEWEST_HEAD_STEPS else 0.0)

    return progress


FEWEST_HEAD_STEPS = 50
"""On a busy machine too: fewer leave a head that has seen too little of what was painted."""


def _ask_folds(
    painted: Painted,
    columns: Tensor,
    features: NDArray[np.float32],
    n_classes: int,
    rng: np.random.Generator,
    n_threads: int,
    should_stop: Callable[[], bool],
) -> HeldBack | None:
    """Let learners of one half of the images answer for the other half; None where that cannot be done."""
    chosen = rng.permutation(len(painted))[:FOLD_PIXELS]
    images = rng.permutation(np.unique(painted.image))
    side = np.isin(painted.image[chosen], images[::N_FOLDS])
    head_logits = np.full((len(chosen), n_classes), -np.inf, np.float32)
    tree_logits = head_logits.copy()
    for ours in (side, ~side):
        labels = painted.labels[chosen[ours]]
        # A half that shows one class, or all images, tells nothing about the real learners.
        if len(np.unique(labels)) < 2 or ours.all():
            return None
        steps = _until(FOLD_STEPS, lambda: 0.0, should_stop)
        head: Head = train_head(columns[chosen[ours]], labels, n_classes, rng, steps)
        seed = int(rng.integers(2**31))
        forest = train_forest(
            features[chosen[ours]], labels, n_classes, seed, n_trees=FOLD_TREES, n_threads=n_threads
        )
        head_logits[~ours] = head.logits_of_rows(columns[chosen[~ours]]).numpy()
        votes = forest.probabilities(features[chosen[~ours]], n_threads)
        tree_logits[~ours] = forest_logits(torch.from_numpy(votes)).numpy()
    return HeldBack({HEAD: head_logits, FOREST: tree_logits}, painted.labels[chosen], len(images))
