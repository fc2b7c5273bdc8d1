"""Pictures upright: EXIF's and TIFF's orientation 1 to 8, of arrays and of frames that are read in boxes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from core.painting import Box
from ingest.frames import Frame

UPRIGHT = 1
QUARTER_TURNS = (5, 6, 7, 8)
ROWS_BACKWARDS, COLUMNS_BACKWARDS = (3, 4, 7, 8), (2, 3, 6, 7)


def turn(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn `(H, W, ...)` pixels by an orientation; anything but 2 to 8 leaves them as they are.

    The result looks at the memory of `pixels`: a large image is copied once, on its way to the disk.
    """
    if orientation in QUARTER_TURNS:
        pixels = pixels.swapaxes(0, 1)
    if orientation in ROWS_BACKWARDS:
        pixels = pixels[::-1]
    if orientation in COLUMNS_BACKWARDS:
        pixels = pixels[:, ::-1]
    return pixels


def turn_frame(frame: Frame, orientation: int) -> Frame:
    """A frame as `turn` shows it; a box of it is read from the box of the file that it comes from."""
    if orientation not in range(UPRIGHT + 1, 9):
        return frame
    height, width, n_channels = frame.shape
    is_quarter = orientation in QUARTER_TURNS
    shape = (width, height, n_channels) if is_quarter else frame.shape

    def read(box: Box) -> NDArray[Any]:
        return turn(frame.read(_stored(box, shape, orientation)), orientation)

    return replace(frame, shape=shape, read=read)


def _stored(box: Box, shape: tuple[int, ...], orientation: int) -> Box:
    """Where a box of the turned picture of `shape` lies in the stored one."""
    top, left = box.top, box.left
    if orientation in COLUMNS_BACKWARDS:
        left = shape[1] - left - box.width
    if orientation in ROWS_BACKWARDS:
        top = shape[0] - top - box.height
    if orientation in QUARTER_TURNS:
        return Box(left, top, box.width, box.height)
    return Box(top, left, box.height, box.width)
