"""What every reader gives: a file as frames, each of which is one picture with channels.

A frame is read in boxes, so that a whole slide never has to be in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.painting import Box

BAND_BYTES = 64_000_000
"""A frame that is walked through is read in bands of about so many bytes."""

COLOUR_CHANNELS = 3


@dataclass(frozen=True)
class Frame:
    """One picture of a file.

    `name` tells it from the others of the file (`z03`), and is empty where there is one. `shape` is
    `(H, W, C)`; `read` takes a box inside it and gives its `(h, w, C)` pixels in `dtype`. With `is_colour`
    the first three channels are red, green and blue.
    """

    name: str
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    read: Callable[[Box], NDArray[Any]]
    is_colour: bool = False

    @property
    def box(self) -> Box:
        """All of the frame."""
        return Box(0, 0, *self.shape[:2])


@dataclass(frozen=True)
class Raster:
    """A file that is open. `channels` are names that it gives; `remarks` say what of it is not brought in."""

    frames: tuple[Frame, ...]
    channels: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    georeference: str = ""
    is_geotiff: bool = False


def frame_of(pixels: NDArray[Any], name: str = "", *, is_colour: bool | None = None) -> Frame:
    """A frame over an array `(H, W)` or `(H, W, C)` in memory; three channels are red, green and blue."""
    whole = pixels[:, :, np.newaxis] if pixels.ndim == 2 else pixels
    height, width, n_channels = whole.shape
    if is_colour is None:
        is_colour = n_channels == COLOUR_CHANNELS
    return Frame(
        name, (height, width, n_channels), whole.dtype, lambda box: np.asarray(whole[box.slices]), is_colour
    )


def walk_bands(frame: Frame) -> Iterator[NDArray[Any]]:
    """The frame from top to bottom, in bands `(h, W, C)`."""
    height, width, n_channels = frame.shape
    n_rows = max(1, BAND_BYTES // max(1, width * n_channels * frame.dtype.itemsize))
    for top in range(0, height, n_rows):
        yield frame.read(Box(top, 0, min(n_rows, height - top), width))


def cut_boxes(shape: tuple[int, int], tile_px: int | None) -> list[Box]:
    """Boxes of at most `tile_px` that cover an image of `shape`, row by row; one box without a size.

    Examples
    --------
    >>> [(box.top, box.left, box.height, box.width) for box in cut_boxes((3, 5), 3)]
    [(0, 0, 3, 3), (0, 3, 3, 2)]
    """
    height, width = shape
    if tile_px is None or max(height, width) <= tile_px:
        return [Box(0, 0, height, width)]
    return [
        Box(top, left, min(tile_px, height - top), min(tile_px, width - left))
        for top in range(0, height, tile_px)
        for left in range(0, width, tile_px)
    ]
