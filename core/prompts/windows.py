"""Where an object may be: windows of the image, and the shape that is expected in each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from core.painting import Box, Mask, filled_box
from core.prompts.evidence import REACH
from core.prompts.prompt import Known, Prompt, pixel_of

TRUST_IN_BOX, TRUST_IN_POINT = 16.0, 8.0
"""Log-odds that the expected shape says in its middle: a box says where the object is, a point hardly."""

SMALLEST_RADIUS_PX, RADIUS_STEP = 3.0, 1.41
LARGEST_RADIUS_SHARE = 1 / 3
"""Of the shorter side of the image."""
RADII_AROUND_TYPICAL = (0.5, 2.0)
"""Where the size of the objects is known, only sizes near it are tried."""

FARTHEST = 1.6
"""Expected radii from a point beyond which no pixel is the object's."""

MARGIN_SHARE, LEAST_MARGIN_PX = 0.6, 6
CORNERS = 2.5
"""How square the shape is that a box expects: 2 is the ellipse in it, larger exponents fill its corners."""
SEED_SHARE = 0.35
"""The inner part of a box that is the object's in any case."""


@dataclass(frozen=True)
class Window:
    """A part of the image, and how far each of its pixels is from the middle, 1 at the expected border."""

    box: Box
    distance: NDArray[np.float32]
    possible: Mask
    trust: float


def draw_seeds(prompt: Prompt, shape: tuple[int, int]) -> Mask:
    """Pixels that are the object's for sure: a point, the stroke, or the middle of the box."""
    seeds = np.zeros(shape, bool)
    for point in prompt.positive:
        seeds[pixel_of(point, shape)] = True
    if prompt.stroke is not None:
        seeds |= prompt.stroke
    if prompt.box is not None and not seeds.any():
        rows, columns = _box_axes(prompt.box, Box(0, 0, *shape))
        seeds |= np.hypot(rows, columns) < SEED_SHARE
    return seeds


def _box_axes(box: Box, window: Box) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """How far each row and column of a window is from the middle of a box, 1 at its sides."""
    rows = np.arange(window.top, window.top + window.height, dtype=np.float32)[:, None] + 0.5
    columns = np.arange(window.left, window.left + window.width, dtype=np.float32)[None] + 0.5
    return (
        (rows - box.top - box.height / 2) / max(box.height / 2, 0.5),
        (columns - box.left - box.width / 2) / max(box.width / 2, 0.5),
    )


def windows(prompt: Prompt, seeds: Mask, known: Known, shape: tuple[int, int]) -> Iterator[Window]:
    if prompt.box is not None:
        margin = int(max(LEAST_MARGIN_PX, MARGIN_SHARE * max(prompt.box.height, prompt.box.width)))
        window = around(prompt.box, margin, shape)
        rows, columns = (abs(axis) for axis in _box_axes(prompt.box, window))
        distance = (rows**CORNERS + columns**CORNERS) ** np.float32(1 / CORNERS)
        yield Window(window, distance, (rows < 1) & (columns < 1), TRUST_IN_BOX)
        return
    for radius in _radii(known, shape):
        window = around(filled_box(seeds), int(np.ceil((REACH + 0.1) * radius)) + 2, shape)
        distance = distance_to(seeds[window.slices]) / np.float32(radius)
        yield Window(window, distance, distance < FARTHEST, TRUST_IN_POINT)


def distance_to(mask: Mask) -> NDArray[np.float32]:
    away = (~mask).astype(np.uint8)
    return np.asarray(cv2.distanceTransform(away, cv2.DIST_L2, cv2.DIST_MASK_PRECISE), np.float32)


def _radii(known: Known, shape: tuple[int, int]) -> list[float]:
    smallest, largest = SMALLEST_RADIUS_PX, LARGEST_RADIUS_SHARE * min(shape)
    if known.typical_diameter_px is not None:
        few, many = RADII_AROUND_TYPICAL
        smallest = max(smallest, few * known.typical_diameter_px / 2)
        largest = min(largest, many * known.typical_diameter_px / 2)
    n_steps = max(0, int(np.log(max(largest / smallest, 1)) / np.log(RADIUS_STEP)))
    return [smallest * RADIUS_STEP**step for step in range(n_steps + 1)]


def around(box: Box, margin: int, shape: tuple[int, int]) -> Box:
    top, left = max(box.top - margin, 0), max(box.left - margin, 0)
    bottom = min(box.top + box.height + margin, shape[0])
    right = min(box.left + box.width + margin, shape[1])
    return Box(top, left, max(bottom - top, 0), max(right - left, 0))
