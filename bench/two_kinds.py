"""Generated images with two kinds of bright things, round nuclei and straight bars, told apart by shape."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.annotator import LabelledImage
from core.synthetic import make_image

BARS_PER_IMAGE = 10
LENGTH_PX, WIDTH_PX = (24, 44), 5
BRIGHTNESS = (110, 210)
CLEARANCE_PX = 4
"""Bars keep away from nuclei and from one another by so much."""


def draw_two_kinds(n: int, rng: np.random.Generator, side_px: int = 256) -> list[LabelledImage]:
    """`n` images; nuclei have positive numbers, bars negative ones."""
    return [_draw(f"two-{i:03d}", rng, side_px) for i in range(n)]


def swap_kinds(images: list[LabelledImage]) -> list[LabelledImage]:
    """The same images for somebody who paints bars and leaves nuclei alone."""
    return [LabelledImage(i.name, i.image, -i.instances) for i in images]


def _draw(name: str, rng: np.random.Generator, side_px: int) -> LabelledImage:
    image, instances = make_image("fluorescence", rng, (side_px, side_px))
    picture: NDArray[Any] = image.astype(np.float32)
    reach = 2 * CLEARANCE_PX + 1
    for number in range(1, BARS_PER_IMAGE + 1):
        taken = cv2.dilate((instances != 0).astype(np.uint8), np.ones((reach, reach), np.uint8)) > 0
        bar = _bar(rng, side_px)
        if (bar & taken).any():
            continue
        instances[bar] = -number
        glow = cv2.GaussianBlur(bar.astype(np.float32), (0, 0), 1.2) * rng.uniform(*BRIGHTNESS)
        picture += glow[..., None]
    return LabelledImage(name, np.clip(picture, 0, 255).astype(np.uint8), instances)


def _bar(rng: np.random.Generator, side_px: int) -> NDArray[np.bool_]:
    stamp = np.zeros((side_px, side_px), np.uint8)
    centre, angle = rng.uniform(0, side_px, 2), rng.uniform(0, np.pi)
    half = rng.uniform(*LENGTH_PX) / 2 * np.array([np.cos(angle), np.sin(angle)])
    ends = [(int(x), int(y)) for x, y in (centre - half, centre + half)]
    cv2.line(stamp, ends[0], ends[1], 1, WIDTH_PX)
    return np.asarray(stamp > 0)
