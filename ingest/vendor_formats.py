"""CZI, ND2, LIF and DICOM as frames, and where on the earth a GeoTIFF lies; each through its own library.

The libraries are the extra `brushloop[formats]`. A file that needs one which is absent is refused by a
message that names the extra.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.errors import ImageError
from core.painting import Box
from export.errors import import_extra
from ingest.frames import Frame, Raster, frame_of

EXTRA = "formats"
START_BYTES = 132

LIF_START, LIF_TEST = b"\x70\0\0\0", 0x2A
COLOUR_PIXELS = {"Bgr24": np.uint8, "Bgr48": np.uint16}
GREY_PIXELS = {"Gray8": np.uint8, "Gray16": np.uint16, "Gray32Float": np.float32}

Opener = Callable[[Path], AbstractContextManager[Raster]]


def find_opener(start: bytes) -> Opener | None:
    """Who opens a file that begins with these `START_BYTES`, or None."""
    if start.startswith(b"ZISRAWFILE"):
        return open_czi
    if start.startswith(b"\xda\xce\xbe\x0a"):
        return open_nd2
    if start.startswith(LIF_START) and len(start) > 8 and start[8] == LIF_TEST:
        return open_lif
    if start[128:132] == b"DICM":
        return open_dicom
    return None


@contextmanager
def open_czi(path: Path) -> Iterator[Raster]:
    """Zeiss: scenes, moments and slices are frames, read in boxes at full size by Zeiss's own library."""
    czi = import_extra("pylibCZIrw.czi", EXTRA)
    with czi.open_czi(str(path)) as document:
        total = document.total_bounding_box
        kinds = document.pixel_types
        n_channels = len(kinds)
        unknown = {kind for kind in kinds.values() if kind not in {*COLOUR_PIXELS, *GREY_PIXELS}}
        if not kinds or unknown:
            raise ImageError(
                f"its pixels are {', '.join(sorted(unknown)) or 'missing'}, which are not supported"
            )
        is_colour = kinds[0] in COLOUR_PIXELS
        if is_colour and n_channels > 1:
            raise ImageError("it has several channels in colours, which are not supported")
        dtype = np.dtype({**COLOUR_PIXELS, **GREY_PIXELS}[kinds[0]])
        whole = {0: (*(total[axis][0] for axis in "XY"), *(total[axis][1] - total[axis][0] for axis in "XY"))}
        scenes = {s: tuple(box) for s, box in document.scenes_bounding_rectangle.items()} or whole
        frames = []
        for scene, (left, top, width, height) in scenes.items():
            sizes = {axis: total[axis][1] - total[axis][0] for axis in "TZ" if axis in total}
            for place in _places(sizes):
                prefix = {"s": (scene, len(scenes))} if len(scenes) > 1 else {}
                read = partial(_read_czi, document, (left, top), place, n_channels, is_colour)
                shape = (int(height), int(width), 3 if is_colour else n_channels)
                frames.append(Frame(_name(place, sizes, prefix), shape, dtype, read, is_colour=is_colour))
        yield Raster(tuple(frames), _czi_channels(document.metadata, n_channels))


@contextmanager
def open_nd2(path: Path) -> Iterator[Raster]:
    """Nikon: positions, moments and slices are frames."""
    nd2 = import_extra("nd2", EXTRA)
    with nd2.ND2File(str(path)) as document:
        sizes = {axis: int(size) for axis, size in document.sizes.items()}
        loops = {axis: size for axis, size in sizes.items() if axis not in "CYXS"}
        planes = (sizes.get("C", 1), sizes["Y"], sizes["X"], sizes.get("S", 1))
        frames = tuple(
            Frame(
                _name({axis: index for axis, index in place.items() if axis in loops}, loops),
                (planes[1], planes[2], planes[0] * planes[3]),
                np.dtype(document.dtype),
                partial(_cut_planes, partial(document.read_frame, number), planes),
                is_colour=bool(document.is_rgb),
            )
            for number, place in enumerate(document.loop_indices or ({},))
        )
        channels = getattr(document.metadata, "channels", None) or ()
        yield Raster(frames, tuple(str(one.channel.name) for one in channels))


@contextmanager
def open_lif(path: Path) -> Iterator[Raster]:
    """Leica: each image of the file, its moments and slices, are frames."""
    lif = import_extra("liffile", EXTRA)
    try:
        with lif.LifFile(path) as document:
            images = [image for image in document.images if {"Y", "X"} <= set(image.dims)]
            if not images:
                raise ImageError("the LIF file has no picture in it")
            frames = [
                frame
                for number, image in enumerate(images)
                for frame in _lif_frames(image, number, len(images))
            ]
            yield Raster(tuple(frames))
    except lif.LifFileError as error:
        raise ImageError(f"the LIF file cannot be read: {error}") from None


@contextmanager
def open_dicom(path: Path) -> Iterator[Raster]:
    """DICOM: stored values, MONOCHROME1 turned so that bright is high; each frame of several is a frame."""
    pydicom = import_extra("pydicom", EXTRA)
    try:
        dataset = pydicom.dcmread(path)
        pixels = np.asarray(dataset.pixel_array)
    except (pydicom.errors.InvalidDicomError, pydicom.errors.BytesLengthException) as error:
        raise ImageError(f"the DICOM file cannot be read: {error}") from None
    is_colour = int(dataset.get("SamplesPerPixel", 1)) > 1
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
        bits = int(dataset.BitsStored)
        pixels = (2**bits - 1 - pixels.astype(np.int64)).astype(pixels.dtype)
    n_frames = int(dataset.get("NumberOfFrames", 1) or 1)
    stack = pixels if n_frames > 1 else pixels[np.newaxis]
    sizes = {"F": n_frames}
    yield Raster(
        tuple(
            frame_of(one, _name({"F": number}, sizes), is_colour=is_colour)
            for number, one in enumerate(stack)
        )
    )


def find_georeference(path: Path) -> str:
    """Reference system and transform of a GeoTIFF as words: `EPSG:32633, 10 0 500000 0 -10 5400000`.

    The six numbers lead from column and row of the whole file to its coordinates, as rasterio writes them.
    """
    rasterio = import_extra("rasterio", EXTRA)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it lies nowhere is no fault of a picture
        with rasterio.open(path) as dataset:
            if dataset.crs is None:
                return ""
            numbers = " ".join(f"{value:.15g}" for value in tuple(dataset.transform)[:6])
            return f"{dataset.crs.to_string()}, {numbers}"


def _read_czi(
    document: Any,
    corner: tuple[int, int],
    place: Mapping[str, int],
    n_channels: int,
    is_colour: bool,
    box: Box,
) -> NDArray[Any]:
    region = (corner[0] + box.left, corner[1] + box.top, box.width, box.height)
    planes = [document.read(roi=region, plane={**place, "C": channel}) for channel in range(n_channels)]
    pixels = np.concatenate(planes, axis=2)
    return np.asarray(pixels[:, :, ::-1] if is_colour else pixels)


def _czi_channels(metadata: Mapping[str, Any], n_channels: int) -> tuple[str, ...]:
    """Names of channels, where the file gives one for each."""
    found: Any = metadata
    for key in ("ImageDocument", "Metadata", "Information", "Image", "Dimensions", "Channels", "Channel"):
        found = found.get(key) if isinstance(found, Mapping) else None
    rows = found if isinstance(found, list) else [found]
    names = tuple(str(row["@Name"]) for row in rows if isinstance(row, Mapping) and row.get("@Name"))
    return names if len(names) == n_channels else ()


def _lif_frames(image: Any, number: int, n_images: int) -> Iterator[Frame]:
    dims = [str(letter) for letter in image.dims]
    sizes = dict(zip(dims, map(int, image.shape), strict=True))
    outer = {letter: size for letter, size in sizes.items() if letter not in "CYXS"}
    n_channels = sizes.get("C", 1) * sizes.get("S", 1)
    load = lru_cache(maxsize=1)(image.asarray)
    prefix = {"s": (number, n_images)} if n_images > 1 else {}
    for place in _places(outer):
        yield Frame(
            _name(place, outer, prefix),
            (sizes["Y"], sizes["X"], n_channels),
            np.dtype(image.dtype),
            partial(_cut_lif, load, dims, place),
            is_colour=sizes.get("S", 1) == 3,
        )


def _cut_lif(
    load: Callable[[], NDArray[Any]], dims: Sequence[str], place: Mapping[str, int], box: Box
) -> NDArray[Any]:
    cut: dict[str, Any] = {**place, "Y": box.slices[0], "X": box.slices[1]}
    part = load()[tuple(cut.get(letter, slice(None)) for letter in dims)]
    left = [letter for letter in dims if letter not in place]
    order = [left.index(letter) for letter in ("Y", "X", "C", "S") if letter in left]
    return np.asarray(part.transpose(order).reshape(box.height, box.width, -1))


def _cut_planes(
    load: Callable[[], NDArray[Any]], planes: tuple[int, int, int, int], box: Box
) -> NDArray[Any]:
    """`(h, w, C)` of what is `(C, Y, X, S)` once axes of one entry are put back."""
    part = np.asarray(load()).reshape(planes)[:, box.slices[0], box.slices[1]]
    return np.asarray(np.moveaxis(part, 0, 2).reshape(box.height, box.width, -1))


def _places(sizes: Mapping[str, int]) -> Iterator[dict[str, int]]:
    for place in np.ndindex(*sizes.values()):
        yield dict(zip(sizes, place, strict=True))


def _name(
    place: Mapping[str, int], sizes: Mapping[str, int], prefix: Mapping[str, tuple[int, int]] | None = None
) -> str:
    """`t01-z02`, with what has more than one entry alone."""
    parts = [(letter, index, size) for letter, (index, size) in (prefix or {}).items()]
    parts += [(letter, index, sizes[letter]) for letter, index in place.items() if sizes[letter] > 1]
    return "-".join(
        f"{letter.lower()}{index:0{max(2, len(str(size - 1)))}d}" for letter, index, size in parts
    )
