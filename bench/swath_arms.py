"""Where each arm paints its next swaths.

====================  ================================================================================
arm                   where a swath begins
====================  ================================================================================
`random`              any pixel of any image
`own`                 a class drawn evenly in an image by chance: the person's own choice
`foreground`          two thirds where an object class is predicted, each class as often; else anywhere
`image-entropy`       the person's own choice in the images with the highest mean entropy, one in each
`ours`                in the service's questions, most uncertain first, each pair of classes in turn
`ours-spread`         the same, the best box of each image before the second of any
`class-stratified`    boxes by entropy with noise that fades, two thirds by predicted class in turn
`power`               boxes drawn with probabilities in proportion to their entropy, sure ones too
`rare`                boxes by entropy times how rare what is confused there is among the painted pixels
`changed`             boxes by entropy where this model says something else than the one before
`diverse`             the best box of images that look least like the painted ones (k-center)
`fading`              the person's own choice, less of it in every round; the rest `class-stratified`
`reviewed`            as `ours`; what the model says in the box is corrected, and the box called `Reviewed`
`everything`          one whole image a round, in random order
`oracle`              boxes with the most wrong pixels, which nobody could know
====================  ================================================================================

In a box the person begins as everywhere: with a class drawn evenly among those of the box.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bench.domain_sets import MappedImage
from core.asking.acquisition import rank_in_turns
from core.asking.regions import Region, choose_regions, find_candidates
from core.painting import Box, Mask
from core.prediction import Prediction
from core.schema import IGNORE_INDEX, LabelSchema
from simulation.acquisitions import add_power_noise, beta_of_round, rank_class_stratified

OBJECT_SIZE_PX = 24.0
"""Boxes are as large as the service's before it knows the objects."""

FOREGROUND_SHARE = 0.66
REVIEWED, EVERYTHING = "reviewed", "everything"

UNFINISHED_SHARE = 0.5
"""An image counts as not painted whole while so much of it is unknown."""

FIRST_OWN_SHARE = 0.75
"""Of the swaths of the first round with a model, `fading` leaves so many to the person."""


@dataclass(frozen=True)
class Place:
    """Where a swath begins: somewhere in `box`, or anywhere in the image."""

    image: str
    box: Box | None = None


@dataclass(frozen=True)
class Situation:
    """What is known when a round begins, by image name.

    `looked` are the model's answers for some images of the pool, `before` what the model before said there,
    `embeddings` what all images look like. `painted` are partial label maps of the whole pool.
    """

    schema: LabelSchema
    pool: Mapping[str, MappedImage]
    painted: Mapping[str, NDArray[np.uint8]]
    looked: Mapping[str, Prediction]
    before: Mapping[str, Prediction]
    embeddings: Mapping[str, NDArray[np.float64]]
    number: int
    n_rounds: int
    n_swaths: int

    def known(self, name: str) -> Mask:
        return np.asarray(self.painted[name] != IGNORE_INDEX)


Chooser = Callable[[Situation, np.random.Generator], list[Place]]
Found = list[tuple[str, Region]]


def choose_anywhere(now: Situation, rng: np.random.Generator) -> list[Place]:
    names = sorted(now.pool)
    return [_pixel(now, names[int(rng.integers(len(names)))], rng) for _ in range(now.n_swaths)]


def choose_own(now: Situation, rng: np.random.Generator) -> list[Place]:
    names = sorted(now.pool)
    return [Place(names[int(index)]) for index in rng.permutation(len(names))[: now.n_swaths]]


def choose_foreground(now: Situation, rng: np.random.Generator) -> list[Place]:
    names = sorted(now.looked)
    places = choose_anywhere(now, rng)
    for index in range(now.n_swaths):
        if rng.random() >= FOREGROUND_SHARE:
            continue
        label = rng.choice(now.schema.object_indices)
        seen_in = [name for name in names if (now.looked[name].label_map == label).any()]
        if seen_in:
            name = seen_in[int(rng.integers(len(seen_in)))]
            at = np.argwhere(now.looked[name].label_map == label)
            row, column = at[int(rng.integers(len(at)))]
            places[index] = Place(name, Box(int(row), int(column), 1, 1))
    return places


def choose_images(now: Situation, rng: np.random.Generator) -> list[Place]:
    mean = {
        name: float(found.predictive_entropy.mean(dtype=np.float64)) for name, found in now.looked.items()
    }
    return [Place(name) for name in sorted(mean, key=lambda name: -mean[name])[: now.n_swaths]]


def choose_ours(now: Situation, rng: np.random.Generator) -> list[Place]:
    found = _find(now)
    return _take(now, found, choose_regions([region for _, region in found], now.n_swaths))


def choose_spread(now: Situation, rng: np.random.Generator) -> list[Place]:
    found = _find(now)
    scores = [region.acquisition_score for _, region in found]
    return _take(now, found, rank_in_turns(scores, [name for name, _ in found]))


def choose_stratified(now: Situation, rng: np.random.Generator) -> list[Place]:
    found = _find(now)
    scores = [region.acquisition_score for _, region in found]
    predicted = [region.class_index for _, region in found]
    beta = beta_of_round(now.number - 1, now.n_rounds)
    return _take(now, found, rank_class_stratified(scores, predicted, now.n_swaths, rng, beta))


def choose_power(now: Situation, rng: np.random.Generator) -> list[Place]:
    """Stochastic batch acquisition (Kirsch et al. 2021): not the worst places alone."""
    found = _find(now, even_sure=True)
    scores = np.array([region.acquisition_score for _, region in found])
    return _take(now, found, _best_first(add_power_noise(scores, rng, 1.0).tolist()))


def choose_rare(now: Situation, rng: np.random.Generator) -> list[Place]:
    counts = np.zeros(len(now.schema), np.int64)
    for label_map in now.painted.values():
        counts += np.bincount(label_map[label_map != IGNORE_INDEX], minlength=len(now.schema))
    weight = 1 / np.sqrt((counts + 1) / counts.sum())
    found = _find(now)
    scores = [
        region.acquisition_score * max(weight[region.class_index], weight[region.runner_up_index])
        for _, region in found
    ]
    return _take(now, found, _best_first(scores))


def choose_changed(now: Situation, rng: np.random.Generator) -> list[Place]:
    found = _find(now, _doubt_where_changed(now))
    return _take(now, found, _best_first([region.acquisition_score for _, region in found]))


def choose_diverse(now: Situation, rng: np.random.Generator) -> list[Place]:
    centres = [now.embeddings[name] for name in sorted(now.pool) if now.known(name).any()]
    left, names = dict.fromkeys(sorted(now.looked)), list[str]()
    while left and len(names) < now.n_swaths:
        far = {name: min(float(((now.embeddings[name] - c) ** 2).sum()) for c in centres) for name in left}
        names.append(max(far, key=lambda name: far[name]))
        centres.append(now.embeddings[names[-1]])
        left.pop(names[-1])
    best: dict[str, Region] = {}
    for name, region in _find(now):
        if name not in best or region.acquisition_score > best[name].acquisition_score:
            best[name] = region
    return [Place(name, best[name].box if name in best else None) for name in names]


def choose_fading(now: Situation, rng: np.random.Generator) -> list[Place]:
    n_own = round(FIRST_OWN_SHARE * (1 - (now.number - 1) / max(now.n_rounds, 1)) * now.n_swaths)
    return [*choose_own(now, rng)[:n_own], *choose_stratified(now, rng)][: now.n_swaths]


def choose_whole(now: Situation, rng: np.random.Generator) -> list[Place]:
    """An image of which much is not painted."""
    names = sorted(now.pool)
    unfinished = [name for name in names if (now.painted[name] == IGNORE_INDEX).mean() > UNFINISHED_SHARE]
    return [Place(unfinished[int(rng.integers(len(unfinished)))])] if unfinished else []


def choose_errors(now: Situation, rng: np.random.Generator) -> list[Place]:
    found = []
    for name, prediction in now.looked.items():
        truth = now.pool[name].label_map
        wrong = ((prediction.label_map != truth) & (truth != IGNORE_INDEX)).astype(np.float16)
        known = replace(prediction, predictive_entropy=wrong)
        regions = find_candidates(
            known,
            now.known(name),
            now.schema,
            OBJECT_SIZE_PX,
            uncertainty=lambda maps, n: maps.predictive_entropy.astype(np.float32),
            even_sure=True,
        )
        found += [(name, region) for region in regions]
    return _take(now, found, _best_first([region.acquisition_score for _, region in found]))


ARMS: Mapping[str, Chooser] = {
    "random": choose_anywhere,
    "own": choose_own,
    "foreground": choose_foreground,
    "image-entropy": choose_images,
    "ours": choose_ours,
    "ours-spread": choose_spread,
    "class-stratified": choose_stratified,
    "power": choose_power,
    "rare": choose_rare,
    "changed": choose_changed,
    "diverse": choose_diverse,
    "fading": choose_fading,
    REVIEWED: choose_ours,
    EVERYTHING: choose_whole,
    "oracle": choose_errors,
}

ASKING = ("ours", REVIEWED, "ours-spread", "class-stratified", "power", "rare", "changed", "diverse")
"""Arms whose boxes are questions: how many of them hold an error is counted."""


def _pixel(now: Situation, name: str, rng: np.random.Generator) -> Place:
    height, width = now.pool[name].label_map.shape
    return Place(name, Box(int(rng.integers(height)), int(rng.integers(width)), 1, 1))


def _find(
    now: Situation, doubts: Mapping[str, Prediction] | None = None, *, even_sure: bool = False
) -> Found:
    looked = doubts or now.looked
    return [
        (name, region)
        for name in sorted(looked)
        for region in find_candidates(
            looked[name], now.known(name), now.schema, OBJECT_SIZE_PX, even_sure=even_sure
        )
    ]


def _doubt_where_changed(now: Situation) -> dict[str, Prediction]:
    """Predictions whose entropy is halved where the model before said the same."""
    found = {}
    for name, prediction in now.looked.items():
        same = now.before[name].label_map == prediction.label_map if name in now.before else True
        doubt = np.where(same, prediction.predictive_entropy / 2, prediction.predictive_entropy)
        found[name] = replace(prediction, predictive_entropy=doubt.astype(np.float16))
    return found


def _best_first(scores: list[float]) -> list[int]:
    return sorted(range(len(scores)), key=lambda index: (-scores[index], index))


def _take(now: Situation, found: Found, order: list[int]) -> list[Place]:
    return [Place(found[index][0], found[index][1].box) for index in order[: now.n_swaths]]
