"""What `brushloop import` reads: files as frames, by what is in them and not by their names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from core.errors import ImageError
from export.errors import ExportError
from ingest.frames import Raster, frame_of
from ingest.tiff import TIFF_STARTS, open_tiff
from ingest.vendor_formats import START_BYTES, find_georeference, find_opener
from ml_backend.command.folder_of_images import NOT_UPLOADED, UPLOADED
from ml_backend.errors import ServiceError
from ml_backend.label_studio.image_files import DECODER_ERRORS, read_image
from ml_backend.label_studio.image_frame import ImageLimits

TIFF_ENDINGS = frozenset(
    {".tif", ".tiff", ".svs", ".ndpi", ".scn", ".lsm", ".stk", ".qptiff", ".btf", ".tf8"}
)
PLAIN_ENDINGS = UPLOADED | {".avif", ".gif", ".jpe", ".jfif"}
EXTRA_ENDINGS = frozenset({".czi", ".nd2", ".lif", ".dcm", ".dicom"})
READ = TIFF_ENDINGS | PLAIN_ENDINGS | EXTRA_ENDINGS
IMAGE_ENDINGS = READ | NOT_UPLOADED
"""What counts as an image: read, or left out with a reason. All else in a folder is passed over."""

HASH_BYTES = 1 << 20


@dataclass(frozen=True)
class FoundFiles:
    """Images in the order of their names, and how many other files lie beside them."""

    images: tuple[Path, ...]
    n_others: int


def find_files(folder: Path, without: Path | None = None) -> FoundFiles:
    """Every image below a folder, but for what is hidden or below `without`; raises where there is none."""
    left_out = without.resolve() if without is not None else None
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        if left_out is None or (left_out != path.resolve() and left_out not in path.resolve().parents)
    ]
    images = tuple(path for path in files if path.suffix.lower() in IMAGE_ENDINGS)
    if not images:
        raise ServiceError(f"no images in {folder}; looked for {', '.join(sorted(READ))}")
    return FoundFiles(images, len(files) - len(images))


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
    except DECODER_ERRORS as error:
        words = " ".join(str(error).replace(str(path), "the file").split())
        raise ImageError(f"it cannot be decoded: {words[:200] or type(error).__name__}") from None
    yield Raster((frame_of(pixels),))


def _placed(raster: Raster, path: Path) -> Raster:
    """A GeoTIFF with its georeference, or a remark why it has none."""
    if not raster.is_geotiff:
        return raster
    try:
        return replace(raster, georeference=find_georeference(path))
    except ExportError as error:
        return replace(raster, remarks=(*raster.remarks, f"where it lies on the earth is not kept: {error}"))


def is_shown(path: Path, raster: Raster) -> bool:
    """Whether browsers show the file itself with all that is in it, so that it is uploaded as it is."""
    with path.open("rb") as file:
        start = file.read(8)
    return (
        path.suffix.lower() in UPLOADED
        and not start.startswith(TIFF_STARTS)
        and raster.frames[0].dtype == np.uint8
    )
