"""How people paint where objects are not the unit: a brush path that crosses borders, exact under the brush.

One swath is a path of about 120 px with a radius of 10 px that turns a little at each step. It begins at a
pixel whose class is drawn evenly among the classes of the image: somebody wants to show each class.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.annotator import PaintedImage
from bench.domain_sets import MappedImage
from core.schema import IGNORE_INDEX

LENGTH_PX, RADIUS_PX, STEP_PX = 120, 10, 6

TURN_RAD = 0.25
"""Standard deviation of the turn at each step."""


def paint_swaths(
    images: Sequence[MappedImage], n_swaths: int, rng: np.random.Generator
) -> list[PaintedImage]:
    """Paint `n_swaths`, one a visit, in images that come in random order, again and again.

    A smaller number from the same state of `rng` paints the first of the same swaths.
    """
    order = [images[i] for i in rng.permutation(len(images))]
    painted = {one.name: np.full(one.label_map.shape, IGNORE_INDEX, np.uint8) for one in order}
    visits = dict.fromkeys(painted, 0)
    for visit in range(n_swaths):
        one = order[visit % len(order)]
        under = draw_swath(one.label_map, rng)
        np.copyto(painted[one.name], one.label_map, where=under)
        visits[one.name] += 1
    return [
        PaintedImage(one.name, one.image, painted[one.name], visits[one.name])
        for one in order
        if visits[one.name]
    ]


def draw_swath(truth: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.bool_]:
    """The pixels under one swath, `(H, W)`."""
    return swath_from(choose_start(truth, rng), truth.shape, rng)


def choose_start(truth: NDArray[np.uint8], rng: np.random.Generator) -> tuple[int, int]:
    """Row and column of a pixel whose class is drawn evenly among those of `truth`.

    Raises `ValueError` where nobody knows a pixel of it.
    """
    classes = np.setdiff1d(np.unique(truth), [IGNORE_INDEX])
    if not len(classes):
        raise ValueError("nobody knows a pixel of this image, so nobody can paint in it")
    candidates = np.flatnonzero(truth == rng.choice(classes))
    row, column = np.unravel_index(rng.choice(candidates), truth.shape)
    return int(row), int(column)


def swath_from(start: tuple[int, int], shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.bool_]:
    """The pixels under a swath that begins at a row and column, `(H, W)`."""
    canvas = np.zeros(shape, np.uint8)
    path = _walk((float(start[1]), float(start[0])), shape, rng)
    cv2.polylines(canvas, [path.round().astype(np.int32)], False, 1, 2 * RADIUS_PX + 1)
    return np.asarray(canvas > 0)


def _walk(
    start: tuple[float, float], shape: tuple[int, ...], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Points `(n, 2)`, x first; a path that would leave the image turns round."""
    last = np.array([shape[1] - 1, shape[0] - 1], float)
    points, angle = [np.asarray(start)], rng.uniform(0, 2 * np.pi)
    for _ in range(LENGTH_PX // STEP_PX):
        angle += rng.normal(0, TURN_RAD)
        step = STEP_PX * np.array([np.cos(angle), np.sin(angle)])
        there = points[-1] + step
        outside = (there < 0) | (there > last)
        if outside.any():
            step = np.where(outside, -step, step)
            angle = float(np.arctan2(step[1], step[0]))
            there = np.clip(points[-1] + step, 0, last)
        points.append(there)
    return np.stack(points)
