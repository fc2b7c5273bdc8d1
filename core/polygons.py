"""Outlines to masks, as a canvas fills them: nonzero winding, with the covered share of a pixel as alpha."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SUB_ROWS = 4
"""Scan lines per row of pixels. Coverage along a row is exact."""

MOST_CROSSINGS = 20_000_000
"""Scan lines times edges: an outline that a person drew has some thousands; this many take some 1 GB."""


def fill_polygon(points: NDArray[np.float64], shape: tuple[int, int]) -> tuple[int, int, NDArray[np.uint8]]:
    """Fill one closed outline inside an image of `shape` `(H, W)`.

    Parameters
    ----------
    points : (N, 2) float
        `x, y` in pixels; pixel 0 reaches from 0.0 to 1.0. May reach outside the image.

    Returns
    -------
    top, left, alpha
        `(height, width)` uint8 of the part inside the image, as small as its box; `(0, 0)` for nothing.

    Raises
    ------
    ValueError
        Not finite, or so many edges that filling would take more memory than any drawn outline needs.

    Examples
    --------
    >>> top, left, alpha = fill_polygon(np.array([[1, 1], [3, 1], [3, 2.5], [1, 2.5]], float), (4, 4))
    >>> top, left, alpha.tolist()
    (1, 1, [[255, 255], [128, 128]])
    """
    if not np.isfinite(points).all():
        raise ValueError("an outline has a point that is no number")
    rows, xs, directions = _find_crossings(points, shape)
    if len(rows) == 0:
        return 0, 0, np.zeros((0, 0), np.uint8)
    order = np.lexsort((xs, rows))
    rows, xs = rows[order] // SUB_ROWS, xs[order]
    inside = np.flatnonzero(np.cumsum(directions[order])[:-1] != 0)
    top, left = int(rows[0]), int(np.floor(xs.min()))
    height, width = int(rows[-1]) - top + 1, int(np.ceil(xs.max())) - left
    if width <= 0:
        return 0, 0, np.zeros((0, 0), np.uint8)
    line = (rows[inside] - top) * (width + 2)
    change = np.zeros(height * (width + 2))
    for ends, sign in ((xs[inside] - left, 1.0), (xs[inside + 1] - left, -1.0)):
        column = np.floor(ends).astype(np.int64)
        part = ends - column
        change += np.bincount(line + column, sign * (1 - part), len(change))
        change += np.bincount(line + column + 1, sign * part, len(change))
    covered = change.reshape(height, width + 2).cumsum(axis=1)[:, :width] / SUB_ROWS
    alpha = np.clip(np.floor(255 * covered + 0.5), 0, 255).astype(np.uint8)
    return top, left, alpha


def _find_crossings(
    points: NDArray[np.float64], shape: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """Scan line, place and direction of each crossing of an edge with a scan line of the image."""
    height, width = shape
    far = 4.0 * (height + width)  # further out, only the direction matters
    x0, y0 = points[:, 0], np.clip(points[:, 1], -far, far)
    x1, y1 = np.roll(x0, -1), np.roll(y0, -1)
    first = np.clip(np.ceil(y0 * SUB_ROWS - 0.5), 0, height * SUB_ROWS).astype(np.int64)
    last = np.roll(first, -1)
    low, counts = np.minimum(first, last), np.abs(last - first)
    n_crossings = int(counts.sum())
    if n_crossings > MOST_CROSSINGS:
        raise ValueError(f"an outline of {len(points)} points crosses the image too often to be filled")
    edge = np.repeat(np.arange(len(points)), counts)
    rows = np.arange(n_crossings) - np.repeat(np.cumsum(counts) - counts, counts) + low[edge]
    share = ((rows + 0.5) / SUB_ROWS - y0[edge]) / (y1[edge] - y0[edge])
    xs = np.clip(x0[edge] + share * (x1[edge] - x0[edge]), 0, width)
    return rows, xs, np.sign(last - first)[edge]


def ellipse_points(
    centre: tuple[float, float], radii: tuple[float, float], turn_deg: float
) -> NDArray[np.float64]:
    """`(N, 2)` points on an ellipse, turned clockwise; the polygon's area is right to 0.01 %.

    Examples
    --------
    >>> ellipse_points((5, 5), (2, 1), 0).shape
    (256, 2)
    """
    angle = np.linspace(0, 2 * np.pi, 256, endpoint=False)
    flat = np.stack([radii[0] * np.cos(angle), radii[1] * np.sin(angle)], axis=1)
    return np.add(turn_points(flat, turn_deg), centre)


def turn_points(points: NDArray[np.float64], turn_deg: float) -> NDArray[np.float64]:
    """`(N, 2)` points turned about the origin, clockwise where y points down."""
    cos, sin = np.cos(np.deg2rad(turn_deg)), np.sin(np.deg2rad(turn_deg))
    turned: NDArray[np.float64] = np.matmul(points, np.array([[cos, sin], [-sin, cos]]))
    return turned
