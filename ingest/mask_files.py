"""Masks as whole numbers: PNG with grey values or a palette, TIFF of any depth. Never a pickle."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.errors import ImageError
from core.painting import Box
from ingest.frames import Frame, frame_of
from ingest.tiff import TIFF_STARTS, open_tiff

PNG_START = b"\x89PNG\r\n\x1a\n"
NO_PICKLES = (
    "NumPy files may hold programs that run when they are opened, and are not read: save masks as PNG or "
    "TIFF (in Cellpose: File, Save masks as PNG/tif)"
)
PLAIN_MODES = ("1", "L", "P", "I", "I;16", "I;16B")
MOST_MASK_PIXELS = 2**31


@contextmanager
def open_mask(path: Path, axes: str | None = None) -> Iterator[tuple[Frame, ...]]:
    """The frames of a mask, each `(H, W, 1)`; raises `ImageError` for what holds no numbers of its own."""
    with path.open("rb") as file:
        start = file.read(16)
    if path.suffix.lower() in (".npy", ".npz") or start.startswith(b"\x93NUMPY"):
        raise ImageError(NO_PICKLES)
    if start.startswith(TIFF_STARTS):
        with open_tiff(path, axes, keep_indices=True) as raster:
            yield raster.frames
    elif start.startswith(PNG_START):
        yield (frame_of(_read_png(path)),)
    else:
        raise ImageError("a mask is a PNG or a TIFF: other formats change the numbers in it")


def read_numbers(frame: Frame, box: Box) -> NDArray[np.int64]:
    """`(h, w)` whole numbers of a box; raises `ImageError` for colours and fractions."""
    pixels = frame.read(box)
    if pixels.shape[2] > 1:
        if any((pixels[:, :, :1] != pixels[:, :, 1:3]).ravel()):
            raise ImageError(
                "it is a picture in colours, and not of numbers: save label numbers in one channel"
            )
        pixels = pixels[:, :, :1]
    values = pixels[:, :, 0]
    if values.dtype.kind == "f":
        if not np.isfinite(values).all() or (values != np.rint(values)).any():
            raise ImageError("it holds fractions: a mask is of whole numbers")
        if np.abs(values).max(initial=0) > 2**53:
            raise ImageError("it holds numbers too large to be exact")
    if values.dtype == np.uint64 and values.max(initial=0) > np.iinfo(np.int64).max:
        raise ImageError("it holds numbers too large to be exact")
    return np.asarray(values.astype(np.int64))


def _read_png(path: Path) -> NDArray[Any]:
    with Image.open(path, formats=("PNG",)) as image:
        if image.width * image.height > MOST_MASK_PIXELS:
            raise ImageError(f"it has {image.width} x {image.height} pixels, too many for a mask")
        if image.mode in PLAIN_MODES:
            return np.asarray(image).astype(np.int32)
        pixels = np.asarray(image.convert("RGBA"))
    if (pixels[:, :, 3] != pixels[:, :, 3].flat[0]).any():
        raise ImageError("it is transparent in places: save label numbers in one channel")
    return pixels[:, :, :3]
