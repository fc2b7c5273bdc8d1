"""Grow a forest of random trees on the features of single pixels, in a second.

Each split tries one random threshold for some features: as good as the best threshold of fewer of them, in a
third of the time. Every few trees see other pixels, and a class counts as the square root of its pixels.
scikit-learn grows the trees.

References: Breiman 2001, "Random forests"; Geurts et al. 2006, "Extremely randomized trees".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.learners.forest import Forest

N_TREES = 32
"""50 give .001 to .002 Dice more, and take half as long again for every answer."""
PIXELS_AT_ONCE = 30_000
"""Annotated pixels that `TREES_AT_ONCE` trees are grown from: the next ones see others, so that a forest sees
more than a tree has time for (pasting; Breiman 1999, https://doi.org/10.1023/A:1007563306331)."""
SMALLEST_LEAF_PX = 3
"""2 gave cracks .002 and .003 Dice more, and street scenes .009 less; 1 lost on all four sets, up to .014."""
TREES_AT_ONCE = 8
FEATURES_PER_SPLIT = 20
"""The best of them is taken: with the usual square root, 7 of 49, a grey value that decides is found late."""
FEWEST_PIXELS_PER_CLASS = 500
"""What a rare class gets of the drawn pixels, where it has that many."""


def draw_pixels(
    labels: NDArray[np.uint8], rng: np.random.Generator, limit: int = PIXELS_AT_ONCE
) -> NDArray[np.intp]:
    """Indices of at most `limit` pixels to learn from, in order; the same generator draws the same.

    Classes keep their shares, except that each one gets at least `FEWEST_PIXELS_PER_CLASS` where it has them.

    Examples
    --------
    >>> labels = np.repeat(np.array([0, 1], np.uint8), [9000, 600])
    >>> np.bincount(labels[draw_pixels(labels, np.random.default_rng(0), 2000)])
    array([1488,  511])
    """
    if len(labels) <= limit:
        return np.arange(len(labels))
    counts = np.bincount(labels)
    least = np.minimum(counts, min(FEWEST_PIXELS_PER_CLASS, limit // max(int((counts > 0).sum()), 1)))
    rest = counts - least
    quotas = least + (rest * ((limit - least.sum()) / max(rest.sum(), 1))).astype(np.int64)
    drawn = [
        rng.choice(np.flatnonzero(labels == index), quota, replace=False)
        for index, quota in enumerate(quotas)
    ]
    return np.sort(np.concatenate(drawn))


def train_forest(
    rows: NDArray[np.float32],
    labels: NDArray[np.uint8],
    n_classes: int,
    seed: int,
    *,
    n_trees: int = N_TREES,
    n_threads: int = 1,
    pixels_at_once: int = PIXELS_AT_ONCE,
    goes_on: Callable[[int], bool] = lambda grown: True,
) -> Forest:
    """Grow a forest from annotated pixels; the same seed grows the same trees.

    Parameters
    ----------
    rows : (n, F) float32
        Features.
    labels : (n,) uint8
        Class indices below `n_classes`. Classes without a pixel get probability 0.
    pixels_at_once : int
        Pixels that `TREES_AT_ONCE` trees are grown from.
    goes_on : callable
        Asked with the number of trees so far, `TREES_AT_ONCE` apart: a forest may end with fewer of them.
    """
    if len(rows) != len(labels) or len(rows) == 0:
        raise ValueError(f"a label for each of at least one row, got {len(rows)} rows, {len(labels)} labels")
    if int(labels.max()) >= n_classes:
        raise ValueError(f"label {labels.max()} of {n_classes} classes")
    # scikit-learn takes a second to import, and only a round needs it.
    from sklearn.ensemble import ExtraTreesClassifier

    trees: list[Any] = []
    for first in range(0, n_trees, TREES_AT_ONCE):
        if first and not goes_on(first):
            break
        rng = np.random.default_rng((seed, first))
        drawn = draw_pixels(labels, rng, pixels_at_once)
        group = ExtraTreesClassifier(
            min(TREES_AT_ONCE, n_trees - first),
            min_samples_leaf=SMALLEST_LEAF_PX,
            max_features=min(FEATURES_PER_SPLIT, rows.shape[1]),
            class_weight=weigh_classes(labels[drawn]),
            n_jobs=n_threads,
            random_state=int(rng.integers(2**31)),
        )
        trees += [tree.tree_ for tree in group.fit(rows[drawn], labels[drawn]).estimators_]
    return from_sklearn(trees, np.unique(labels), n_classes)


def weigh_classes(labels: NDArray[np.uint8]) -> dict[int, float]:
    """What a pixel of each class weighs, the most frequent one's 1: a class counts as the root of its pixels.

    How much people paint of a class tells little about how much there is of it. Taken at its word it loses
    the rare classes, and not at all it finds too much of them.

    Examples
    --------
    >>> weigh_classes(np.repeat(np.array([0, 3], np.uint8), [400, 100]))
    {0: 1.0, 3: 2.0}
    """
    found, counts = np.unique(labels, return_counts=True)
    weights = np.sqrt(counts.max() / counts)
    return dict(zip(found.tolist(), weights.tolist(), strict=True))


def from_sklearn(trees: Sequence[Any], classes: NDArray[np.integer[Any]], n_classes: int) -> Forest:
    """Take the nodes out of scikit-learn's trees, level by level so that children are neighbours."""
    parts = [_renumber(tree) for tree in trees]
    sizes = [len(feature) for feature, *_ in parts]
    roots = np.cumsum([0, *sizes[:-1]])
    features, thresholds, children, values = zip(*parts, strict=True)
    child = np.concatenate([part + root for part, root in zip(children, roots, strict=True)])
    is_leaf = child == np.arange(len(child))
    shares = np.zeros((int(is_leaf.sum()), n_classes), np.float32)
    shares[:, classes] = np.concatenate(values)[is_leaf]
    return Forest(
        np.concatenate(features).astype(np.int32),
        np.concatenate(thresholds),
        child.astype(np.int32),
        np.where(is_leaf, np.cumsum(is_leaf) - 1, 0).astype(np.int32),
        shares,
        roots.astype(np.int32),
    )


def _renumber(
    tree: Any,
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64], NDArray[np.float64]]:
    """Features, thresholds, left children and class shares of one tree in breadth-first order."""
    left, right = tree.children_left, tree.children_right
    order = np.fromiter(_breadth_first(left, right), np.int64, len(left))
    number = np.empty(len(left), np.int64)
    number[order] = np.arange(len(left))
    is_leaf = left[order] < 0
    child = np.where(is_leaf, np.arange(len(left)), number[np.maximum(left[order], 0)])
    feature = np.where(is_leaf, 0, tree.feature[order])
    threshold = np.where(is_leaf, np.float32(np.inf), _round_down(tree.threshold[order]))
    values = tree.value[order, 0, :]
    return feature, threshold, child, values / values.sum(1, keepdims=True)


def _breadth_first(left: NDArray[np.int64], right: NDArray[np.int64]) -> Iterator[int]:
    level = [0]
    while level:
        yield from level
        level = [child for node in level if left[node] >= 0 for child in (left[node], right[node])]


def _round_down(thresholds: NDArray[np.float64]) -> NDArray[np.float32]:
    """The largest float32 up to each threshold: float32 features compare with it as with the threshold."""
    near = thresholds.astype(np.float32)
    return np.where(near > thresholds, np.nextafter(near, np.float32(-np.inf)), near)
