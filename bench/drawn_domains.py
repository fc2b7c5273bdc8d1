"""Drawn images of kinds that base weights for nuclei never saw, each with one thing that is hard.

Nets of thin walls, large areas that only their surroundings tell apart, thin lines of one pixel in a hundred,
and phases that grey value decides. They stand in for real sets in tests and dry runs, and no figure from
them is worth publishing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from core.synthetic import make_image

Shape = tuple[int, int]
Drawing = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""An image `(H, W, C)` and its label map `(H, W)`."""

PHASE_GREY = (0.15, 0.42, 0.58, 0.85)
PHASE_LEVELS = (-0.8, 0.1, 1.0)
"""Where smooth noise passes from one phase to the next."""

AREA_RGB = np.array([(0.62, 0.72, 0.85), (0.55, 0.5, 0.48), (0.62, 0.72, 0.85), (0.4, 0.4, 0.42)])
"""Sky, wall, water and ground: sky and water look alike, only what lies around tells them apart."""


def draw_net(rng: np.random.Generator, shape: Shape) -> Drawing:
    """Grey cells between dark walls, with dark specks inside that are no walls."""
    _, cells = make_image("grains", rng, shape, max(4, shape[0] * shape[1] // 1600))
    walls = cv2.dilate((cells == 0).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    light = 0.68 + 0.06 * _smooth_noise(rng, shape, 4)
    light[_specks(rng, shape, 3.0, share=0.06) & ~walls] -= 0.3
    light[walls] = 0.3 + 0.08 * _smooth_noise(rng, shape, 2)[walls]
    return _render(rng, _blur(light, 1.0)[..., None], 0.06), walls.astype(np.uint8)


def draw_areas(rng: np.random.Generator, shape: Shape) -> Drawing:
    """Sky above a wall, water below it, ground at the bottom, each with a rough edge."""
    edges = [rng.uniform(low, high) * shape[0] for low, high in ((0.2, 0.4), (0.5, 0.6), (0.75, 0.9))]
    rough = [edge + _line_noise(rng, shape[1], shape[0] / 25) for edge in edges]
    rows = np.arange(shape[0])[:, None]
    label_map = np.sum([rows >= edge for edge in rough], axis=0).astype(np.uint8)
    image = AREA_RGB[label_map] + 0.05 * _smooth_noise(rng, shape, 5)[..., None]
    return _render(rng, image, 0.03), label_map


def draw_lines(rng: np.random.Generator, shape: Shape) -> Drawing:
    """Thin dark lines that wander across a rough surface with dark specks."""
    lines = np.zeros(shape, np.uint8)
    for _ in range(int(rng.integers(1, 4))):
        columns = np.arange(-8, shape[1] + 8, 8)
        rows = rng.uniform(0.1, 0.9) * shape[0] + np.cumsum(rng.normal(0, 4, len(columns)))
        path = np.stack([columns, rows], axis=-1).round().astype(np.int32)
        cv2.polylines(lines, [path], False, 1, int(rng.integers(2, 4)))
    light = 0.6 + 0.07 * _smooth_noise(rng, shape, 1.5)
    light[_specks(rng, shape, 2.0, share=0.02)] -= 0.2
    light[lines > 0] -= 0.22
    return _render(rng, _blur(light, 0.7)[..., None], 0.04), lines


def draw_phases(rng: np.random.Generator, shape: Shape) -> Drawing:
    """Four phases of their own grey with soft edges."""
    label_map = np.digitize(_smooth_noise(rng, shape, 9), PHASE_LEVELS).astype(np.uint8)
    light = _blur(np.asarray(PHASE_GREY)[label_map], 1.0)
    return _render(rng, light[..., None], 0.05), label_map


@dataclass(frozen=True)
class DrawnKind:
    """How a set is drawn."""

    classes: tuple[str, ...]
    draw: Callable[[np.random.Generator, Shape], Drawing]
    shape: Shape = (256, 320)


DRAWN: Mapping[str, DrawnKind] = {
    "drawn_areas": DrawnKind(("Sky", "Wall", "Water", "Ground"), draw_areas),
    "drawn_lines": DrawnKind(("Background", "Line"), draw_lines),
    "drawn_net": DrawnKind(("Cell", "Wall"), draw_net),
    "drawn_phases": DrawnKind(("Pore", "Clay", "Quartz", "Ore"), draw_phases),
}


def _specks(rng: np.random.Generator, shape: Shape, scale_px: float, share: float) -> NDArray[np.bool_]:
    noise = _smooth_noise(rng, shape, scale_px)
    return np.asarray(noise > np.quantile(noise, 1 - share))


def _line_noise(rng: np.random.Generator, length: int, height_px: float) -> NDArray[np.float64]:
    return np.asarray(height_px * _smooth_noise(rng, (1, length), 12)[0])


def _smooth_noise(rng: np.random.Generator, shape: Shape, scale_px: float) -> NDArray[np.float64]:
    noise = _blur(rng.standard_normal(shape), scale_px)
    return np.asarray((noise - noise.mean()) / (noise.std() + 1e-9), np.float64)


def _blur(plane: NDArray[Any], scale_px: float) -> NDArray[np.float64]:
    return np.asarray(cv2.GaussianBlur(plane, (0, 0), scale_px), np.float64)


def _render(rng: np.random.Generator, image: NDArray[np.float64], noise: float) -> NDArray[np.uint8]:
    noisy = image + rng.normal(0, noise, image.shape)
    return (np.clip(noisy, 0, 1) * 255).round().astype(np.uint8)
