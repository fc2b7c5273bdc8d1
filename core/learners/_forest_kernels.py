"""The loop of `core.learners.forest`, compiled: some pixels walk down one tree side by side."""

from __future__ import annotations

import numpy as np

from core.learners._feature_kernels import compiled

BLOCK_PX = 1024
"""Pixels that go down one tree before the next is begun: its nodes and their features fit in the cache."""

SIDE_BY_SIDE = 8
"""Pixels whose steps do not wait for one another."""


@compiled
def add_votes(rows, nodes, leaf, shares, roots, out):  # type: ignore[no-untyped-def]
    """Add each tree's class shares for `(n, F)` rows to `out` `(n, n_classes)`.

    Children of a node are neighbours: the left one is `step` nodes on, and the right one follows. A leaf
    makes no step and has an endless threshold, so pixels that arrive early wait there and no step needs a
    branch.
    """
    n_classes = shares.shape[1]
    at = np.empty(SIDE_BY_SIDE, np.int32)
    for begin in range(0, rows.shape[0], BLOCK_PX):
        end = min(begin + BLOCK_PX, rows.shape[0])
        for tree in range(len(roots)):
            for first in range(begin, end, SIDE_BY_SIDE):
                n = min(SIDE_BY_SIDE, end - first)
                at[:n] = roots[tree]
                is_moving = True
                while is_moving:
                    is_moving = False
                    for i in range(n):
                        node = nodes[at[i]]
                        goes_right = np.int32(rows[first + i, node.feature] > node.threshold)
                        to = at[i] + np.int32(node.step) + goes_right
                        is_moving |= to != at[i]
                        at[i] = to
                for i in range(n):
                    row = leaf[at[i]]
                    for c in range(n_classes):
                        out[first + i, c] += shares[row, c]
