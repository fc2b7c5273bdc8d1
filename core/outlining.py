"""Masks to outlines of few points, one per object; holes are reached through a slit of no width."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

TOLERANCE_PX = 0.75
"""How far a simplified outline may be from the one that follows every pixel."""

FEWEST_POINTS = 3


def outline_objects(
    mask: NDArray[np.bool_], tolerance_px: float = TOLERANCE_PX
) -> Iterator[NDArray[np.float64]]:
    """Outline each 4-connected object of `(H, W)` bool as `(N, 2)` `x, y` in pixels, the largest first.

    An object's holes are cut out of the same ring, wound the other way.

    Examples
    --------
    >>> (ring,) = outline_objects(np.ones((4, 6), bool))
    >>> ring.shape
    (4, 2)
    """
    n_labels, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    for index in sorted(range(1, n_labels), key=lambda i: -int(stats[i, cv2.CC_STAT_AREA])):
        left, top, width, height, _area = (int(value) for value in stats[index])
        one = labels[top : top + height, left : left + width] == index
        yield _outline(one, tolerance_px) + np.array([left, top])


def _outline(one: NDArray[np.bool_], tolerance_px: float) -> NDArray[np.float64]:
    # Here, because it brings scipy's signals and statistics: half a second at the start of every process.
    from skimage.measure import find_contours

    # With a border, rings close at the edge; -1 + 0.5 leads from pixel centres back to edges.
    rings = find_contours(np.pad(one, 1).astype(np.float64), 0.5, fully_connected="low")  # type: ignore[no-untyped-call]
    rings = sorted((ring[:, ::-1] - 0.5 for ring in rings), key=lambda ring: -abs(_area(ring)))
    height, width = one.shape
    outer, *holes = [np.clip(_simplify(ring, tolerance_px), 0, (width, height)) for ring in rings]
    for hole in holes:
        if _area(hole) * _area(outer) > 0:
            hole = hole[::-1]
        outer = _join(outer, hole)
    return outer


def _simplify(ring: NDArray[np.float64], tolerance_px: float) -> NDArray[np.float64]:
    from skimage.measure import approximate_polygon

    simple = approximate_polygon(ring, tolerance_px)[:-1]  # type: ignore[no-untyped-call]
    return np.asarray(simple if len(simple) >= FEWEST_POINTS else ring[:-1], np.float64)


def _area(ring: NDArray[np.float64]) -> float:
    x, y = ring[:, 0], ring[:, 1]
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def _join(outer: NDArray[np.float64], hole: NDArray[np.float64]) -> NDArray[np.float64]:
    """One ring that goes to the hole by the shortest way, around it, and back the same way."""
    distances = ((outer[:, None, :] - hole[None, :, :]) ** 2).sum(axis=2)
    at, start = np.unravel_index(int(distances.argmin()), distances.shape)
    around = np.concatenate([hole[start:], hole[: start + 1]])
    return np.concatenate([outer[: at + 1], around, outer[at:]])
