"""TIFF files to arrays: microscopy with any number of channels, and the compressed ones of other programs."""

from __future__ import annotations

import zlib
from math import prod
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from core.errors import ImageError
from ingest.turning import QUARTER_TURNS, turn
from ml_backend.label_studio.image_frame import ImageLimits

CHANNEL_AXES = "SCIQ"
"""tifffile's letters for samples, channels, and pages of which nobody says what they are."""

MAX_CHANNELS = 64
UNCOMPRESSED = 1
DEFLATE = (8, 32946)
PHOTOMETRIC_WHITE_IS_ZERO, PHOTOMETRIC_RGB, PHOTOMETRIC_PALETTE = 0, 2, 3
UNSPECIFIED, ALPHA_SAMPLES = 0, (1, 2)
"""TIFF's ExtraSamples: a channel like the others; associated and unassociated alpha."""
GREYS_OR_COLOURS, COLOUR_AND_ONE, DEEP_BITS = (1, 3), 4, 16
PILLOW_MODES = ("LA", "RGBA", "RGBX", "RGBa", "CMYK")


def read_tiff(path: Path, limits: ImageLimits) -> NDArray[Any]:
    """Decode the first picture of a TIFF to `(H, W, C)`; sizes are checked before pixels are read.

    All channels are kept except those that the file itself calls alpha.
    """
    with tifffile.TiffFile(path) as tiff:
        series, kept, n_channels = _check_header(tiff, limits)
        page = series.keyframe
        if page.photometric == PHOTOMETRIC_PALETTE:
            pixels = _read_palette(path, page)
        else:
            pixels = _read(path, series, kept, n_channels)
            pixels = _without_alpha(pixels, page)
        return turn(_finish(pixels, page), _orientation(page))


def read_tiff_size(path: Path, limits: ImageLimits) -> tuple[int, int]:
    """`(H, W)` as `read_tiff` will give it, from the header alone."""
    with tifffile.TiffFile(path) as tiff:
        series, kept, _ = _check_header(tiff, limits)
        shape = dict(kept)
        is_turned = _orientation(series.keyframe) in QUARTER_TURNS
        return (shape["X"], shape["Y"]) if is_turned else (shape["Y"], shape["X"])


def _check_header(tiff: tifffile.TiffFile, limits: ImageLimits) -> tuple[Any, list[tuple[str, int]], int]:
    """The first picture, its axes and its channels; raises for those that are not read here."""
    if not tiff.series:
        raise ImageError("the TIFF has no picture in it")
    series = tiff.series[0]
    kept = _kept_axes(series)
    shape = dict(kept)
    n_channels = prod(size for letter, size in kept if letter not in "YX")
    limits.check_shape(shape["Y"], shape["X"], n_channels, series.dtype.itemsize)
    return series, kept, n_channels


def _orientation(page: Any) -> int:
    return int(page.tags.valueof("Orientation", 1))


def _read(path: Path, series: Any, kept: list[tuple[str, int]], n_channels: int) -> NDArray[Any]:
    """What libtiff can hold is read by it: its decoders stay inside their buffers. The rest is tifffile's."""
    page, shape = series.keyframe, dict(kept)
    axes = "".join(letter for letter, _ in kept)
    is_deflated = page.compression in DEFLATE and not _is_plain(page, n_channels)
    if page.compression == UNCOMPRESSED or axes not in ("YX", "YXS") or is_deflated:
        return _read_with_tifffile(series, kept)
    size = (shape["Y"], shape["X"])
    pixels = _read_with_opencv(path, size) if _is_plain(page, n_channels) else _read_with_pillow(path, size)
    if pixels.shape[2] != n_channels:
        raise ImageError(f"a TIFF of {n_channels} channels is not supported with {page.compression!s}")
    return pixels


def _is_plain(page: Any, n_channels: int) -> bool:
    """Whether OpenCV gives all channels as stored: of others it drops some, or multiplies by alpha."""
    if n_channels == COLOUR_AND_ONE:
        is_kept = page.bitspersample == DEEP_BITS or tuple(page.extrasamples) == (UNSPECIFIED,)
        return bool(page.photometric == PHOTOMETRIC_RGB and is_kept)
    return n_channels in GREYS_OR_COLOURS and not page.extrasamples


def _without_alpha(pixels: NDArray[Any], page: Any) -> NDArray[Any]:
    """The channels that the file does not call alpha; what it says nothing of is a channel."""
    extra = tuple(int(kind) for kind in page.extrasamples)
    if pixels.shape[2] != page.samplesperpixel or not extra:
        return pixels
    first_extra = pixels.shape[2] - len(extra)
    kept = [*range(first_extra), *(first_extra + i for i, k in enumerate(extra) if k not in ALPHA_SAMPLES)]
    return pixels if len(kept) == pixels.shape[2] or not kept else pixels[:, :, kept]


def _kept_axes(series: Any) -> list[tuple[str, int]]:
    """Axes of more than one entry (and Y and X always); raises for stacks."""
    axes = [(letter, int(size)) for letter, size in zip(series.axes, series.shape, strict=True)]
    kept = [(letter, size) for letter, size in axes if letter in "YX" or size > 1]
    letters = [letter for letter, _ in kept]
    others = [letter for letter in letters if letter not in "YX"]
    is_picture = letters.count("Y") == letters.count("X") == 1 and len(others) <= 1
    if not is_picture or any(letter not in CHANNEL_AXES for letter in others):
        raise ImageError(f"the TIFF is no single picture with channels: its axes are {series.axes}")
    if any(size > MAX_CHANNELS for letter, size in kept if letter in others):
        raise ImageError(f"the TIFF has more than {MAX_CHANNELS} channels")
    return kept


def _read_with_tifffile(series: Any, kept: list[tuple[str, int]]) -> NDArray[Any]:
    for page in series.pages:
        if page is not None and page.compression != UNCOMPRESSED:
            _check_segments(series.keyframe, page)
    pixels: NDArray[Any] = np.asarray(series.asarray()).reshape([size for _, size in kept])
    letters = [letter for letter, _ in kept]
    others = [letter for letter in letters if letter not in "YX"]
    order = [letters.index(letter) for letter in ("Y", "X", *others)]
    pixels = pixels.transpose(order)
    return pixels if pixels.ndim == 3 else pixels[:, :, np.newaxis]


def _check_segments(keyframe: Any, page: Any) -> None:
    """Inflate each segment no further than its size: tifffile's own fallback would go on without end."""
    if page.compression not in DEFLATE:
        raise ImageError(f"a multi-channel TIFF with compression {page.compression!s} is not supported")
    most = prod(keyframe.chunks) * keyframe.dtype.itemsize + 1
    file = page.parent.filehandle
    for offset, n_bytes in zip(page.dataoffsets, page.databytecounts, strict=True):
        file.seek(offset)
        if len(zlib.decompressobj().decompress(file.read(n_bytes), most)) >= most:
            raise ImageError("a part of the TIFF holds more than its header says")


def _read_with_opencv(path: Path, size: tuple[int, int]) -> NDArray[Any]:
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.shape[:2] != size:
        raise ImageError("the TIFF is damaged, or its compression is not supported")
    if pixels.ndim == 2:
        return pixels[:, :, np.newaxis]
    order = [2, 1, 0, 3][: pixels.shape[2]]
    return pixels[:, :, order]


def _read_with_pillow(path: Path, size: tuple[int, int]) -> NDArray[Any]:
    """Grey or colour of 8 bits with one more channel, as stored."""
    with Image.open(path, formats=("TIFF",)) as image:
        if image.mode not in PILLOW_MODES or image.size != size[::-1]:
            raise ImageError("a TIFF of several channels in this compression is not supported: use Deflate")
        return np.asarray(image)


def _read_palette(path: Path, page: Any) -> NDArray[Any]:
    """OpenCV turns a palette into colour by itself."""
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None or pixels.shape[:2] != (page.imagelength, page.imagewidth):
        raise ImageError("the TIFF with a palette is damaged")
    return pixels[:, :, ::-1]


def _finish(pixels: NDArray[Any], page: Any) -> NDArray[Any]:
    """Spread single bits, and refuse what is neither 8 nor 16 bits."""
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * np.uint8(255)
    if pixels.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"a TIFF of {pixels.dtype} is not supported: save 8 or 16 bits without sign")
    if page.photometric == PHOTOMETRIC_WHITE_IS_ZERO:
        pixels = np.iinfo(pixels.dtype).max - pixels
    return pixels
