"""Train the quick learners of a round: painted pixels in, a forest and a head out, within seconds.

They start from nothing in every round and see all its images, so nothing is forgotten and nothing lags
behind. What they cost is bounded by the pixels that are drawn, and by the images that a round opens. The
images come first, for an image that was not met costs more than trees or steps: where the time is short there
are fewer of these.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from math import ceil
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.errors import RoundCancelledError
from core.learners.forest import Forest
from core.learners.forest_growth import train_forest
from core.learners.pixel_features import features_at
from core.network.encoder import N_FEATURES, STRIDE
from core.network.feature_maps import TILE_PX, FeatureMaps
from core.network.head import Head, hypercolumns, train_head
from core.network.mixture import FOREST, HEAD
from core.network.outputs import Weights
from core.network.pixels import conform_channels, standardise
from core.training.exposures import borrow_exposures
from core.training.folds import HeldBack, ask_folds
from core.training.painted_pixels import (
    MOST_FOREST_PIXELS,
    MOST_POSITIONS,
    Painted,
    draw_as_painted,
    draw_evenly,
    draw_painted,
    visiting_order,
)
from core.training.sampling import OpenExample

HEAD_STEPS = 150
"""300 instead of 100 cost .004 to .009 where 10 strokes are all there is (`em_membrane`), and gain .001
to .005 with 40."""

FEWEST_HEAD_STEPS, FEWEST_TREES = 50, 8
"""On a busy machine too: fewer leave a learner that has seen too little of what was painted."""

DESCRIBED_BY, LOOKED_BY, GROWN_BY, LOOKED_AGAIN_BY, LEARNT_BY, FOLDED_BY = 0.15, 0.62, 0.7, 0.75, 0.88, 1.0
"""Shares of the time for quick learners at which no further image is described, looked at, tree grown, image
looked at once more, step of the head made, and fold asked. With 40 strokes on street scenes, a third of the
pixels cost .06 Dice, three quarters of the trees nothing, and half of 300 steps of the head .0001."""

MOST_ASKED = 20_000
"""Pixels, in the shares in which they were painted, that folds draw theirs from."""

AT_ONCE = 2
"""Images that are looked at together: one is prepared and read while the encoder sees the other. A third one
would gain little, and each takes 400 MB at most."""

Pace = Callable[[], float]
"""The share of the time for quick learners that is spent, 0..1 or more."""

Rows = TypeVar("Rows")
Visit = Callable[[int, NDArray[np.intp]], list[tuple[NDArray[np.intp], Rows]]]
"""The index of an image and the pixels wanted of it, to some of these pixels and their rows, part by part."""


@dataclass(frozen=True)
class QuickRound:
    """What the quick learners learn from, and what tells them to end.

    Attributes
    ----------
    class_pixels : painted pixels per class of the whole project
    needs_folds : also find out what such learners say of images that they did not see
    forest_pixels : painted pixels that the forest is grown from, at most
    """

    examples: Sequence[OpenExample]
    n_classes: int
    maps: FeatureMaps
    class_pixels: Sequence[int]
    pace: Pace
    should_stop: Callable[[], bool]
    n_threads: int = field(default_factory=torch.get_num_threads)
    n_steps: int = HEAD_STEPS
    needs_folds: bool = False
    forest_pixels: int = MOST_FOREST_PIXELS

    def check(self, doing: str) -> None:
        """Raise `RoundCancelledError` where the round shall stop."""
        if self.should_stop():
            raise RoundCancelledError(f"stopped while {doing}")


@dataclass(frozen=True)
class QuickLearnt:
    """Learners by name.

    Attributes
    ----------
    seen : by name, the share of the drawn pixels that a learner had the time to see
    held_back : what such learners say of images that they did not see, where there was time to ask
    """

    learners: Mapping[str, Weights]
    seen: Mapping[str, float]
    held_back: HeldBack | None


def train_quick(names: Collection[str], work: QuickRound, rng: np.random.Generator) -> QuickLearnt:
    """Train the learners `names` among `HEAD` and `FOREST`.

    Raises
    ------
    RoundCancelledError
        `should_stop` said so.
    """
    painted = draw_painted(work.examples, rng, max(MOST_POSITIONS, 2 * work.forest_pixels))
    even = draw_evenly(painted.labels, rng)
    drawn = draw_as_painted(painted.labels, work.class_pixels, rng, work.forest_pixels)
    streams = rng.spawn(4)
    learners: dict[str, Weights] = {}
    seen: dict[str, float] = {}
    features: NDArray[np.float32] = np.zeros((0, 0), np.float32)
    columns = torch.zeros(0, 0)
    if FOREST in names:
        described, features = _describe(painted, drawn, work, streams[0])
    if HEAD in names:
        looked, columns = _look(painted, even, work, streams[0])
    if FOREST in names:
        learners[FOREST] = _grow(features, painted.labels[described], work, streams[1]).to_tensors()
        seen[FOREST] = len(described) / len(drawn)
    if HEAD in names:
        again, more = _look_again(painted, even[::2], looked, work, streams[0])
        looked, columns = np.concatenate([looked, again]), torch.cat([columns, more])
        learners[HEAD] = _learn(columns, painted.labels[looked], work, streams[2]).to_tensors()
        seen[HEAD] = len(np.unique(looked)) / len(even)
    if not work.needs_folds or len(learners) < len((HEAD, FOREST)):
        return QuickLearnt(learners, seen, None)
    both, ours, theirs = np.intersect1d(described, looked, return_indices=True)
    asked = draw_as_painted(painted.labels[both], work.class_pixels, streams[3], MOST_ASKED)
    ours, theirs = ours[asked], theirs[asked]
    held_back = ask_folds(
        painted[described[ours]],
        columns[torch.from_numpy(theirs)],
        features[ours],
        work.n_classes,
        streams[3],
        n_threads=work.n_threads,
        is_late=lambda: work.pace() > FOLDED_BY,
        check=lambda: work.check("comparing the quick learners"),
    )
    return QuickLearnt(learners, seen, held_back)


def _describe(
    painted: Painted, drawn: NDArray[np.intp], work: QuickRound, rng: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Which of the drawn pixels there was time for, image by image, and their `(n, F)` features."""
    at_once = min(work.n_threads, len(work.examples))

    def describe(index: int, own: NDArray[np.intp]) -> list[tuple[NDArray[np.intp], NDArray[np.float32]]]:
        at = painted.at[own]
        image = conform_channels(work.examples[index].example.image, work.maps.statistics.n_channels)
        standard = partial(standardise, statistics=work.maps.statistics)
        return [(own, features_at(image, at[:, 0], at[:, 1], standard, ceil(work.n_threads / at_once)))]

    kept, rows = _visit(painted, drawn, describe, DESCRIBED_BY, work, rng, at_once=at_once)
    order = np.argsort(kept, kind="stable")
    return kept[order], np.concatenate(rows)[order]


def _grow(
    features: NDArray[np.float32], labels: NDArray[np.uint8], work: QuickRound, rng: np.random.Generator
) -> Forest:
    def goes_on(n_trees: int) -> bool:
        work.check(f"growing trees, after {n_trees}")
        return n_trees < FEWEST_TREES or work.pace() < GROWN_BY

    return train_forest(
        features,
        labels,
        work.n_classes,
        int(rng.integers(2**31)),
        n_threads=work.n_threads,
        pixels_at_once=work.forest_pixels // 2,
        goes_on=goes_on,
    )


def _look(
    painted: Painted, wanted: NDArray[np.intp], work: QuickRound, rng: np.random.Generator
) -> tuple[NDArray[np.intp], Tensor]:
    """Which of the wanted pixels there was time for, and their hypercolumns.

    Maps that are kept cost nothing, so what is left out now is there in a later round.
    """

    def look(index: int, own: NDArray[np.intp]) -> list[tuple[NDArray[np.intp], Tensor]]:
        return _hypercolumns(work.examples[index].example.image, painted.at, own, work.maps)

    kept, rows = _visit(painted, wanted, look, LOOKED_BY, work, rng, at_once=_looks_at_once(work))
    return kept, torch.cat(rows)


def _look_again(
    painted: Painted,
    wanted: NDArray[np.intp],
    looked: NDArray[np.intp],
    work: QuickRound,
    rng: np.random.Generator,
) -> tuple[NDArray[np.intp], Tensor]:
    """The same at the exposure of another image, so that a pixel may be there twice."""
    images = [opened.example.image for opened in work.examples]

    def look(index: int, own: NDArray[np.intp]) -> list[tuple[NDArray[np.intp], Tensor]]:
        changed = borrow_exposures(images, index)
        return [] if changed is None else _hypercolumns(changed, painted.at, own, work.maps)

    at_once = _looks_at_once(work)
    kept, rows = _visit(painted, wanted, look, LOOKED_AGAIN_BY, work, rng, seen=looked, at_once=at_once)
    return kept, torch.cat([torch.zeros(0, N_FEATURES, dtype=torch.float16), *rows])


def _looks_at_once(work: QuickRound) -> int:
    return min(work.n_threads, AT_ONCE) if work.maps.serves_threads else 1


def _hypercolumns(
    image: NDArray[Any], at: NDArray[np.int64], own: NDArray[np.intp], maps: FeatureMaps
) -> list[tuple[NDArray[np.intp], Tensor]]:
    """The hypercolumns of the pixels `at[own]`, tile by tile, after which of them they are."""
    found = []
    tiles = at[own] // TILE_PX
    for tile in np.unique(tiles, axis=0):
        inside = own[(tiles == tile).all(1)]
        first = np.maximum(at[inside].min(0) // STRIDE - 1, 0) * STRIDE
        last = np.minimum(at[inside].max(0) + 1 + STRIDE, image.shape[:2])
        window = (slice(int(first[0]), int(last[0])), slice(int(first[1]), int(last[1])))
        place = at[inside] - first
        found.append((inside, hypercolumns(maps.window(image, window), place[:, 0], place[:, 1])))
    return found


def _visit(
    painted: Painted,
    wanted: NDArray[np.intp],
    visit: Visit[Rows],
    until: float,
    work: QuickRound,
    rng: np.random.Generator,
    seen: NDArray[np.intp] | None = None,
    at_once: int = 1,
) -> tuple[NDArray[np.intp], list[Rows]]:
    """Visit images while there is time, in the order of `visiting_order`: the pixels met, and their rows.

    `seen` are pixels that the learner has already; so many images are visited `at_once`, in threads.
    """
    kept: list[NDArray[np.intp]] = [np.zeros(0, np.intp) if seen is None else seen]
    rows: list[Rows] = []
    indices = visiting_order(painted[wanted], rng)

    def visit_one(index: np.intp) -> list[tuple[NDArray[np.intp], Rows]]:
        return visit(int(index), wanted[painted.image[wanted] == index])

    with ThreadPoolExecutor(at_once) as pool:
        call = pool.map if at_once > 1 else map
        for first in range(0, len(indices), at_once):
            work.check("looking at images")
            # Out of time or not, a learner needs two classes: with one it would answer nothing else.
            if work.pace() > until and len(np.unique(painted.labels[np.concatenate(kept)])) > 1:
                break
            for parts in call(visit_one, indices[first : first + at_once]):
                kept += [own for own, _ in parts]
                rows += [found for _, found in parts]
    return np.concatenate([np.zeros(0, np.intp), *kept[1:]]), rows


def _learn(columns: Tensor, labels: NDArray[np.uint8], work: QuickRound, rng: np.random.Generator) -> Head:
    begun, least = work.pace(), min(FEWEST_HEAD_STEPS, work.n_steps)
    left = max(LEARNT_BY - begun, 1e-3)

    def progress(done: int) -> float:
        work.check(f"training the head, after {done} steps")
        # Of the time that was left, so that the rate falls along its whole curve, however short that is.
        spent = (work.pace() - begun) / left
        return max(done / work.n_steps, min(spent, done / least))

    return train_head(columns, labels, work.n_classes, rng, progress)
