"""Where things are in the drawn images that base weights are made from: blobs, cells, fibres, phases.

Each function draws from `rng` alone and returns `(size, size)` int32: 0 is background, 1..n one thing each.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Instances = NDArray[np.int32]

OUTLINE_POINTS = 40
SMALLEST_BLOB_PX = 12


def smooth_noise(rng: np.random.Generator, size: int, scale_px: float) -> NDArray[np.float32]:
    """`(size, size)` float32 noise of mean 0 and deviation 1 with about `scale_px` between its bumps."""
    if scale_px < 1:
        noise = rng.standard_normal((size, size)).astype(np.float32)
    else:
        cells = max(4, int(size / scale_px) + 3)
        coarse = rng.standard_normal((cells, cells)).astype(np.float32)
        noise = np.asarray(cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC), np.float32)
    return np.asarray((noise - noise.mean()) / (noise.std() + 1e-6), np.float32)


def draw_blobs(
    rng: np.random.Generator,
    size: int,
    radius_px: float,
    n: int,
    elongation: float,
    roughness: float,
    overlap: float,
    clumping: float = 0.0,
) -> Instances:
    """Rounded things of similar size, each hidden by others up to a share of `overlap`.

    A share of `clumping` is placed beside one that is there already.
    """
    instances = np.zeros((size, size), np.int32)
    centres: list[NDArray[np.float64]] = []
    for _ in range(n * 3):
        centre = rng.uniform(-5, size + 5, 2)
        if centres and rng.random() < clumping:
            angle = rng.uniform(0, 2 * np.pi)
            apart = 2 * radius_px * rng.uniform(0.7, 1.1)
            centre = centres[rng.integers(len(centres))] + apart * np.array([np.cos(angle), np.sin(angle)])
        sized = radius_px * float(np.exp(rng.normal(0, 0.3)))
        stamp = _blob(rng, size, centre, sized, elongation, roughness)
        if np.count_nonzero(stamp) < SMALLEST_BLOB_PX or (instances[stamp] > 0).mean() > overlap:
            continue
        centres.append(centre)
        instances[stamp & (instances == 0)] = len(centres)
        if len(centres) == n:
            break
    return instances


def _blob(
    rng: np.random.Generator,
    size: int,
    centre: NDArray[np.float64],
    radius_px: float,
    elongation: float,
    roughness: float,
) -> NDArray[np.bool_]:
    """One closed outline in polar form around (x, y): an ellipse whose radius waves."""
    angle = np.linspace(0, 2 * np.pi, OUTLINE_POINTS, endpoint=False)
    waves = [rng.normal() / f * np.cos(f * angle + rng.uniform(0, 2 * np.pi)) for f in (2, 3, 4, 5)]
    long = radius_px * float(np.exp(rng.uniform(0, elongation)))
    radius = 1 + roughness * np.sum(waves, axis=0)
    x, y = long * radius * np.cos(angle), radius_px**2 / long * radius * np.sin(angle)
    turn = rng.uniform(0, np.pi)
    turned = [x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)]
    outline = centre + np.stack(turned, axis=1)
    stamp = np.zeros((size, size), np.uint8)
    cv2.fillPoly(stamp, [outline.round().astype(np.int32)], 1)
    return np.asarray(stamp > 0)


def draw_cells(rng: np.random.Generator, size: int, n: int) -> Instances:
    """Warped Voronoi cells with walls of 1 to 3 pixels, some of them empty."""
    seeds = rng.uniform(0, size, (n, 2))
    rows, columns = np.mgrid[:size, :size].astype(np.float32)
    rows = rows + smooth_noise(rng, size, size / 6) * size * 0.03
    columns = columns + smooth_noise(rng, size, size / 6) * size * 0.03
    distance = (rows[..., None] - seeds[:, 0]) ** 2 + (columns[..., None] - seeds[:, 1]) ** 2
    instances: Instances = (distance.argmin(-1) + 1).astype(np.int32)
    wall = np.zeros((size, size), np.uint8)
    wall[1:] |= instances[1:] != instances[:-1]
    wall[:, 1:] |= instances[:, 1:] != instances[:, :-1]
    extra = int(rng.integers(0, 3))
    if extra:
        wall[:] = cv2.dilate(wall, np.ones((extra + 1, extra + 1), np.uint8))
    is_empty = rng.random(n + 1) < rng.choice([0, 0.3, 0.6])
    instances[is_empty[instances] | (wall > 0)] = 0
    return instances


def draw_fibres(rng: np.random.Generator, size: int, n: int, width_px: float) -> Instances:
    """Wandering lines; they cross, so all of them count as one thing."""
    canvas = np.zeros((size, size), np.uint8)
    for _ in range(n):
        point, heading = rng.uniform(0, size, 2), rng.uniform(0, 2 * np.pi)
        points = [point]
        for _ in range(30):
            heading += rng.normal(0, 0.25)
            point = point + 8 * np.array([np.cos(heading), np.sin(heading)])
            points.append(point)
        cv2.polylines(canvas, [np.array(points).round().astype(np.int32)], False, 1, max(1, int(width_px)))
    return canvas.astype(np.int32)


def draw_phases(rng: np.random.Generator, size: int, scale_px: float) -> Instances:
    """Two phases that share the image, at a random level."""
    field = smooth_noise(rng, size, scale_px) + 0.3 * smooth_noise(rng, size, scale_px / 2)
    return (field > rng.uniform(-0.7, 0.9)).astype(np.int32)
