"""The loop of `core.learners.forest`, compiled: many pixels walk down one tree side by side."""

from __future__ import annotations

import numpy as np

from core.learners._feature_kernels import compiled

BLOCK_PX = 64
"""Pixels that walk together: their features stay in the processor's first cache."""


@compiled
def add_votes(rows, feature, threshold, child, leaf, shares, roots, out):  # type: ignore[no-untyped-def]
    """Add each tree's class shares for `(n, F)` rows to `out` `(n, n_classes)`.

    Children of a node are neighbours: the left one is `child`, and the right one follows. A leaf is its own
    child and has an endless threshold, so pixels that arrive early wait there and no step needs a branch.
    """
    n_classes = shares.shape[1]
    at = np.empty(BLOCK_PX, np.int32)
    for begin in range(0, rows.shape[0], BLOCK_PX):
        n = min(BLOCK_PX, rows.shape[0] - begin)
        for tree in range(len(roots)):
            at[:n] = roots[tree]
            is_moving = True
            while is_moving:
                is_moving = False
                for i in range(n):
                    node = at[i]
                    at[i] = child[node] + np.int32(rows[begin + i, feature[node]] > threshold[node])
                    is_moving |= at[i] != node
            for i in range(n):
                row = leaf[at[i]]
                for c in range(n_classes):
                    out[begin + i, c] += shares[row, c]
