"""Files of any kind as frames, by what is in them and not by their names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from core.errors import ImageError
from export.errors import ExportError
from ingest.frames import Raster, frame_of
from ingest.scaling import plan_scaling
from ingest.tiff import TIFF_STARTS, open_tiff
from ingest.vendor_formats import START_BYTES, find_georeference, find_opener
from ml_backend.command.folder_of_images import UPLOADED
from ml_backend.label_studio.image_files import DECODER_ERRORS, count_further, find_hidden, read_image
from ml_backend.label_studio.image_frame import ImageLimits

HASH_BYTES = 1 << 20


def bare_name(name: str) -> str:
    """A file's name without its ending, and without what OME puts before it.

    >>> bare_name("plate.3.ome.tif"), bare_name("cells.png")
    ('plate.3', 'cells')
    """
    return Path(name).stem.removesuffix(".ome")


def digest_of(path: Path) -> str:
    """The content of a file, as 32 hex digits."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while part := file.read(HASH_BYTES):
            digest.update(part)
    return digest.hexdigest()


@contextmanager
def open_file(path: Path, limits: ImageLimits, axes: str | None = None) -> Iterator[Raster]:
    """Open an image as frames; every failure is an `ImageError`."""
    if path.stat().st_size == 0:
        raise ImageError("the file is empty")
    with path.open("rb") as file:
        start = file.read(START_BYTES)
    opener = find_opener(start)
    try:
        if start.startswith(TIFF_STARTS):
            with open_tiff(path, axes) as raster:
                yield _placed(raster, path)
            return
        if opener is not None:
            with opener(path) as raster:
                yield raster
            return
        pixels = read_image(path, limits)
        n_further = count_further(path)
    except DECODER_ERRORS as error:
        words = " ".join(str(error).replace(str(path), "the file").split())
        raise ImageError(f"it cannot be decoded: {words[:200] or type(error).__name__}") from None
    further = f"{n_further} further pictures in it were left out: only the first is taken"
    yield Raster((frame_of(pixels),), remarks=(further,) if n_further else ())


@dataclass(frozen=True)
class Picture:
    """One frame of a file in memory: `pixels` `(H, W, C)` of 8 or 16 bits, as an import keeps them."""

    frame: str
    pixels: NDArray[Any]
    georeference: str


@dataclass(frozen=True)
class Reading:
    """How files are read that leave a choice."""

    axes: str | None = None
    number_range: tuple[float, float] | None = None


def read_pictures(path: Path, limits: ImageLimits, reading: Reading, remarks: list[str]) -> Iterator[Picture]:
    """Each frame of a file, one after the other; `remarks` grows with what is not brought in.

    Raises `ImageError`, and `ExportError` where a format needs an extra that is absent.
    """
    with open_file(path, limits, reading.axes) as raster:
        remarks += raster.remarks
        for frame in raster.frames:
            limits.check_shape(*frame.shape, min(2, frame.dtype.itemsize))
        if not raster.frames:
            return
        scaling = plan_scaling(raster.frames, reading.number_range)
        for frame in raster.frames:
            yield Picture(frame.name, scaling.apply(frame.read(frame.box)), raster.georeference)


def _placed(raster: Raster, path: Path) -> Raster:
    """A GeoTIFF with its georeference, or a remark why it has none."""
    if not raster.is_geotiff:
        return raster
    try:
        return replace(raster, georeference=find_georeference(path))
    except ExportError as error:
        return replace(raster, remarks=(*raster.remarks, f"where it lies on the earth is not kept: {error}"))


def is_shown(path: Path) -> bool:
    """Whether Label Studio takes the file itself, and browsers show it just as the network reads it."""
    return path.suffix.lower() in UPLOADED and not find_hidden(path)
