"""The loops of `core.learners.pixel_features`, compiled: derivatives of smoothed planes, and planes to rows.

Each one holds no lock of the interpreter and no state, so any number of threads may run them at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

SMOOTH, GRADIENT, LAPLACIAN, DIFFERENCE, HESSIAN_1, HESSIAN_2, STRUCTURE_1, STRUCTURE_2 = range(8)
"""Rows of what one scale gives, the most useful ones first. The larger eigenvalue comes first."""

BLOCK_PX = 16
"""Pixels that are transposed at once: their values of one plane fill a line of the cache."""

ROWS_AT_ONCE = 1024
"""Pixels that are gathered from one plane before the next: their rows of features stay in the cache, and a
plane is read in order."""


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile at first call and keep the result on disk, or in memory where no folder can be written."""
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:  # "no locator available": neither the package nor the user's cache is writable
        return njit(nogil=True)(function)


@compiled
def derive(smooth, scale, out, products):  # type: ignore[no-untyped-def]
    """Derivatives of a smoothed `(h, w)` plane by central differences, in units of its `scale`.

    Fills the rows of `out` that need no further smoothing, and `products` for the structure tensor.
    """
    height, width = smooth.shape
    scale_2 = np.float32(scale * scale)
    half, quarter = np.float32(0.5 * scale), np.float32(0.25) * scale_2
    for y in range(height):
        up, down = max(y - 1, 0), min(y + 1, height - 1)
        for x in range(width):
            left, right = max(x - 1, 0), min(x + 1, width - 1)
            here = smooth[y, x] + smooth[y, x]
            dy = (smooth[down, x] - smooth[up, x]) * half
            dx = (smooth[y, right] - smooth[y, left]) * half
            yy = (smooth[down, x] + smooth[up, x] - here) * scale_2
            xx = (smooth[y, right] + smooth[y, left] - here) * scale_2
            across = smooth[down, right] + smooth[up, left] - smooth[down, left] - smooth[up, right]
            xy = across * quarter
            middle, apart = (yy + xx) * np.float32(0.5), (yy - xx) * np.float32(0.5)
            root = math.sqrt(apart * apart + xy * xy)
            out[SMOOTH, y, x] = smooth[y, x]
            out[GRADIENT, y, x] = math.sqrt(dy * dy + dx * dx)
            out[LAPLACIAN, y, x] = yy + xx
            out[HESSIAN_1, y, x] = middle + root
            out[HESSIAN_2, y, x] = middle - root
            products[0, y, x] = dy * dy
            products[1, y, x] = dy * dx
            products[2, y, x] = dx * dx


@compiled
def eigenvalues(a, b, c, larger, smaller):  # type: ignore[no-untyped-def]
    """Of the symmetric matrix [[a, b], [b, c]] at each pixel."""
    height, width = a.shape
    for y in range(height):
        for x in range(width):
            middle, apart = (a[y, x] + c[y, x]) * np.float32(0.5), (a[y, x] - c[y, x]) * np.float32(0.5)
            root = math.sqrt(apart * apart + b[y, x] * b[y, x])
            larger[y, x] = middle + root
            smaller[y, x] = middle - root


@compiled
def transpose(planes, out):  # type: ignore[no-untyped-def]
    """Write `(n, h, w)` planes into `(h, w, n)`."""
    n, height, width = planes.shape
    for y in range(height):
        for block in range(0, width, BLOCK_PX):
            end = min(block + BLOCK_PX, width)
            for f in range(n):
                for x in range(block, end):
                    out[y, x, f] = planes[f, y, x]


@compiled
def gather(planes, rows, columns, out, first):  # type: ignore[no-untyped-def]
    """Write what `(n, h, w)` planes have at some pixels into `out[:, first : first + n]`."""
    for block in range(0, len(rows), ROWS_AT_ONCE):
        end = min(block + ROWS_AT_ONCE, len(rows))
        for f in range(planes.shape[0]):
            plane = planes[f]
            for i in range(block, end):
                out[i, first + f] = plane[rows[i], columns[i]]


@compiled
def gather_between(small, step, rows, columns, out, first):  # type: ignore[no-untyped-def]
    """Write `(h, w, n)`, sampled at every `step`-th pixel, at some pixels into `out[:, first : first + n]`.

    Rows and columns count at the full size. Between samples values are interpolated, and beyond the last ones
    repeated.
    """
    height, width, n = small.shape
    share = np.float32(1.0 / step)
    for i in range(len(rows)):
        y0, x0 = rows[i] // step, columns[i] // step
        dy, dx = np.float32(rows[i] % step) * share, np.float32(columns[i] % step) * share
        y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
        d11 = dy * dx
        d10, d01 = dy - d11, dx - d11
        d00 = np.float32(1.0) - dy - d01
        # As slices: the compiler does several features at once then.
        here, right, below, across = small[y0, x0], small[y0, x1], small[y1, x0], small[y1, x1]
        between = out[i, first : first + n]
        for f in range(n):
            between[f] = here[f] * d00 + right[f] * d01 + below[f] * d10 + across[f] * d11
