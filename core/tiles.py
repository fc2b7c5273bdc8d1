"""Cut large images into tiles that know their surroundings, so that stitching leaves no seam."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

TILE_PX = 512
"""Side of the part that one tile answers for: large enough that its margin costs little."""

Slices = tuple[slice, slice]


@dataclass(frozen=True)
class Tile:
    """`core`: rows and columns of the image that this tile answers; `read`: those it must see for it.

    `read` begins on a multiple of the network's stride, and reaches the receptive margin beyond `core`
    unless the image ends before.
    """

    core: Slices
    read: Slices

    @property
    def core_in_read(self) -> Slices:
        """`core` relative to the first pixel of `read`."""
        rows, columns = (
            slice(core.start - read.start, core.stop - read.start)
            for core, read in zip(self.core, self.read, strict=True)
        )
        return rows, columns


def cut_tiles(shape: tuple[int, int], margin_px: int, stride: int, tile_px: int = TILE_PX) -> Iterator[Tile]:
    """Cover an image of `shape` with tiles, row by row; cores are disjoint and leave nothing out.

    Examples
    --------
    >>> [tile.read[1] for tile in cut_tiles((8, 20), margin_px=4, stride=4, tile_px=12)]
    [slice(0, 16, None), slice(8, 20, None)]
    """
    side = max(stride, tile_px // stride * stride)
    margin = math.ceil(margin_px / stride) * stride
    for top in range(0, shape[0], side):
        for left in range(0, shape[1], side):
            rows, read_rows = _spans(top, shape[0], side, margin)
            columns, read_columns = _spans(left, shape[1], side, margin)
            yield Tile(core=(rows, columns), read=(read_rows, read_columns))


def _spans(begin: int, length: int, side: int, margin: int) -> tuple[slice, slice]:
    end = min(begin + side, length)
    return slice(begin, end), slice(max(begin - margin, 0), min(end + margin, length))
