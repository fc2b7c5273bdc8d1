"""Image files to arrays: 8- and 16-bit PNG, JPEG, WebP, AVIF, BMP, GIF and TIFF, as the browser turns them.

Sizes are read from the header and checked before anything is decoded. Chromium turns JPEG and PNG
by their EXIF orientation and leaves WebP alone (seen with version 156); XMP does not count.
TIFF, which browsers do not show, is in `tiff_files`.

What browsers show is read as they show it: a file that ends early keeps what is there, and damage in what
is beside the pixels (colour profiles, texts, checksums of those) changes nothing.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from core.errors import ImageError
from ingest.turning import turn
from ml_backend.label_studio.file_kinds import READ_HERE, START_BYTES, describe_kind
from ml_backend.label_studio.image_frame import ImageLimits
from ml_backend.label_studio.tiff_files import read_tiff, read_tiff_size

FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "BMP", "GIF")
TURNED_FORMATS = ("PNG", "JPEG", "MPO", "AVIF")
"""MPO is how Pillow calls a JPEG with further pictures behind the first; AVIF's own turns come as EXIF's."""

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
PNG_START = b"\x89PNG\r\n\x1a\n"
PNG_DEPTH_AT, PNG_COLOUR_AT = 24, 25
PNG_GREY, PNG_GREY_ALPHA = 0, 4
BAND_ROWS = 256
ORIENTATION_TAG = 0x0112

DECODER_ERRORS = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    OverflowError,
    ZeroDivisionError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    AssertionError,
    SyntaxError,
    struct.error,
    zlib.error,
    cv2.error,
    tifffile.TiffFileError,  # no ValueError in the last release for Python 3.10
)
"""What Pillow, tifffile and OpenCV raise for damaged files; they promise no common class."""

# Our own limit is checked first; Pillow's would warn and then fail below it.
Image.MAX_IMAGE_PIXELS = None
# As browsers do. It also has Pillow pass over what is wrong beside the pixels.
ImageFile.LOAD_TRUNCATED_IMAGES = True


def read_image(path: Path, limits: ImageLimits) -> NDArray[Any]:
    """Decode a file to `(H, W, C)` uint8 or uint16; C is 1 for grey, 3 for colour, N for some TIFFs.

    Alpha is dropped, palettes become colour, and the EXIF orientation is applied as the browser does.
    """
    limits.check_bytes(path.stat().st_size)
    with path.open("rb") as file:
        start = file.read(32)
    try:
        if start.startswith(TIFF_STARTS):
            return read_tiff(path, limits)
        return _read_with_pillow(path, limits, start)
    except DECODER_ERRORS as error:
        raise ImageError(_complaint(error, path)) from None


def read_size(path: Path, limits: ImageLimits) -> tuple[int, int]:
    """`(H, W)` as `read_image` will give it, from the header alone."""
    limits.check_bytes(path.stat().st_size)
    with path.open("rb") as file:
        start = file.read(4)
    try:
        if start in TIFF_STARTS:
            return read_tiff_size(path, limits)
        with Image.open(path, formats=FORMATS) as image:
            limits.check_shape(image.height, image.width)
            turned = _orientation(image) >= 5
            return (image.width, image.height) if turned else (image.height, image.width)
    except DECODER_ERRORS as error:
        raise ImageError(_complaint(error, path)) from None


def count_further(path: Path) -> int:
    """How many pictures follow the first one, which alone is read, in a film of PNG, WebP, AVIF or GIF."""
    with Image.open(path, formats=FORMATS) as image:
        return 0 if image.format == "MPO" else int(getattr(image, "n_frames", 1)) - 1


def is_transparent(path: Path) -> bool:
    """Whether some pixel is not opaque; a palette or a colour that may be transparent counts as such."""
    with Image.open(path, formats=FORMATS) as image:
        if "A" in image.getbands():
            lowest, _ = image.getchannel("A").getextrema()
            return bool(float(lowest) < np.iinfo(np.uint8).max)
        return "transparency" in image.info


def find_hidden(path: Path) -> str:
    """What of an image browsers do not show as it is read here, in words; empty where they show all of it.

    They show 8 bits, blend what is transparent with what lies behind it, and play what moves.
    Raises `ImageError` where it cannot be told.
    """
    with path.open("rb") as file:
        start = file.read(START_BYTES)
    if start.startswith(TIFF_STARTS):
        return "it is a TIFF"
    try:
        with Image.open(path, formats=FORMATS) as image:
            is_deep = _bytes_per_value(image, start) > 1
        if is_deep:
            return "it has 16 bits"
        if count_further(path):
            return "it holds several pictures"
        return "it is transparent in places" if is_transparent(path) else ""
    except DECODER_ERRORS as error:
        raise ImageError(_complaint(error, path)) from None


def _read_with_pillow(path: Path, limits: ImageLimits, start: bytes) -> NDArray[Any]:
    with Image.open(path, formats=FORMATS) as image:
        limits.check_shape(image.height, image.width, len(image.getbands()), _bytes_per_value(image, start))
        orientation = _orientation(image)
        if _is_deep_colour(start):
            return turn(_read_deep_png(path, image.size, start[PNG_COLOUR_AT]), orientation)
        pixels = _to_array(_plain(image))
    if pixels.ndim == 2:
        pixels = pixels[:, :, np.newaxis]
    if pixels.dtype not in (np.uint8, np.uint16):
        pixels = pixels.astype(np.uint16)
    return turn(pixels, orientation)


def _plain(image: Image.Image) -> Image.Image:
    """The image in mode L, RGB, or one of the 16-bit greys."""
    if image.mode in ("L", "RGB") or image.mode.startswith("I;16"):
        return image
    if image.mode in ("1", "LA", "La"):
        return image.convert("L")
    if image.mode == "I":  # some versions of Pillow read 16-bit grey into 32 bits
        low, high = image.getextrema()
        if not 0 <= float(low) <= float(high) <= np.iinfo(np.uint16).max:  # type: ignore[arg-type]
            raise ImageError("the image has more than 16 bits per channel")
        return image
    if image.mode == "F":
        raise ImageError("images of floating point numbers are not supported: save 8 or 16 bits")
    if image.mode == "RGBA":
        return image  # `_to_array` takes the colours as stored, without blending
    return image.convert("RGBA" if "transparency" in image.info else "RGB")


def _to_array(image: Image.Image) -> NDArray[Any]:
    """Copy in bands: Pillow's own way takes a large image's memory twice more."""
    first = np.asarray(image.crop((0, 0, image.width, 1)))
    n_kept = (3,) if image.mode == "RGBA" else first.shape[2:]
    pixels = np.empty((*image.size[::-1], *n_kept), first.dtype)
    for top in range(0, image.height, BAND_ROWS):
        bottom = min(top + BAND_ROWS, image.height)
        band = np.asarray(image.crop((0, top, image.width, bottom)))
        pixels[top:bottom] = band[:, :, :3] if band.ndim == 3 else band
    return pixels


def _orientation(image: Image.Image) -> int:
    """EXIF orientation where the browser heeds it, else 1; never decodes the image."""
    raw = image.info.get("exif")
    if image.format not in TURNED_FORMATS or not isinstance(raw, bytes):
        return 1
    exif = Image.Exif()
    try:
        exif.load(raw)
        value = exif.get(ORIENTATION_TAG)
    except DECODER_ERRORS:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _is_deep_colour(start: bytes) -> bool:
    """True for 16-bit PNGs that are not plain grey: Pillow would cut them to 8 bits."""
    is_png = start.startswith(PNG_START) and len(start) > PNG_COLOUR_AT
    return is_png and start[PNG_DEPTH_AT] == 16 and start[PNG_COLOUR_AT] != PNG_GREY


def _bytes_per_value(image: Image.Image, start: bytes) -> int:
    return 2 if image.mode.startswith("I") or _is_deep_colour(start) else 1


def _read_deep_png(path: Path, size: tuple[int, int], colour: int) -> NDArray[Any]:
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16 or pixels.shape[:2] != size[::-1]:
        raise ImageError("the 16-bit PNG is damaged")
    if pixels.ndim == 2:
        return pixels[:, :, np.newaxis]
    if colour == PNG_GREY_ALPHA:
        return pixels[:, :, :1]
    return pixels[:, :, 2::-1]  # blue, green, red, alpha


def _complaint(error: BaseException, path: Path) -> str:
    """What is wrong with a file, by what it is and never by the name of a scratch file."""
    if isinstance(error, UnidentifiedImageError):
        with path.open("rb") as file:
            kind = describe_kind(file.read(START_BYTES))
        return f"what came is no image that can be read: it is {kind} ({READ_HERE})"
    if isinstance(error, MemoryError):
        return (
            "decoding the image takes far more memory than its size allows:"
            " open it in another program and save it as PNG or as TIFF"
        )
    words = " ".join(str(error).replace(str(path), "the file").replace(path.name, "the file").split())
    return f"the image cannot be decoded: {(words or type(error).__name__)[:200]}"
