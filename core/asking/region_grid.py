"""Positions for square boxes on an image, without keeping more of it than means of small blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from core.painting import Box

QUESTION_DIAMETERS = 2.0
"""A question shows an object and its neighbourhood: this many typical diameters wide."""

MIN_SIDE_PX, MAX_SIDE_PX = 48, 256
"""Smaller boxes are hard to hit, larger ones take long to check."""

MIN_SIDE_SHARE = 1 / 8
"""Small images are shown enlarged: there, a box of this share of the shorter side is large enough to hit."""

MIN_BOXES_ACROSS = 3
"""However small the image, a question is at most this part of it."""

BLOCKS_PER_SIDE = 4
"""Boxes move in steps of a quarter of their side: means of blocks are all that is kept of an image."""

ROWS_AT_ONCE = 512
"""Bounds the memory in 32-bit numbers on very large images."""

Corner = tuple[int, int]
"""Row and column of a box's first block."""


@dataclass(frozen=True)
class Grid:
    """Blocks of `step` pixels from `(top, left)` on; a box is `blocks` blocks high and wide.

    Examples
    --------
    >>> grid = Grid.of((100, 100), object_size_px=24)
    >>> grid.shape, grid.box(0, 0)
    ((12, 12), Box(top=2, left=2, height=32, width=32))
    """

    top: int
    left: int
    step: int
    blocks: tuple[int, int]
    shape: tuple[int, int]

    @classmethod
    def of(cls, image_shape: tuple[int, int], object_size_px: float) -> Grid:
        shorter = min(image_shape)
        least = min(MIN_SIDE_PX, MIN_SIDE_SHARE * shorter)
        side_px = min(
            max(QUESTION_DIAMETERS * object_size_px, least), MAX_SIDE_PX, shorter / MIN_BOXES_ACROSS
        )
        step = max(1, round(side_px / BLOCKS_PER_SIDE))
        shape = (image_shape[0] // step, image_shape[1] // step)
        # What does not fill a block is left out evenly on both sides.
        top, left = (image_shape[0] % step) // 2, (image_shape[1] % step) // 2
        blocks = (min(BLOCKS_PER_SIDE, shape[0]), min(BLOCKS_PER_SIDE, shape[1]))
        return cls(top, left, step, blocks, shape)

    def box(self, row: int, column: int) -> Box:
        height, width = self.blocks[0] * self.step, self.blocks[1] * self.step
        return Box(self.top + row * self.step, self.left + column * self.step, height, width)

    def stripes(self) -> Iterator[tuple[slice, slice, slice]]:
        """Yield rows of blocks, with the rows and columns of pixels that they cover."""
        rows_per_stripe = max(1, ROWS_AT_ONCE // self.step)
        columns = slice(self.left, self.left + self.shape[1] * self.step)
        for first in range(0, self.shape[0], rows_per_stripe):
            last = min(first + rows_per_stripe, self.shape[0])
            yield (
                slice(first, last),
                slice(self.top + first * self.step, self.top + last * self.step),
                columns,
            )

    def block_means(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Mean of each block of a stripe of pixels."""
        height, width = values.shape
        blocks = values.reshape(height // self.step, self.step, width // self.step, self.step)
        return np.asarray(blocks.mean(axis=(1, 3), dtype=np.float32))

    def box_means(self, of_blocks: NDArray[np.float32]) -> NDArray[np.float64]:
        """Mean of the box at each place, from the means of all blocks."""
        # A summed-area table gives each box in four reads, however large the boxes are.
        total = cv2.integral(of_blocks, sdepth=cv2.CV_64F)
        rows, columns = self.blocks
        summed = (
            total[rows:, columns:]
            - total[:-rows, columns:]
            - total[rows:, :-columns]
            + total[:-rows, :-columns]
        )
        return np.asarray(summed / (rows * columns), np.float64)

    def pick_apart(self, keys: NDArray[np.float64], least: float) -> Iterator[Corner]:
        """Yield the place with the highest key again and again, without those that would overlap it."""
        left = keys.copy()
        rows, columns = self.blocks
        while True:
            row, column = (int(i) for i in np.unravel_index(int(np.argmax(left)), left.shape))
            if left[row, column] < least:
                return
            yield row, column
            # A box whose first block is nearer than one box would overlap this one.
            left[
                max(0, row - rows + 1) : row + rows, max(0, column - columns + 1) : column + columns
            ] = -np.inf
