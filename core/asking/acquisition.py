"""Acquisition functions: from what a model says about an image to how much an answer would teach.

Two plain steps. A *map* says per pixel how unsure the model is, in 0..1. A *ranking* puts candidates, with
one pooled score each, in the order to ask about them; candidates may come from one image or from many.

| acquisition | map | ranking |
|---|---|---|
| `entropy`, `margin`, `mutual-information` | of that name | highest first, each pair of classes in turn |
| `class-stratified` | entropy | ClaSP PE: noisy, most of it stratified by the predicted class |
| `foreground-33`, `foreground-66` | entropy, unused | chance, that share of it from predicted objects |
| `random` | entropy, unused | chance |
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from core.prediction import Prediction

Acquisition = Literal[
    "entropy", "margin", "mutual-information", "class-stratified", "foreground-33", "foreground-66", "random"
]

ACQUISITIONS: tuple[Acquisition, ...] = get_args(Acquisition)

DEFAULT_ACQUISITION: Acquisition = "entropy"

BY_CHANCE: frozenset[Acquisition] = frozenset({"foreground-33", "foreground-66", "random"})
"""What these ask does not depend on how unsure the model is."""

NEEDS_DETAILS: frozenset[Acquisition] = frozenset({"margin", "mutual-information"})
"""What reads maps that `core.network.predict.Predictor.predict` makes only with `keep_details`."""

FOREGROUND_SHARES: dict[Acquisition, float] = {"foreground-33": 0.33, "foreground-66": 0.66}
"""The two strengths of nnActive's foreground-aware random (Lüth et al. 2025)."""

STRATIFIED_SHARE = 0.66
"""Part of the budget that ClaSP PE stratifies by the predicted class."""

FIRST_BETA, LAST_BETA = 1.0, 100.0
"""Noise is as large as the scores differ in the first round, and hardly matters in the last one."""

EDGE_WEIGHT = 0.25
"""Models are unsure along every outline; counted in full, each outline would be a question (nnActive:
entropy alone selects borders)."""

EDGE_KERNEL = np.ones((5, 5), np.uint8)
"""Reaches two pixels to either side of an outline."""

SMALLEST_SCORE = 1e-12
"""Keeps the logarithm finite."""

Scores = NDArray[np.float32]
"""`(H, W)` in 0..1."""


def uncertainty_map(acquisition: Acquisition, prediction: Prediction, n_classes: int) -> Scores:
    """Return the map of an acquisition, `(H, W)` in 0..1."""
    if acquisition == "margin":
        return margin(prediction)
    if acquisition == "mutual-information":
        return mutual_information(prediction, n_classes)
    return entropy(prediction, n_classes)


def entropy(prediction: Prediction, n_classes: int) -> Scores:
    """Predictive entropy as a share of its maximum.

    Examples
    --------
    >>> zeros = np.zeros((1, 2), np.uint8)
    >>> half, nats = np.float16([[0.5, 1]]), np.float16([[0.6931, 0]])
    >>> maps = Prediction(zeros, zeros + 1, half, nats, nats, 0 * nats, 2 * half - 1)
    >>> entropy(maps, 2).round(2).tolist(), margin(maps).tolist()
    ([[1.0, 0.0]], [[1.0, 0.0]])
    """
    return _share_of_most(prediction.predictive_entropy, n_classes)


def margin(prediction: Prediction) -> Scores:
    """One minus the difference of the two largest probabilities: 1 is a coin toss."""
    return np.asarray(1 - prediction.margin.astype(np.float32))


def mutual_information(prediction: Prediction, n_classes: int) -> Scores:
    """What more truth would settle (BALD, Houlsby et al. 2011), as a share of the largest entropy."""
    return _share_of_most(prediction.mutual_information, n_classes)


def expected_error(prediction: Prediction) -> Scores:
    """Probability that the label is wrong: one minus the calibrated confidence."""
    return np.asarray(1 - prediction.confidence.astype(np.float32))


def weaken_outlines(values: NDArray[np.float32], label_map: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return `values` with the pixels along the outlines of `label_map` counted at `EDGE_WEIGHT`.

    Examples
    --------
    >>> labels = np.zeros((1, 8), np.uint8)
    >>> labels[:, 5:] = 1
    >>> weaken_outlines(np.ones((1, 8), np.float32), labels).tolist()
    [[1.0, 1.0, 1.0, 0.25, 0.25, 0.25, 0.25, 1.0]]
    """
    labels = np.ascontiguousarray(label_map)
    is_edge = cv2.dilate(labels, EDGE_KERNEL) != cv2.erode(labels, EDGE_KERNEL)
    return np.where(is_edge, np.float32(EDGE_WEIGHT) * values, values)


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


def rank_in_turns(scores: Sequence[float], groups: Sequence[Hashable]) -> list[int]:
    """Order candidates by taking the best of each group in turn, higher scores first within a turn.

    Examples
    --------
    >>> rank_in_turns([0.9, 0.8, 0.3], ["a", "a", "b"])
    [0, 2, 1]
    """
    taken: dict[Hashable, int] = {}
    turns: list[tuple[int, float, int]] = []
    for index in sorted(range(len(scores)), key=lambda i: (-scores[i], i)):
        turn = taken.get(groups[index], 0)
        taken[groups[index]] = turn + 1
        turns.append((turn, -scores[index], index))
    return [index for *_, index in sorted(turns)]


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
        wanted = bool(rng.random() < foreground_share)
        queue = queues[True] if wanted and queues[True] else order
        pick = next(i for i in queue if i not in chosen)
        chosen.append(pick)
        queues[True] = [i for i in queues[True] if i != pick]
    return chosen


def _share_of_most(nats: NDArray[np.float16], n_classes: int) -> Scores:
    most = math.log(n_classes) if n_classes > 1 else 1.0
    # float16 rounds a little above the most there can be
    return np.asarray(np.minimum(nats.astype(np.float32) / np.float32(most), 1))
