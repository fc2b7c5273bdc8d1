"""A forest of random trees on the features of single pixels, kept as plain arrays.

What answers are the nodes of the trees in six arrays, which need no pickle and can be written to
safetensors, or to ONNX as a `TreeEnsemble`; the probabilities are scikit-learn's.
`core.learners.forest_growth` grows them.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ROWS_PER_JOB = 16_384


@dataclass(frozen=True)
class Forest:
    """The nodes of all trees, one after another.

    Attributes
    ----------
    feature : (n_nodes,) int32
        Column of features that a node compares; 0 in a leaf.
    threshold : (n_nodes,) float32
        A value above it goes right; infinite in a leaf.
    child : (n_nodes,) int32
        The left child, whose neighbour is the right one; a leaf names itself.
    leaf : (n_nodes,) int32
        Row of `shares`; 0 where the node is none.
    shares : (n_leaves, n_classes) float32
        Share of each class among the training pixels of a leaf.
    roots : (n_trees,) int32
    """

    feature: NDArray[np.int32]
    threshold: NDArray[np.float32]
    child: NDArray[np.int32]
    leaf: NDArray[np.int32]
    shares: NDArray[np.float32]
    roots: NDArray[np.int32]

    @property
    def n_classes(self) -> int:
        return int(self.shares.shape[1])

    def probabilities(self, rows: NDArray[np.float32], n_threads: int = 1) -> NDArray[np.float32]:
        """Mean over the trees of the class shares `(n, n_classes)` for `(n, F)` rows of features."""
        if int(self.feature.max()) >= rows.shape[1]:
            raise ValueError(f"the forest reads column {self.feature.max()}, got {rows.shape[1]}")
        votes = np.zeros((len(rows), self.n_classes), np.float32)
        arrays = (self._nodes, self.leaf, self.shares, self.roots)

        def vote(begin: int) -> None:
            part = slice(begin, begin + ROWS_PER_JOB)
            _kernels().add_votes(rows[part], *arrays, votes[part])

        with ThreadPoolExecutor(n_threads) as pool:
            list(pool.map(vote, range(0, len(rows), ROWS_PER_JOB)))
        votes /= np.float32(len(self.roots))
        return votes

    @cached_property
    def _nodes(self) -> NDArray[np.void]:
        """All that a step down a tree reads, in one place: an eighth of a line of the cache.

        The child is counted from its parent, so that two bytes hold it in all but the largest trees.
        """
        step = self.child - np.arange(len(self.child), dtype=np.int32)
        largest = max(int(step.max()), int(self.feature.max()))
        nodes = np.empty(len(step), _NODE if largest <= np.iinfo(np.uint16).max else _WIDE_NODE)
        nodes["threshold"], nodes["step"], nodes["feature"] = self.threshold, step, self.feature
        return nodes

    def first_trees(self, n_trees: int) -> Forest:
        """A forest of only the first `n_trees`, or of all there are."""
        if n_trees >= len(self.roots):
            return self
        # Nodes lie tree after tree, and so do their leaves.
        nodes = slice(int(self.roots[n_trees]))
        leaf = self.leaf[nodes]
        return Forest(
            self.feature[nodes],
            self.threshold[nodes],
            self.child[nodes],
            leaf,
            self.shares[: int(leaf.max()) + 1],
            self.roots[:n_trees],
        )

    def to_tensors(self) -> dict[str, Tensor]:
        """What safetensors can write; the arrays are shared, not copied."""
        return {name: torch.from_numpy(getattr(self, name)) for name in _DTYPES}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Forest:
        """Build a forest from tensors that may come from a stranger.

        Raises
        ------
        ValueError
            A walk down these trees would leave the arrays or never end.
        """
        missing = set(_DTYPES) - set(tensors)
        if missing:
            raise ValueError(f"a forest also has {', '.join(sorted(missing))}")
        forest = cls(**{name: np.ascontiguousarray(tensors[name].numpy()) for name in _DTYPES})
        _check(forest)
        return forest


_DTYPES = {
    "feature": np.int32,
    "threshold": np.float32,
    "child": np.int32,
    "leaf": np.int32,
    "shares": np.float32,
    "roots": np.int32,
}


_NODE = np.dtype([("threshold", "f4"), ("step", "u2"), ("feature", "u2")])
_WIDE_NODE = np.dtype([("threshold", "f4"), ("step", "i4"), ("feature", "i4")])


def _check(forest: Forest) -> None:
    """Children come behind their parents, and every index is inside: a walk ends and stays in the arrays."""
    n = len(forest.child)
    own = np.arange(n)
    is_leaf = forest.child == own
    is_inner = (forest.child > own) & (forest.child < n - 1)
    fits = (
        all(getattr(forest, name).dtype == dtype for name, dtype in _DTYPES.items())
        and all(getattr(forest, name).ndim == (2 if name == "shares" else 1) for name in _DTYPES)
        and len(forest.feature) == len(forest.threshold) == len(forest.leaf) == n
        and bool((is_leaf | is_inner).all())
        and bool(np.isposinf(forest.threshold[is_leaf]).all())
        and _all_below(forest.roots, n)
        and _all_below(forest.feature, np.iinfo(np.int32).max)
        and _all_below(forest.leaf, len(forest.shares))
    )
    if not fits:
        raise ValueError("the arrays of the forest do not fit one another")


def _all_below(indices: NDArray[np.int32], limit: int) -> bool:
    return len(indices) > 0 and int(indices.min()) >= 0 and int(indices.max()) < limit


def _kernels() -> ModuleType:
    from core.learners import _forest_kernels

    return _forest_kernels
