"""TIFF and its kin as frames: OME-TIFF, ImageJ, pyramids, tiles, strips, every compression of imagecodecs.

Axes decide what a page is. Channels and samples are channels, each slice of a stack or moment of a film is a
frame of its own. Pages of which the file does not say what they are have to be named by the caller.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from core.errors import ImageError
from core.painting import Box
from ingest.frames import Frame, Raster
from ingest.segments import JPEG_COMPRESSIONS, read_box
from ingest.turning import UPRIGHT, turn_frame

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

CHANNEL_AXES = "CS"
STACK_AXES = "ZTP"
"""Depth, time, and the tiles or positions that some programs call so: a frame each."""

MAX_CHANNELS = 64
PHOTOMETRIC_RGB, PHOTOMETRIC_YCBCR, PHOTOMETRIC_PALETTE = 2, 6, 3
PHOTOMETRIC_WHITE_IS_ZERO = 0
OTHER_COLOURS = {5: "CMYK", 8: "CIELAB", 9: "ICCLAB", 10: "ITULAB"}
ALPHA_SAMPLES = (1, 2)
ORIENTATION, GDAL_NODATA = 274, 42113
CHANNEL_NAME = re.compile(r"<Channel\b[^>]*\bName=\"([^\"]{1,80})\"")


@dataclass(frozen=True)
class Axes:
    """Letters and sizes of a series, those of one entry left out unless they are Y or X."""

    letters: str
    sizes: tuple[int, ...]

    def size(self, letter: str) -> int:
        return self.sizes[self.letters.index(letter)] if letter in self.letters else 1


@contextmanager
def open_tiff(path: Path, axes: str | None = None, *, keep_indices: bool = False) -> Iterator[Raster]:
    """Open a TIFF; `axes` names the dimensions of files that do not, such as `ZYX`.

    A palette becomes colours unless `keep_indices`. A file of a set of OME-TIFF has frames where it is the
    first of the set, and none where it is another one.

    Raises `ImageError` for what cannot be read, and where the meaning of pages would have to be guessed.
    """
    with tifffile.TiffFile(path) as tiff:
        if not tiff.series:
            raise ImageError("the TIFF has no picture in it")
        chosen = [one for one in tiff.series if one.axes and len(one.shape) >= 2]
        if not chosen:
            raise ImageError("the TIFF has no picture in it, only numbers")
        if not tiff.is_ome:
            chosen = chosen[:1]
        first = _find_first(chosen, path)
        if first != path.name:
            yield Raster((), remarks=(f"it is a part of {first}, and comes in with that",))
            return
        remarks = _remarks(tiff, chosen)
        orientation = int(tiff.pages.first.tags.valueof(ORIENTATION, UPRIGHT))
        frames = [
            turn_frame(frame, orientation)
            for number, series in enumerate(chosen)
            for frame in _frames_of(series, axes, f"s{number:02d}" if len(chosen) > 1 else "", keep_indices)
        ]
        names = tuple(CHANNEL_NAME.findall(tiff.ome_metadata or ""))
        n_channels = frames[0].shape[2]
        yield Raster(
            tuple(frames),
            names[:n_channels] if len(names) >= n_channels else (),
            remarks,
            is_geotiff=bool(tiff.is_geotiff),
        )


def _find_first(chosen: Sequence[Any], path: Path) -> str:
    """The name of the file that a set is brought in with; raises where a part of the set is missing."""
    names = {path.name}
    for series in chosen:
        if any(page is None for page in series.pages):
            raise ImageError("some of its pages are in other files, which are not there")
        names |= {Path(str(page.parent.filehandle.name)).name for page in series.pages}
    return min(names)


def _remarks(tiff: Any, chosen: Sequence[Any]) -> tuple[str, ...]:
    """What of the file is not brought in."""
    n_left = len(tiff.series) - len(chosen)
    turned = int(tiff.pages.first.tags.valueof(ORIENTATION, UPRIGHT))
    left = f"{n_left} further pictures in it were left out: only the first is taken" if n_left else ""
    upright = (
        "" if turned == UPRIGHT else f"it is turned as its orientation {turned} says; so has its mask to be"
    )
    return tuple(filter(None, (left, upright)))


def _frames_of(series: Any, axes: str | None, prefix: str, keep_indices: bool) -> Iterator[Frame]:
    found = _read_axes(series, axes)
    stacked = [letter for letter in found.letters if letter in STACK_AXES]
    n_channels = math.prod(found.size(letter) for letter in CHANNEL_AXES)
    page = series.keyframe
    _check(series, n_channels)
    meaning = _Meaning.of(page, _alpha_channels(page, found), keep_indices)
    n_kept = len(meaning.colours) if meaning.colours is not None else n_channels - len(meaning.alpha)
    shape = (found.size("Y"), found.size("X"), n_kept)
    colour = found.size("S") >= 3 and page.photometric in (PHOTOMETRIC_RGB, PHOTOMETRIC_YCBCR)
    is_byte = series.dtype == np.bool_ or meaning.colours is not None
    reader = _Reader(series, found)
    for place in np.ndindex(*(found.size(letter) for letter in stacked)):
        chosen = dict(zip(stacked, place, strict=True))
        words = [
            f"{letter.lower()}{index:0{_digits(found.size(letter))}d}" for letter, index in chosen.items()
        ]
        yield Frame(
            "-".join(filter(None, [prefix, *words])),
            shape,
            np.dtype(np.uint8) if is_byte else np.dtype(series.dtype),
            partial(_read_frame, reader, chosen, meaning),
            is_colour=bool(colour or meaning.colours is not None),
        )


def _digits(size: int) -> int:
    return max(2, len(str(size - 1)))


def _read_axes(series: Any, axes: str | None) -> Axes:
    kept = [
        (letter, int(size))
        for letter, size in zip(series.axes, series.shape, strict=True)
        if letter in "YX" or size > 1
    ]
    letters, sizes = "".join(letter for letter, _ in kept), tuple(size for _, size in kept)
    unknown = [letter for letter in letters if letter not in f"YX{CHANNEL_AXES}{STACK_AXES}"]
    if unknown and axes is not None:
        letters = _apply_axes(axes, letters, sizes)
    elif unknown:
        raise ImageError(
            f"its pages do not say what they are ({' x '.join(map(str, sizes))}, axes {letters}): name them "
            f"with --axes, as in --axes {letters.replace(unknown[0], 'Z')} for slices or "
            f"--axes {letters.replace(unknown[0], 'C')} for channels"
        )
    if letters.count("Y") != 1 or letters.count("X") != 1 or len(set(letters)) != len(letters):
        raise ImageError(f"its axes {letters} are no picture: Y and X are needed, each once")
    return Axes(letters, sizes)


def _apply_axes(axes: str, letters: str, sizes: Sequence[int]) -> str:
    named = axes.upper()
    known = set(f"YX{CHANNEL_AXES}{STACK_AXES}")
    if len(named) != len(letters) or not set(named) <= known or len(set(named)) != len(named):
        raise ImageError(
            f"--axes {axes} does not fit its {len(letters)} dimensions {' x '.join(map(str, sizes))}: "
            f"give one letter of {', '.join(sorted(known))} for each"
        )
    return named


def _check(series: Any, n_channels: int) -> None:
    if n_channels > MAX_CHANNELS:
        raise ImageError(f"it has {n_channels} channels, more than {MAX_CHANNELS}")
    page = series.keyframe
    if page.photometric == PHOTOMETRIC_PALETTE and page.colormap is None:
        raise ImageError("it has a palette without colours")
    packed = page.photometric == PHOTOMETRIC_YCBCR and page.compression not in JPEG_COMPRESSIONS
    if packed or page.photometric in OTHER_COLOURS:
        name = OTHER_COLOURS.get(page.photometric, "YCbCr")
        raise ImageError(f"its colours are {name}, which is not supported: save it as RGB")
    if series.dtype is None or series.dtype.kind not in "buif":
        raise ImageError(f"its pixels are {series.dtype}, which is no grey value: save integers or floats")


def _alpha_channels(page: Any, axes: Axes) -> tuple[int, ...]:
    """Samples that the file itself calls alpha; what it says nothing of is a channel like the others."""
    extra = tuple(int(kind) for kind in page.extrasamples)
    n_samples = axes.size("S")
    first = n_samples - len(extra)
    if not extra or n_samples != page.samplesperpixel or axes.size("C") > 1 or first < 1:
        return ()
    return tuple(first + index for index, kind in enumerate(extra) if kind in ALPHA_SAMPLES)


@dataclass(frozen=True)
class _Reader:
    """Pages of a series, or the whole of it as a file in memory where it has no page for each picture."""

    series: Any
    axes: Axes

    def read(self, place: dict[str, int], box: Box) -> NDArray[Any]:
        """`(h, w, C)`, channels before samples."""
        page_axes = "".join(
            letter
            for letter, size in zip(self.series.keyframe.axes, self.series.keyframe.shape, strict=True)
            if letter in "YX" or size > 1
        )
        # A file names the samples of its pages; what --axes renamed are the dimensions in front of them.
        inner = self.axes.letters[len(self.axes.letters) - len(page_axes) :]
        outer = self.axes.letters[: len(self.axes.letters) - len(page_axes)]
        outer_sizes = self.axes.sizes[: len(outer)]
        if len(self.series.pages) != math.prod(outer_sizes) or "Y" not in inner or "X" not in inner:
            return self._from_whole(place, box)
        parts = []
        for channel in range(self.axes.size("C") if "C" in outer else 1):
            index = tuple(place.get(letter, channel if letter == "C" else 0) for letter in outer)
            number = int(np.ravel_multi_index(index, outer_sizes)) if outer else 0
            part = read_box(self.series.keyframe, self.series.pages[number], box)
            parts.append(_to_channels_last(part, inner, place))
        return np.concatenate(parts, axis=2) if len(parts) > 1 else parts[0]

    def _from_whole(self, place: dict[str, int], box: Box) -> NDArray[Any]:
        whole = np.asarray(self.series.asarray(out="memmap")).reshape(self.axes.sizes)
        index: list[Any] = [place.get(letter, slice(None)) for letter in self.axes.letters]
        index[self.axes.letters.index("Y")], index[self.axes.letters.index("X")] = box.slices
        left = "".join(letter for letter in self.axes.letters if letter not in place)
        return _to_channels_last(np.asarray(whole[tuple(index)]), left, {})


def _to_channels_last(pixels: NDArray[Any], letters: str, place: dict[str, int]) -> NDArray[Any]:
    """Take one slice where the page holds several, then `(h, w, C)`."""
    for letter in [letter for letter in letters if letter in place]:
        pixels = pixels.take(place[letter], axis=letters.index(letter))
        letters = letters.replace(letter, "")
    others = [letter for letter in "CS" if letter in letters]
    pixels = pixels.transpose([letters.index(letter) for letter in ("Y", "X", *others)])
    return pixels.reshape(*pixels.shape[:2], -1)


@dataclass(frozen=True)
class _Meaning:
    """What the numbers of a page stand for: `alpha` samples to drop, `colours` `(3, N)` of a palette."""

    alpha: tuple[int, ...]
    colours: NDArray[np.uint8] | None
    is_white_zero: bool
    nodata: float | None

    @classmethod
    def of(cls, page: Any, alpha: tuple[int, ...], keep_indices: bool) -> _Meaning:
        has_palette = page.photometric == PHOTOMETRIC_PALETTE and not keep_indices
        colours = (np.asarray(page.colormap) >> 8).astype(np.uint8) if has_palette else None
        is_told = page.tags.get(GDAL_NODATA) is not None
        nodata = float(page.nodata) if is_told else None
        return cls(alpha, colours, page.photometric == PHOTOMETRIC_WHITE_IS_ZERO, nodata)


def _read_frame(reader: _Reader, place: dict[str, int], meaning: _Meaning, box: Box) -> NDArray[Any]:
    pixels = reader.read(place, box)
    if meaning.colours is not None:
        return np.moveaxis(meaning.colours[:, pixels[:, :, 0]], 0, 2)
    if meaning.alpha:
        pixels = pixels[:, :, [i for i in range(pixels.shape[2]) if i not in meaning.alpha]]
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * np.uint8(255)
    if meaning.is_white_zero and pixels.dtype.kind == "u":
        pixels = np.iinfo(pixels.dtype).max - pixels
    if meaning.nodata is not None and pixels.dtype.kind == "f":
        pixels = np.where(pixels == pixels.dtype.type(meaning.nodata), np.nan, pixels)
    return pixels
