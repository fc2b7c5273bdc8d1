"""The paths that a hand with a brush takes over known objects."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Path = list[tuple[float, float]]

SPACING = 0.6
"""Distance between neighbouring lines of a filling, in brush diameters: they overlap."""

LONGEST_LINE_PX = 120
"""Nobody draws a straight line through the whole image."""


def fill(mask: NDArray[np.bool_], diameter_px: float) -> Path:
    """One stroke, to and fro, that covers a round object and stays inside it."""
    core = shrink(mask, diameter_px / 2)
    rows = np.flatnonzero(core.any(axis=1))
    assert rows.size, "the brush is thicker than the object"
    n_lines = max(2, int(np.ceil((rows[-1] - rows[0]) / (SPACING * diameter_px))) + 1)
    path: Path = []
    for n, row in enumerate(np.unique(np.linspace(rows[0], rows[-1], n_lines).round().astype(int))):
        columns = np.flatnonzero(core[row])
        line = [(row + 0.5, columns[0] + 0.5), (row + 0.5, columns[-1] + 0.5)]
        path += line if n % 2 == 0 else line[::-1]
    return path


def ring(mask: NDArray[np.bool_], distance_px: float, n_points: int = 24) -> Path:
    """One stroke around an object, at a distance from it."""
    far = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5) <= distance_px
    contours, _ = cv2.findContours(far.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = max(contours, key=len)[:, 0, ::-1]
    chosen = outline[np.linspace(0, len(outline) - 1, n_points).astype(int)]
    return [(row + 0.5, column + 0.5) for row, column in chosen]


def free_lines(forbidden: NDArray[np.bool_], diameter_px: float, n_lines: int) -> list[Path]:
    """The longest straight strokes whose paint touches nothing forbidden, well apart from each other."""
    free = shrink(~forbidden, diameter_px / 2 + 1)
    found: list[Path] = []
    for _ in range(n_lines):
        row, left, right = max(_longest_runs(free), key=lambda run: min(run[2] - run[1], LONGEST_LINE_PX))
        right = min(right, left + LONGEST_LINE_PX)
        found.append([(row + 0.5, left + 0.5), (row + 0.5, right + 0.5)])
        half = round(2 * diameter_px)
        free[max(0, row - half) : row + half + 1, left : right + 1] = False
    return found


def shrink(mask: NDArray[np.bool_], distance_px: float) -> NDArray[np.bool_]:
    """The pixels that are farther than that from everything outside; the image's border is outside."""
    framed = np.pad(mask.astype(np.uint8), 1)
    return cv2.distanceTransform(framed, cv2.DIST_L2, 5)[1:-1, 1:-1] > distance_px


def deepest(mask: NDArray[np.bool_]) -> tuple[float, float]:
    """The pixel that is farthest from everything outside the mask."""
    depth = cv2.distanceTransform(np.pad(mask.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    return float(row), float(column)


def _longest_runs(free: NDArray[np.bool_]) -> list[tuple[int, int, int]]:
    runs = []
    for row, line in enumerate(free):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], line.astype(np.int8), [0]])))
        starts, ends = edges[::2], edges[1::2]
        if starts.size:
            longest = int((ends - starts).argmax())
            runs.append((row, int(starts[longest]), int(ends[longest]) - 1))
    return runs
