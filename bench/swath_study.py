"""One arm of rounds of swaths, with one seed: paint, learn, measure, and where the questions lay."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.domain_sets import DomainSet, MappedImage
from bench.swath_arms import ARMS, ASKING, EVERYTHING, REVIEWED, Place, Situation
from bench.swath_learner import Encoded, learn, look_at, macro_dice
from bench.swath_work import Done, paint_everything, paint_swath, review
from core.asking.acquisition import EDGE_KERNEL
from core.network.head import Head
from core.painting import Mask
from core.prediction import Prediction
from core.schema import IGNORE_INDEX, LabelSchema
from simulation.brush import Effort, Pace

FIRST_ARM = "own"
"""Everybody's first swaths, before there is a model."""


@dataclass(frozen=True)
class SwathSettings:
    """What a run depends on, besides its set, seed and arm. A round's model looks at `looks` images."""

    rounds: int = 6
    swaths: int = 8
    steps: int = 60
    looks: int = 12
    side: int = 256
    pool: int = 48
    judged: int = 16


@dataclass(frozen=True)
class Bench:
    """Parts of the images of one set: those that people paint in, those that judge, and their maps."""

    schema: LabelSchema
    pool: Mapping[str, MappedImage]
    judged: tuple[MappedImage, ...]
    encoded: Encoded
    settings: SwathSettings

    @classmethod
    def of(cls, domain: DomainSet, settings: SwathSettings) -> Bench:
        pool = draw_parts(domain.pool, settings.side, settings.pool)
        judged = draw_parts(domain.test, settings.side, settings.judged)
        encoded = Encoded([*pool, *judged])
        return cls(domain.schema, {one.name: one for one in pool}, tuple(judged), encoded, settings)

    def run_dense(self, seed: int) -> dict[str, Any]:
        """What all labels of the pool give."""
        rng = np.random.default_rng((seed, zlib.crc32(b"dense")))
        dense = {name: one.label_map for name, one in self.pool.items()}
        head = learn(dense, self.encoded, self.schema, 2 * self.settings.steps, rng)
        return {"dice": [macro_dice(head, self.encoded, self.judged, self.schema)]}

    def run_arm(self, arm: str, seed: int) -> dict[str, Any]:
        """Dice, swaths and simulated seconds after each round, and where questions lay; as JSON values."""
        settings, head, before = self.settings, None, dict[str, Prediction]()
        painted = {n: np.full(i.label_map.shape, IGNORE_INDEX, np.uint8) for n, i in self.pool.items()}
        dices, n_swaths, seconds, hits = list[float](), list[int](), list[float](), list[list[int]]()
        spent = Effort()
        embeddings = {name: self.encoded.embedding(name) for name in self.pool}
        for number in range(settings.rounds + 1):
            # All arms of a seed begin with the same swaths, and their models look at the same images.
            shared = np.random.default_rng((seed, number))
            rng = np.random.default_rng((seed, number, zlib.crc32((arm if number else FIRST_ARM).encode())))
            looked = self._look(head, shared) if number else {}
            now = Situation(
                self.schema, self.pool, painted, looked, before, embeddings,
                number, settings.rounds, settings.swaths,
            )  # fmt: skip
            own = arm if number else FIRST_ARM
            places = ARMS[own](now, rng)
            if own in ASKING:
                hits.append(count_hits(places, now))
            for name, (left, effort) in self._work(own, places, now, rng):
                np.copyto(painted[name], left, where=left != IGNORE_INDEX)
                spent += effort
            if number:
                before = looked
            head = learn(painted, self.encoded, self.schema, settings.steps, shared)
            dices.append(macro_dice(head, self.encoded, self.judged, self.schema))
            n_swaths.append(settings.swaths * (number + 1))
            seconds.append(Pace().seconds(spent))
        return {
            "dice": dices,
            "swaths": n_swaths,
            "seconds": seconds,
            "hits": np.sum(hits, axis=0).tolist() if hits else None,
        }

    def _look(self, head: Head | None, rng: np.random.Generator) -> dict[str, Prediction]:
        assert head is not None, "the first round trained one"
        names = sorted(self.pool)
        chosen = sorted(names[int(i)] for i in rng.permutation(len(names))[: self.settings.looks])
        return {name: look_at(head, self.encoded, self.pool[name]) for name in chosen}

    def _work(
        self, arm: str, places: Sequence[Place], now: Situation, rng: np.random.Generator
    ) -> Iterator[tuple[str, Done]]:
        """What is done at each place, one after the other."""
        for place in places:
            truth = self.pool[place.image].label_map
            if arm == EVERYTHING:
                yield place.image, paint_everything(truth, self.schema)
            elif arm == REVIEWED and place.box is not None:
                yield place.image, review(truth, now.looked[place.image], place.box, self.schema)
            else:
                yield place.image, paint_swath(truth, place, arm in ASKING, rng)


def count_hits(places: Sequence[Place], now: Situation) -> list[int]:
    """Wrong and all pixels in boxes, and in images with boxes; boxes without an error, and all boxes.

    Edges of the truth are left out, and so is what is painted already.
    """
    counts = np.zeros(6, np.int64)
    for name in sorted({place.image for place in places}):
        truth, answer = now.pool[name].label_map, now.looked[name].label_map
        counted = (truth != IGNORE_INDEX) & ~_edges(truth) & ~now.known(name)
        wrong = (answer != truth) & counted
        inside = np.zeros(truth.shape, bool)
        for place in places:
            if place.image == name and place.box is not None:
                inside[place.box.slices] = True
                if wrong.any():
                    counts[4:] += [int(not wrong[place.box.slices].any()), 1]
        counts[:4] += [(wrong & inside).sum(), (counted & inside).sum(), wrong.sum(), counted.sum()]
    return [int(count) for count in counts]


def draw_parts(images: Sequence[MappedImage], side: int, n: int) -> list[MappedImage]:
    """At most `n` parts of images, cut evenly to at most `side`; the same ones every time."""
    parts = [part for one in images for part in _cut(one, side)]
    order = np.random.default_rng(0).permutation(len(parts))
    return [parts[int(index)] for index in sorted(order[:n])]


def _cut(one: MappedImage, side: int) -> list[MappedImage]:
    rows, columns = (
        np.linspace(0, size, -(-size // side) + 1).astype(int).tolist() for size in one.label_map.shape
    )
    return [
        MappedImage(f"{one.name}@{top},{left}", one.image[part], one.label_map[part])
        for top, bottom in pairwise(rows)
        for left, right in pairwise(columns)
        for part in [(slice(top, bottom), slice(left, right))]
    ]


def _edges(truth: NDArray[np.uint8]) -> Mask:
    labels = np.ascontiguousarray(truth)
    return np.asarray(cv2.dilate(labels, EDGE_KERNEL) != cv2.erode(labels, EDGE_KERNEL))
