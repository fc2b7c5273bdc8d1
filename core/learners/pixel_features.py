"""What surrounds each pixel, at several scales: the features that a forest or a small head learns from.

The families are ilastik's: the value, Gaussians, their differences, gradient magnitude, Laplacian, and the
eigenvalues of the Hessian and of the structure tensor. They are made for speed: derivatives are central
differences of the smoothed image, in units of their scale, and wide scales are computed where they live, in
images of half and a quarter of the size. `bench.pixel_features` has ilastik's own.

References: Sommer et al. 2011, "ilastik: Interactive learning and segmentation toolkit"; Burt & Adelson 1983,
"The Laplacian pyramid as a compact image code".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from core.learners.feature_plan import (
    FAMILIES,
    NARROWER,
    REACH,
    SMALLEST_SIGMA_PX,
    WINDOW,
    Scale,
    count_features,
    plan_features,
)
from core.tiles import Slices, Tile, cut_tiles

STRIDE, MARGIN_PX = 4, 64
"""Tiles begin at multiples of the first: the smallest image of the pyramid has every fourth pixel. A pixel's
features depend on no pixel farther away than the second."""
TILE_PX = 256
"""Side of the part of an image whose features are in memory at once: 10 kB a pixel row and feature."""

Plane = NDArray[np.float32]
Planes = NDArray[np.float32]
Rows = NDArray[np.float32]
Prepare = Callable[[NDArray[Any]], NDArray[np.float32]]


def to_float(image: NDArray[Any]) -> NDArray[np.float32]:
    """The values as they are, for images that are standardised already."""
    return image.astype(np.float32)


def pixel_features(image: NDArray[Any], prepare: Prepare = to_float, n_threads: int = 1) -> Rows:
    """`(H, W, C)` image to `(H, W, F)` features of every pixel.

    Parameters
    ----------
    image : (H, W, C) array
        Or a memory map; it is read in tiles.
    prepare : callable
        Standardises a piece of the image.
    n_threads : int
        Tiles that are computed at once.

    Examples
    --------
    >>> pixel_features(np.zeros((8, 9, 3), np.uint8)).shape
    (8, 9, 147)
    """
    out = np.empty((*image.shape[:2], count_features(image.shape[2])), np.float32)

    def fill(tile: Tile) -> None:
        rows, columns = np.mgrid[tile.core_in_read]
        described = _Described.of(prepare(image[tile.read])).at(rows.ravel(), columns.ravel())
        out[tile.core] = described.reshape(*rows.shape, -1)

    _each(fill, cut_tiles((image.shape[0], image.shape[1]), MARGIN_PX, STRIDE, TILE_PX), n_threads)
    return out


def features_at(
    image: NDArray[Any],
    rows: NDArray[np.integer[Any]],
    columns: NDArray[np.integer[Any]],
    prepare: Prepare = to_float,
    n_threads: int = 1,
) -> Rows:
    """Features `(n, F)` of the `n` pixels at `rows` and `columns`; only what surrounds them is read.

    Examples
    --------
    >>> features_at(np.ones((8, 9, 1), np.uint8), np.array([0, 3]), np.array([8, 2])).shape
    (2, 49)
    """
    out = np.empty((len(rows), count_features(image.shape[2])), np.float32)

    def fill(inside: NDArray[np.intp]) -> None:
        tile = _surround(rows[inside], columns[inside], image.shape[:2])
        out[inside] = _Described.of(prepare(image[tile.read])).at(
            rows[inside] - tile.read[0].start, columns[inside] - tile.read[1].start
        )

    _each(fill, _by_tile(rows, columns), n_threads)
    return out


def describe_window(
    image: NDArray[Any], window: Slices, prepare: Prepare = to_float
) -> Callable[[NDArray[np.intp], NDArray[np.intp]], Rows]:
    """Compute what a part of an image needs, and return what gives the features at its pixels.

    Its planes stay in memory meanwhile, 120 bytes a pixel and channel.

    Examples
    --------
    >>> describe = describe_window(np.ones((8, 9, 1), np.uint8), (slice(2, 6), slice(3, 9)))
    >>> describe(np.array([0, 3]), np.array([5, 2])).shape
    (2, 49)
    """
    tile = widen(window, image.shape[:2])
    described = _Described.of(prepare(image[tile.read]))
    top, left = (part.start for part in tile.core_in_read)
    return lambda rows, columns: described.at(rows + top, columns + left)


@dataclass(frozen=True)
class _Described:
    """Features by octave: planes `(n, h, w)` of the full size, and `(h, w, n)` of half and of a quarter."""

    full: Planes
    smaller: Mapping[int, NDArray[np.float32]]

    @classmethod
    def of(cls, image: NDArray[np.float32]) -> _Described:
        octaves = _find_planes(image)
        return cls(octaves[0], {octave: _to_rows(octaves[octave]) for octave in octaves if octave})

    def at(self, rows: NDArray[np.integer[Any]], columns: NDArray[np.integer[Any]]) -> Rows:
        """Features `(n, F)` of some pixels."""
        kernels = _kernels()
        n_features = len(self.full) + sum(small.shape[2] for small in self.smaller.values())
        out = np.empty((len(rows), n_features), np.float32)
        kernels.gather(self.full, rows, columns, out, 0)
        first = len(self.full)
        for octave, small in self.smaller.items():
            kernels.gather_between(small, 2**octave, rows, columns, out, first)
            first += small.shape[2]
        return out


def _to_rows(planes: Planes) -> Rows:
    _kernels().transpose(planes, small := np.empty((*planes.shape[1:], len(planes)), np.float32))
    return small


def _each(job: Callable[[Any], None], over: Iterable[Any], n_threads: int) -> None:
    if n_threads == 1:
        for item in over:
            job(item)
        return
    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(job, over))


def _by_tile(rows: NDArray[np.integer[Any]], columns: NDArray[np.integer[Any]]) -> list[NDArray[np.intp]]:
    """Indices of the pixels that share a tile, tile by tile."""
    if len(rows) == 0:
        return []
    tiles = np.stack([rows // TILE_PX, columns // TILE_PX]).astype(np.int64)
    _, numbers = np.unique(tiles, axis=1, return_inverse=True)
    numbers = numbers.ravel()
    order = np.argsort(numbers, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1)


def _surround(
    rows: NDArray[np.integer[Any]], columns: NDArray[np.integer[Any]], shape: tuple[int, ...]
) -> Tile:
    """The box around some pixels, and what must be read for it: as far as a tile of the whole image sees."""
    first, last = (slice(int(at.min()), int(at.max()) + 1) for at in (rows, columns))
    return widen((first, last), shape)


def widen(core: Slices, shape: tuple[int, ...]) -> Tile:
    """A part of an image, with all that its features depend on."""
    read = tuple(
        slice(max(part.start - MARGIN_PX, 0) // STRIDE * STRIDE, min(part.stop + MARGIN_PX, length))
        for part, length in zip(core, shape, strict=True)
    )
    return Tile(core, (read[0], read[1]))


def _find_planes(image: NDArray[np.float32]) -> dict[int, Planes]:
    """`(n, h, w)` features by octave: all channels' at full size, then those at half and at a quarter."""
    plan, n_channels = plan_features(image.shape[2]), image.shape[2]
    scales = plan.scales[: None if plan.n_families else 0]
    octaves: dict[int, Planes] = {}
    filled = [0, 0, 0]
    for channel in range(n_channels):
        pyramid = _build_pyramid(np.ascontiguousarray(image[..., channel]))
        for octave, plane in enumerate(pyramid):
            own = [scale for scale in scales if scale.octave == octave]
            n_planes = len(own) * plan.n_families + (octave == 0)
            if not n_planes:
                continue
            # Made once and filled: joining what every scale gives would need all of it twice.
            if octave not in octaves:
                octaves[octave] = np.empty((n_channels * n_planes, *plane.shape), np.float32)
            planes = octaves[octave]
            if octave == 0:
                planes[filled[0]] = plane
                filled[0] += 1
            for scale in own:
                into = planes[filled[octave] : filled[octave] + plan.n_families]
                filled[octave] += plan.n_families
                _at_scale(plane, scale, into)
    return octaves


def _build_pyramid(plane: Plane) -> list[Plane]:
    half = cv2.pyrDown(plane)
    return [plane, np.asarray(half, np.float32), np.asarray(cv2.pyrDown(half), np.float32)]


def _at_scale(plane: Plane, scale: Scale, into: Planes) -> None:
    """Fill `(n, h, w)` with the first `n` families of one scale, from the plane of its octave."""
    kernels = _kernels()
    out = into if len(into) == FAMILIES else np.empty((FAMILIES, *plane.shape), np.float32)
    products = np.empty((3, *plane.shape), np.float32)
    smooth = _blur(plane, scale.sigma())
    kernels.derive(smooth, scale.sigma(), out, products)
    np.subtract(smooth, _blur(plane, scale.sigma(NARROWER)), out=out[kernels.DIFFERENCE])
    window = scale.scale_px * WINDOW / 2**scale.octave
    averaged = [_blur(product, window) for product in products]
    kernels.eigenvalues(*averaged, out[kernels.STRUCTURE_1], out[kernels.STRUCTURE_2])
    if out is not into:
        into[:] = out[: len(into)]


def _blur(plane: Plane, sigma_px: float) -> Plane:
    reach = max(1, math.ceil(REACH * sigma_px))
    x = np.arange(-reach, reach + 1)
    kernel = np.exp(-(x**2) / (2 * max(sigma_px, SMALLEST_SIGMA_PX) ** 2))
    kernel = (kernel / kernel.sum()).astype(np.float32)
    blurred = cv2.sepFilter2D(plane, -1, kernel, kernel, borderType=cv2.BORDER_REFLECT_101)
    return np.asarray(blurred, np.float32)


def _kernels() -> ModuleType:
    from core.learners import _feature_kernels

    return _feature_kernels
