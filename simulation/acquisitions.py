"""Acquisition functions for studies, by name; the service has the first of them.

| acquisition | map | ranking |
|---|---|---|
| `entropy`, `margin`, `mutual-information` | of that name | highest first, each pair of classes in turn |
| `class-stratified` | entropy | ClaSP PE: noisy, most of it stratified by the predicted class |
| `foreground-33`, `foreground-66` | entropy, unused | chance, that share of it from predicted objects |
| `random` | entropy, unused | chance |
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from core.asking.acquisition import Scores, UncertaintyMap, entropy, rank_in_turns, share_of_most
from core.asking.regions import Region, choose_regions, find_candidates
from core.painting import Mask
from core.prediction import Prediction
from core.schema import LabelSchema

Acquisition = Literal[
    "entropy", "margin", "mutual-information", "class-stratified", "foreground-33", "foreground-66", "random"
]

ACQUISITIONS: tuple[Acquisition, ...] = get_args(Acquisition)

BY_CHANCE: frozenset[Acquisition] = frozenset({"foreground-33", "foreground-66", "random"})
"""What these ask does not depend on how unsure the model is."""

FOREGROUND_SHARES: dict[Acquisition, float] = {"foreground-33": 0.33, "foreground-66": 0.66}
"""The two strengths of nnActive's foreground-aware random (Lüth et al. 2025)."""

STRATIFIED_SHARE = 0.66
"""Part of the budget that ClaSP PE stratifies by the predicted class."""

FIRST_BETA, LAST_BETA = 1.0, 100.0
"""Noise is as large as the scores differ in the first round, and hardly matters in the last one."""

SMALLEST_SCORE = 1e-12
"""Keeps the logarithm finite."""


def find_places(
    acquisition: Acquisition,
    prediction: Prediction,
    annotated: Mask,
    schema: LabelSchema,
    object_size_px: float,
    rng: np.random.Generator,
) -> tuple[Region, ...]:
    """Find the boxes of one image that the acquisition could ask about, as `find_candidates` does."""
    by_chance = rng if acquisition in BY_CHANCE else None
    uncertainty = MAPS.get(acquisition, entropy)
    return find_candidates(
        prediction, annotated, schema, object_size_px, uncertainty=uncertainty, by_chance=by_chance
    )


def choose_places(
    acquisition: Acquisition, candidates: Sequence[Region], n: int, rng: np.random.Generator, beta: float
) -> list[int]:
    """Choose up to `n` candidates of many images; returns positions in the order to ask."""
    if acquisition in BY_CHANCE:
        share = FOREGROUND_SHARES.get(acquisition, 0.0)
        return rank_by_chance([region.has_object for region in candidates], n, rng, share)
    if acquisition == "class-stratified":
        scores = [region.acquisition_score for region in candidates]
        return rank_class_stratified(scores, [region.class_index for region in candidates], n, rng, beta)
    return choose_regions(candidates, n)


def margin(prediction: Prediction, n_classes: int) -> Scores:
    """One minus the difference of the two largest probabilities: 1 is a coin toss."""
    return np.asarray(1 - prediction.margin.astype(np.float32))


def mutual_information(prediction: Prediction, n_classes: int) -> Scores:
    """What more truth would settle (BALD, Houlsby et al. 2011), as a share of the largest entropy."""
    return share_of_most(prediction.mutual_information, n_classes)


def beta_of_round(number: int, n_rounds: int) -> float:
    """Return how little noise counts in round `number`, 0-based, of `n_rounds`: from 1 to 100 exponentially.

    The schedule of ClaSP PE.

    Examples
    --------
    >>> [round(beta_of_round(number, 3)) for number in range(3)]
    [1, 10, 100]
    """
    done = min(number / max(n_rounds - 1, 1), 1.0)
    return float(FIRST_BETA * (LAST_BETA / FIRST_BETA) ** done)


def add_power_noise(scores: NDArray[Any], rng: np.random.Generator, beta: float) -> NDArray[np.float64]:
    """Return log scores with Gumbel noise of scale `1 / beta`.

    Sorting by them draws without replacement with probabilities in proportion to `scores ** beta` (Kirsch et
    al. 2021, stochastic batch acquisition).
    """
    return np.asarray(np.log(np.maximum(scores, SMALLEST_SCORE)) + rng.gumbel(0, 1 / beta, np.shape(scores)))


def rank_class_stratified(
    scores: Sequence[float],
    predicted: Sequence[int],
    n: int,
    rng: np.random.Generator,
    beta: float,
    share: float = STRATIFIED_SHARE,
) -> list[int]:
    """Choose up to `n` candidates as ClaSP PE does: noisy, a share of them stratified by predicted class.

    Parameters
    ----------
    scores, predicted : one per candidate
        Pooled entropy, and the class that is predicted there.
    beta : float
        See `beta_of_round`.

    Returns
    -------
    list of int
        Positions, in the order they were chosen.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> rank_class_stratified([0.9, 0.8, 0.7, 0.1], [0, 0, 0, 1], 3, rng, beta=1000)
    [0, 3, 1]
    """
    noisy = add_power_noise(np.asarray(scores, np.float64), rng, beta).tolist()
    n_stratified = min(math.ceil(share * n), n)
    chosen = rank_in_turns(noisy, predicted)[:n_stratified]
    rest = sorted(set(range(len(noisy))) - set(chosen), key=lambda i: -noisy[i])
    return [*chosen, *rest[: n - len(chosen)]]


def rank_by_chance(
    is_foreground: Sequence[bool], n: int, rng: np.random.Generator, foreground_share: float = 0.0
) -> list[int]:
    """Choose up to `n` candidates by chance, each with `foreground_share` from those with foreground.

    Without foreground left, any candidate is as good, and the other way round.
    """
    order = [int(i) for i in rng.permutation(len(is_foreground))]
    if foreground_share <= 0:
        return order[:n]
    queues = {kind: [i for i in order if is_foreground[i] is kind] for kind in (True, False)}
    chosen: list[int] = []
    for _ in range(min(n, len(order))):
        # The other draws are over all candidates: foreground is not avoided there.
        takes_foreground = bool(rng.random() < foreground_share)
        queue = queues[True] if takes_foreground and queues[True] else order
        pick = next(i for i in queue if i not in chosen)
        chosen.append(pick)
        queues[True] = [i for i in queues[True] if i != pick]
    return chosen


MAPS: dict[Acquisition, UncertaintyMap] = {"margin": margin, "mutual-information": mutual_information}
"""Those of the acquisitions that do not go by entropy."""
