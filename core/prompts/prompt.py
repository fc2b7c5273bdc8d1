"""What a person points at, what is known of the image, and the one mask that answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.painting import Box, Mask

Point = tuple[float, float]
"""Row and column in pixels; `(0.5, 0.5)` is the middle of the first pixel."""


@dataclass(frozen=True)
class Prompt:
    """Where one object is: inside and outside points, a box around it, a rough stroke over it.

    `stroke` is `(H, W)` bool. A prompt with neither a box, a stroke nor a positive point points at nothing.
    """

    positive: tuple[Point, ...] = ()
    negative: tuple[Point, ...] = ()
    box: Box | None = None
    stroke: Mask | None = None


@dataclass(frozen=True)
class Known:
    """What is known of an image beside its pixels; everything may be missing.

    Attributes
    ----------
    probability : (H, W) float
        Of the class that is asked for, in 0..1, from the project's model.
    objects : (H, W) int32
        Objects of that class in the suggestion, 1..n.
    taken : (H, W) bool
        Painted already, as whatever: an answer never covers it.
    typical_diameter_px : float
        Of the objects of that class.
    """

    probability: NDArray[np.floating] | None = None
    objects: NDArray[np.int32] | None = None
    taken: Mask | None = None
    typical_diameter_px: float | None = None


@dataclass(frozen=True)
class PromptedMask:
    """The answer, cut to its box; `score` is how sure its pixels are, in 0..1."""

    mask: Mask
    top: int
    left: int
    score: float

    @property
    def box(self) -> Box:
        return Box(self.top, self.left, *self.mask.shape)


def pixel_of(point: Point, shape: tuple[int, int]) -> tuple[int, int]:
    """The pixel that holds a point, or the nearest one of the image.

    >>> pixel_of((2.7, 99.0), (10, 10))
    (2, 9)
    """
    row, column = (min(max(int(x), 0), size - 1) for x, size in zip(point, shape, strict=True))
    return row, column
