"""A box of a TIFF's page: only the tiles or strips that it touches are read and decoded."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.errors import ImageError
from core.painting import Box

JPEG_COMPRESSIONS = (6, 7, 34892, 33007)
LARGEST_SEGMENT_BYTES = 2**31
"""A page in one compressed strip has to be decoded at once."""


def read_box(keyframe: Any, page: Any, box: Box) -> NDArray[Any]:
    """The box of one page, in the order of the page's axes; Y and X are cut, samples are whole.

    `page` may be one of tifffile's frames, which has nothing but offsets: all else is the keyframe's.
    """
    planes, depth, _, _, samples = keyframe.shaped
    if depth != 1:
        raise ImageError("its tiles have a depth, which is not supported")
    target: NDArray[Any] = np.zeros((planes, box.height, box.width, samples), keyframe.dtype)
    for index in _touched(keyframe, box):
        _copy_segment(keyframe, page, index, box, target)
    return _to_page_axes(target, keyframe)


def _touched(keyframe: Any, box: Box) -> list[int]:
    """Numbers of the segments that the box touches."""
    height, width = _segment_size(keyframe)
    n_rows, n_columns = math.ceil(keyframe.imagelength / height), math.ceil(keyframe.imagewidth / width)
    rows = range(box.top // height, min(n_rows, math.ceil((box.top + box.height) / height)))
    columns = range(box.left // width, min(n_columns, math.ceil((box.left + box.width) / width)))
    planes = range(int(keyframe.shaped[0]))
    return [
        (plane * n_rows + row) * n_columns + column for plane, row, column in product(planes, rows, columns)
    ]


def _segment_size(keyframe: Any) -> tuple[int, int]:
    """Rows and columns of a tile, or of a strip."""
    if keyframe.is_tiled:
        return int(keyframe.tilelength), int(keyframe.tilewidth)
    return max(1, min(int(keyframe.rowsperstrip), int(keyframe.imagelength))), int(keyframe.imagewidth)


def _copy_segment(keyframe: Any, page: Any, index: int, box: Box, target: NDArray[Any]) -> None:
    if index >= len(page.dataoffsets):
        raise ImageError("it ends early: some of its tiles or strips are missing")
    segment, place, shape = _decode(keyframe, page, index)
    if segment is None:
        return  # a sparse file: what is not there has the value of nothing
    plane, _, top, left, _ = place
    bottom, right = top + shape[1], left + shape[2]
    rows = slice(max(top, box.top), min(bottom, box.top + box.height))
    columns = slice(max(left, box.left), min(right, box.left + box.width))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    part = segment[0, rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    target[
        plane, rows.start - box.top : rows.stop - box.top, columns.start - box.left : columns.stop - box.left
    ] = part


def _decode(keyframe: Any, page: Any, index: int) -> tuple[Any, Any, Any]:
    file = page.parent.filehandle
    n_bytes = page.databytecounts[index]
    if n_bytes > LARGEST_SEGMENT_BYTES:
        raise ImageError("one of its strips is larger than 2 GiB: save it in tiles")
    data = _read_bytes(file, int(page.dataoffsets[index]), int(n_bytes)) if n_bytes else None
    more = {}
    if keyframe.compression in JPEG_COMPRESSIONS:
        more = {"jpegtables": page.jpegtables, "jpegheader": keyframe.jpegheader}
    segment, place, shape = keyframe.decode(data, index, _fullsize=False, **more)
    return segment, place, shape


def _read_bytes(file: Any, offset: int, n_bytes: int) -> bytes:
    """Bytes of a file, which is opened for a moment where it is another one of a set."""
    was_closed = file.closed
    if was_closed:
        file.open()
    try:
        file.seek(offset)
        data = bytes(file.read(n_bytes))
    finally:
        if was_closed:
            file.close()
    if len(data) < n_bytes:
        raise ImageError("it ends early: some of its tiles or strips are cut off")
    return data


def _to_page_axes(target: NDArray[Any], keyframe: Any) -> NDArray[Any]:
    """`(planes, h, w, samples)` in the order of the page's axes, without those of one entry."""
    axes = [
        letter
        for letter, size in zip(keyframe.axes, keyframe.shape, strict=True)
        if letter in "YX" or size > 1
    ]
    if "S" not in axes:
        return target[0, :, :, 0]
    return target[0] if axes.index("S") > axes.index("Y") else target[:, :, :, 0]
