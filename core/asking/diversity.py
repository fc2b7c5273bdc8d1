"""Diversity: near-duplicates get a lower rank, and rare classes their share of the highest ones.

A second picture of one scene teaches little that the first one did not, and a class of which little is
painted is seldom what a model asks about most. Both are put right in the acquisition scores themselves, so
that whatever sorts by them needs to know nothing about it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.schema import LabelSchema

MAX_CANDIDATES = 400
"""How many of the highest scores are compared with each other: more than people paint between two rounds, and
the work is the same for any pool."""

SAME_SCENE, SAME_DIRECTION = 0.98, 0.99
"""Cosines between the embeddings of two candidates that show the same: at least so much seen from the mean of
all candidates, which is what tells images of one kind apart, and so much as they are, for a pool of two
kinds. Of 70 nuclei images without copies 7 are held back by that, and of their copies in another light or
shifted by 8 pixels 116 of 140 are found; with .95 and .98 it is 27, and 129."""

NEGLIGIBLE = 1e-6
"""Distances from the mean below this are rounding errors, which tell no image from another."""

HELD_BACK = 0.25
"""A near-duplicate is taken to teach a quarter of what it would alone, the next one a quarter of that."""

RARE_SHARE = 0.2
"""Of the places at the top, for candidates with rare classes, however many they are."""

RARE_ENOUGH = 0.5
"""A class is rare when it has less than this part of the objects that a class has on average."""

LEAST_SCORE_SHARE = 0.3
"""A candidate with a rare class is put before others that score this much more, and no more than that."""


def find_rare_classes(n_objects: Mapping[int, int], schema: LabelSchema) -> tuple[int, ...]:
    """Return the object classes of which few objects are annotated, compared with the others.

    Examples
    --------
    >>> find_rare_classes({0: 50, 1: 90, 2: 4}, LabelSchema.of("Background", "Nucleus", "Mitosis"))
    (2,)
    """
    counts = {index: n_objects.get(index, 0) for index in schema.object_indices}
    fair = sum(counts.values()) / max(len(counts), 1)
    return tuple(index for index, n in counts.items() if n < RARE_ENOUGH * fair)


def spread_out(
    acquisition_scores: Sequence[float] | NDArray[np.float64],
    embeddings: NDArray[Any],
    is_rare: Sequence[bool] | NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Change acquisition scores so that sorting by them, highest first, gives a diverse order.

    The candidates are ranked one by one, the highest score first. What shows the same as one that was ranked
    is held back, each time by `HELD_BACK`. Where fewer than `RARE_SHARE` of the places went to candidates
    with a rare class, the next one goes to the best of them, if it scores at least `LEAST_SCORE_SHARE` of
    what it passes over.

    Parameters
    ----------
    acquisition_scores : (n,) float
        In 0..1, higher = ask first.
    embeddings : (n, D) float
        Of length 1, see `core.network.embedding`; zeros for a candidate whose embedding is not known,
        which is then like no other.
    is_rare : (n,) bool
        Whether a rare class is predicted in it.

    Returns
    -------
    (n,) float64
        In 0..1. Those of most candidates are as they were, and all below the first `MAX_CANDIDATES`.

    Raises
    ------
    ValueError
        The lengths differ.

    References: Carbonell & Goldstein 1998 for the greedy choice between relevance and novelty, "The use of
    MMR, diversity-based reranking", https://doi.org/10.1145/290941.291025

    Examples
    --------
    >>> scenes = np.array([[1, 0], [1, 0], [0, 1]])
    >>> spread_out([0.8, 0.6, 0.5], scenes, [False, False, False]).tolist()
    [0.8, 0.15, 0.5]
    >>> spread_out([0.9, 0.8, 0.7, 0.6, 0.5, 0.4], np.zeros((6, 2)), [False] * 5 + [True]).round(2).tolist()
    [0.9, 0.8, 0.7, 0.6, 0.5, 0.55]
    """
    scores = np.array(acquisition_scores, np.float64)
    rare = np.asarray(is_rare, bool)
    if embeddings.shape[:1] != scores.shape or rare.shape != scores.shape:
        raise ValueError(f"{scores.shape} scores, {embeddings.shape} embeddings, {rare.shape} is_rare")
    top = np.argsort(-scores, kind="stable")[:MAX_CANDIDATES]
    scores[top] = _rank_diversely(scores[top], _is_same_scene(embeddings[top]), rare[top])
    return scores


def _is_same_scene(embeddings: NDArray[Any]) -> NDArray[np.bool_]:
    """`(n, n)` bool: which candidates show the same.

    Features of one network point in similar directions whatever the image.
    """
    values = embeddings.astype(np.float64)
    is_known: NDArray[np.bool_] = np.asarray(values.any(axis=1))
    if not is_known.any():
        return np.zeros((len(values), len(values)), bool)
    from_mean = values - values[is_known].mean(axis=0)
    is_close: NDArray[np.bool_] = np.greater(_cosines(from_mean), SAME_SCENE)
    is_close &= _cosines(values) > SAME_DIRECTION
    return is_close & is_known & is_known[:, None]


def _cosines(values: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    unit = np.divide(values, lengths, out=np.zeros_like(values), where=lengths > NEGLIGIBLE)
    return np.asarray(unit @ unit.T)


def _rank_diversely(
    scores: NDArray[np.float64], is_same: NDArray[np.bool_], is_rare: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """The scores with which candidates, the highest first, take the places that they are given."""
    ranked = np.empty_like(scores)
    left = scores.copy()  # what each is worth now; minus infinity once it has a place
    last, n_rare = 1.0, 0
    for n_ranked in range(len(scores)):
        chosen = int(np.argmax(left))
        value = left[chosen]
        if n_rare < int(RARE_SHARE * (n_ranked + 1)) and not is_rare[chosen]:
            of_rare = np.where(is_rare, left, -np.inf)
            best = int(np.argmax(of_rare))
            if of_rare[best] >= LEAST_SCORE_SHARE * value:
                chosen, value = best, (last + value) / 2  # between the one before and the one after
        ranked[chosen] = last = value
        n_rare += int(is_rare[chosen])
        left[chosen] = -np.inf
        left[is_same[chosen]] *= HELD_BACK
    return ranked
