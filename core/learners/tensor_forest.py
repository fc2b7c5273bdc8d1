"""A forest's answer as operations on tensors: what `core.learners.forest_map` gives, on a GPU.

Compiled loops are faster on processors. Comparisons are those of the loops, so that equal features give equal
votes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from core.learners.forest import Forest
from core.learners.forest_map import COUNTS_LITTLE, STEP, SURE

PIXELS_AT_ONCE = 1 << 18
"""Pixels that walk down all trees together: half a gigabyte for 32 trees."""

STEPS_TOGETHER = 6
"""Steps down a tree after which those that have arrived are taken out: looking for them costs one step."""


class TensorForest:
    """The nodes of a forest on a device.

    Examples
    --------
    >>> import numpy as np
    >>> from core.learners.forest_growth import train_forest
    >>> rows = np.arange(40, dtype=np.float32)[:, None]
    >>> forest = train_forest(rows, np.repeat(np.array([0, 1], np.uint8), 20), 2, seed=0)
    >>> said = TensorForest(forest, torch.device("cpu")).probabilities(torch.from_numpy(rows.T))
    >>> bool(np.allclose(said.numpy().T, forest.probabilities(rows)))
    True
    """

    def __init__(self, forest: Forest, device: torch.device) -> None:
        self._feature, self._child, self._leaf, self._roots = (
            torch.from_numpy(array).to(device).long()
            for array in (forest.feature, forest.child, forest.leaf, forest.roots)
        )
        self._threshold, self._shares = (
            torch.from_numpy(array).to(device) for array in (forest.threshold, forest.shares)
        )

    def probabilities(self, planes: Tensor) -> Tensor:
        """Mean over the trees of the class shares: `(F, n)` float32 features to `(n_classes, n)`."""
        parts = [self._sum(part) for part in torch.split(planes, PIXELS_AT_ONCE, dim=1)]
        return torch.cat(parts).T.contiguous() / len(self._roots)

    def _sum(self, planes: Tensor) -> Tensor:
        n = planes.shape[1]
        leaves = self._walk(planes.contiguous().view(-1), n).view(len(self._roots), n)
        total = self._shares.new_zeros(n, self._shares.shape[1])
        for own in leaves:
            total += self._shares[self._leaf[own]]
        return total

    def _walk(self, values: Tensor, n: int) -> Tensor:
        """The leaf that each of `n` pixels reaches in each tree, tree by tree: `(n_trees * n,)`."""
        at = self._roots.repeat_interleave(n)
        pixel = torch.arange(n, device=at.device).repeat(len(self._roots))
        leaves = torch.empty_like(at)
        place = torch.arange(len(at), device=at.device)
        while len(at):
            for _ in range(STEPS_TOGETHER):
                seen = values[self._feature[at] * n + pixel]
                at = self._child[at] + (seen > self._threshold[at])
            moves = self._child[at] != at  # a leaf is its own child
            leaves[place[~moves]] = at[~moves]
            at, pixel, place = at[moves], pixel[moves], place[moves]
        return leaves


def map_forest(
    forest: TensorForest,
    planes: Tensor,
    shape: tuple[int, int],
    beyond: tuple[bool, bool] = (False, False),
    weight: float = 1.0,
) -> Tensor:
    """`core.learners.forest_map.forest_map` from the features `(F, h, w)` of all pixels of a part.

    Parameters
    ----------
    planes : (F, h, w) float32 tensor
        Features from the first pixel of the part on; where it goes on, of what is beyond as well.
    shape : rows and columns of the part
    beyond : whether the image goes on below and to the right
    weight : what the forest counts in its model

    Returns
    -------
    (n_classes, *shape) float32 tensor
    """
    n_rows, n_columns = (n + more for n, more in zip(shape, beyond, strict=True))
    asked = planes[:, :n_rows:STEP, :n_columns:STEP]
    votes = forest.probabilities(asked.flatten(1)).view(-1, *asked.shape[1:])
    answer, settled = between_neighbours(votes, shape)
    if weight <= COUNTS_LITTLE:
        return answer
    is_open = ~settled
    is_open[::STEP, ::STEP] = False
    rows, columns = torch.nonzero(is_open, as_tuple=True)
    answer[:, rows, columns] = forest.probabilities(planes[:, rows, columns])
    return answer


def between_neighbours(asked: Tensor, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """What votes `(C, h, w)` at each second pixel say of all pixels `(C, *shape)`, and where that settles it.

    Where the four pixels around another one agree on a class and are sure, their mean stands for it.
    """
    asked = torch.cat([asked, asked[:, -1:]], dim=1)
    asked = torch.cat([asked, asked[:, :, -1:]], dim=2)
    here, right, below, across = asked[:, :-1, :-1], asked[:, :-1, 1:], asked[:, 1:, :-1], asked[:, 1:, 1:]
    upper = torch.stack([here, (here + right) * 0.5], dim=3).flatten(2)
    lower = torch.stack([(here + below) * 0.5, (here + right + below + across) * 0.25], dim=3).flatten(2)
    mean = torch.stack([upper, lower], dim=2).flatten(1, 2)[:, : shape[0], : shape[1]]
    agree = torch.ones_like(here[0], dtype=torch.bool)
    for corner in (here, right, below, across):
        agree = agree & (corner.argmax(0) == here.argmax(0)) & (corner.amax(0) >= SURE)
    wide = torch.stack([agree, agree], dim=2).flatten(1)
    settled = torch.stack([wide, wide], dim=1).flatten(0, 1)[: shape[0], : shape[1]]
    return mean, settled
