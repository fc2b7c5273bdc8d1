"""A forest's answer for a part of an image: asked at every fourth pixel, and at others where that matters.

Neighbours mostly fall into like leaves. Where the four asked pixels around another one agree on a class and
each is sure of it, their mean stands for it; elsewhere, along borders and in noise, every pixel is asked. A
forest that counts little beside other learners is not asked again: their mean stands everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.learners.forest import Forest

STEP = 2
"""Every second pixel of every second row is asked."""

SURE = 0.3
"""What each of four neighbours must say of their class, or what is between them is asked too.

With two classes their agreement is enough. Of eleven, .5 asked a third more pixels, for .0008 Dice at most,
up or down."""

COUNTS_LITTLE = 0.2
"""Up to this weight among the learners of a model only every fourth pixel is asked. Beside a head, with
weights of .05 to .2, that changed Dice by +.0001 to -.0003 on three sets, and by -.0007 to -.003 on
sandstone, where the hold-out gives a forest .8."""

Describe = Callable[[NDArray[np.intp], NDArray[np.intp]], NDArray[np.float32]]
"""Gives features `(n, F)` at rows and columns of the part."""


def forest_map(
    forest: Forest,
    describe: Describe,
    shape: tuple[int, int],
    beyond: tuple[bool, bool] = (False, False),
    weight: float = 1.0,
) -> NDArray[np.float32]:
    """Probabilities `(h, w, n_classes)` of all pixels of a part of `shape`.

    `beyond` tells whether the image goes on below and to the right. One row or column more is then asked, and
    an answer does not depend on the parts that an image is cut into: they begin at even rows and columns.
    `weight` is what the forest counts in its model.
    """
    height, width = shape
    grid = [np.arange(0, n + more, STEP) for n, more in zip(shape, beyond, strict=True)]
    rows, columns = (part.ravel() for part in np.meshgrid(*grid, indexing="ij"))
    asked = forest.probabilities(describe(rows, columns)).reshape(*map(len, grid), forest.n_classes)
    padded = np.pad(asked, ((0, 1), (0, 1), (0, 0)), "edge")
    corners = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    answer = _between(corners)[:height, :width]
    if weight <= COUNTS_LITTLE:
        return answer
    is_open = np.repeat(np.repeat(~_agree(corners), STEP, 0), STEP, 1)[:height, :width]
    is_open[::STEP, ::STEP] = False
    left_rows, left_columns = np.nonzero(is_open)
    if len(left_rows):
        answer[left_rows, left_columns] = forest.probabilities(describe(left_rows, left_columns))
    return answer


def _between(corners: tuple[NDArray[np.float32], ...]) -> NDArray[np.float32]:
    """Twice as many rows and columns, by the means of two or four neighbours."""
    here, right, below, across = corners
    height, width, n_classes = here.shape
    out = np.empty((STEP * height, STEP * width, n_classes), np.float32)
    half, quarter = np.float32(0.5), np.float32(0.25)
    out[::STEP, ::STEP] = here
    out[::STEP, 1::STEP] = (here + right) * half
    out[1::STEP, ::STEP] = (here + below) * half
    out[1::STEP, 1::STEP] = (here + right + below + across) * quarter
    return out


def _agree(corners: tuple[NDArray[np.float32], ...]) -> NDArray[Any]:
    """Where the four neighbours say the same class, and each is sure."""
    first = corners[0].argmax(-1)
    agree = corners[0].max(-1) >= SURE
    for corner in corners[1:]:
        agree &= (corner.argmax(-1) == first) & (corner.max(-1) >= SURE)
    return np.asarray(agree)
