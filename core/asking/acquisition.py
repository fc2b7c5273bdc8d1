"""The acquisition function: from what a model says about an image to how much an answer would teach.

Two plain steps. A *map* says per pixel how unsure the model is, in 0..1: its predictive entropy. A *ranking*
puts candidates, with one pooled score each, in the order to ask about them: highest first, each pair of
classes in turn. Other acquisition functions were no better; `simulation.acquisitions` has them for studies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from core.prediction import Prediction

EDGE_WEIGHT = 0.25
"""Models are unsure along every outline; counted in full, each outline would be a question (nnActive:
entropy alone selects borders)."""

EDGE_KERNEL = np.ones((5, 5), np.uint8)
"""Reaches two pixels to either side of an outline."""

Scores = NDArray[np.float32]
"""`(H, W)` in 0..1."""

UncertaintyMap = Callable[[Prediction, int], Scores]
"""From a prediction, and the number of classes, to how unsure the model is."""


def entropy(prediction: Prediction, n_classes: int) -> Scores:
    """Predictive entropy as a share of its maximum.

    Examples
    --------
    >>> zeros = np.zeros((1, 2), np.uint8)
    >>> half, nats = np.float16([[0.5, 1]]), np.float16([[0.6931, 0]])
    >>> maps = Prediction(zeros, zeros + 1, half, nats, nats, 0 * nats, 2 * half - 1)
    >>> entropy(maps, 2).round(2).tolist()
    [[1.0, 0.0]]
    """
    return share_of_most(prediction.predictive_entropy, n_classes)


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


def share_of_most(nats: NDArray[np.float16], n_classes: int) -> Scores:
    """Entropies as a share of the largest that so many classes allow."""
    most = math.log(n_classes) if n_classes > 1 else 1.0
    # float16 rounds a little above the most there can be
    return np.asarray(np.minimum(nats.astype(np.float32) / np.float32(most), 1))
