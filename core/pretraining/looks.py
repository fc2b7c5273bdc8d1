"""How the drawn images of `core.pretraining.shapes` look: dark field, stain, texture; light, blur, noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from core.distances import distance_inside
from core.pretraining.shapes import (
    Instances,
    draw_blobs,
    draw_cells,
    draw_fibres,
    draw_phases,
    smooth_noise,
)

_SQUARE = np.ones((3, 3), np.uint8)

Image = NDArray[np.float32]
ShapeKind = Literal["blobs", "cells", "fibres", "phases"]

KIND_SHARES: dict[ShapeKind, float] = {"blobs": 4 / 7, "cells": 1 / 7, "fibres": 1 / 7, "phases": 1 / 7}
"""Most of what people segment in parts are separate things."""

SMALLEST_CONTRAST = 0.06
"""Mean difference of the two looks, of 0..1, below which nobody could tell them apart."""


@dataclass(frozen=True)
class Scene:
    """A drawn image `(size, size, 3)` float32 in 0..1 with its things `(size, size)` int32."""

    image: Image
    instances: Instances
    kind: ShapeKind


def draw_scene(rng: np.random.Generator, size: int) -> Scene:
    """Draw one image of a random kind and look.

    Examples
    --------
    >>> scene = draw_scene(np.random.default_rng(0), 64)
    >>> scene.image.shape, scene.instances.shape
    ((64, 64, 3), (64, 64))
    """
    kind: ShapeKind = rng.choice(list(KIND_SHARES), p=list(KIND_SHARES.values()))
    radius_px = float(np.exp(rng.uniform(np.log(3), np.log(22))))
    instances = _draw_shapes(rng, kind, size, radius_px)
    inside, outside = _draw_looks(rng, size)
    if np.abs((inside - outside).mean((0, 1))).max() < SMALLEST_CONTRAST:
        inside = inside + rng.choice([-2, 2]) * SMALLEST_CONTRAST * _colour(rng)
    if kind != "fibres" and rng.random() < 0.5:
        outside = _add_distractors(rng, outside)
    image = _mix(rng, inside, outside, instances)
    return Scene(_take_picture(rng, image), instances, kind)


def _draw_shapes(rng: np.random.Generator, kind: ShapeKind, size: int, radius_px: float) -> Instances:
    if kind == "cells":
        return draw_cells(rng, size, int(np.clip((size / (2 * radius_px)) ** 2, 4, 80)))
    if kind == "fibres":
        return draw_fibres(rng, size, int(rng.integers(3, 14)), rng.uniform(1, 6))
    if kind == "phases":
        return draw_phases(rng, size, radius_px * 1.5)
    cover = rng.uniform(0.05, 0.55)
    n = int(np.clip(cover * size**2 / (np.pi * radius_px**2), 1, 80))
    elongation, overlap = rng.choice([0.15, 0.4, 0.8]), rng.choice([0.02, 0.2, 0.35])
    clumping = rng.choice([0.0, 0.5, 0.9])
    return draw_blobs(rng, size, radius_px, n, elongation, rng.uniform(0, 0.18), overlap, clumping)


def _draw_looks(rng: np.random.Generator, size: int) -> tuple[Image, Image]:
    """Look of the things and look of what is around them."""
    style = rng.random()
    if style < 0.3:
        return _dark_field(rng, size)
    if style < 0.65:
        return _stain(rng, size)
    return _texture(rng, size), _texture(rng, size)


def _dark_field(rng: np.random.Generator, size: int) -> tuple[Image, Image]:
    glow = 0.02 * smooth_noise(rng, size, rng.uniform(5, 50)) + rng.uniform(0, 0.12)
    outside = np.repeat(glow[..., None], 3, axis=2).astype(np.float32)
    colour = _colour(rng)
    grain = 1 + 0.25 * rng.random() * smooth_noise(rng, size, rng.uniform(1, 8))
    inside = (0.12 + rng.uniform(0, 0.8)) * grain[..., None] * (colour / colour.max())
    return inside.astype(np.float32), outside


def _stain(rng: np.random.Generator, size: int) -> tuple[Image, Image]:
    """Light through two dyes, by the Beer-Lambert law: one in the things, one in the tissue."""
    light = rng.uniform(0.75, 1, 3)
    thing_dye, tissue_dye = rng.uniform(0.1, 1.5, 3), rng.uniform(0.1, 1.2, 3)
    dense = rng.uniform(0.3, 1.2) * (1 + 0.3 * smooth_noise(rng, size, rng.uniform(1, 6)))
    tissue = rng.uniform(0, 0.7) * (1 + 0.6 * smooth_noise(rng, size, rng.uniform(4, 30)))
    tissue = np.clip(tissue, 0, 3) + 0.15 * smooth_noise(rng, size, 2)
    dense, tissue = np.clip(dense, 0, 3)[..., None], np.clip(tissue, 0, 3)[..., None]
    inside = light * np.exp(-dense * thing_dye - 0.5 * tissue * tissue_dye)
    outside = light * np.exp(-tissue * tissue_dye)
    return inside.astype(np.float32), outside.astype(np.float32)


def _texture(rng: np.random.Generator, size: int) -> Image:
    image = np.broadcast_to(_colour(rng), (size, size, 3)).astype(np.float32).copy()
    for _ in range(rng.integers(0, 4)):
        scale_px = float(np.exp(rng.uniform(np.log(0.5), np.log(40))))
        direction = _colour(rng) * 2 - 1
        direction /= np.abs(direction).max() + 1e-6
        strength = rng.uniform(0, 0.18) * rng.choice([1, 0.3], p=[0.6, 0.4])
        image += (strength * smooth_noise(rng, size, scale_px)[..., None] * direction).astype(np.float32)
    return image


def _add_distractors(rng: np.random.Generator, outside: Image) -> Image:
    """Specks or thin lines that are not the things of the image."""
    size = outside.shape[0]
    if rng.random() < 0.5:
        where = draw_blobs(rng, size, rng.uniform(1.5, 4), int(rng.integers(3, 25)), 0.3, 0.1, 0.1) > 0
    else:
        where = draw_fibres(rng, size, int(rng.integers(1, 6)), rng.uniform(1, 3)) > 0
    return np.where(where[..., None], outside + rng.uniform(-0.3, 0.3, 3), outside).astype(np.float32)


def _mix(rng: np.random.Generator, inside: Image, outside: Image, instances: Instances) -> Image:
    n_things = int(instances.max()) + 1
    spread = rng.normal(0, rng.choice([0.03, 0.12]), n_things)[instances]
    gain = np.exp(rng.normal(0, rng.choice([0.1, 0.3, 0.6]), n_things))[instances]
    dome = 1 - rng.choice([0.0, 0.4, 0.8]) * rng.random() * (1 - depth_of(instances)) ** 2
    things = (instances > 0).astype(np.float32)
    # Each thing covers by itself, so that light falls off between two that touch.
    cover = cv2.GaussianBlur(things * dome, (0, 0), rng.uniform(0.3, 1.8))[..., None]
    image = outside + (inside - outside) * cover * gain[..., None] + spread[..., None] * cover
    if rng.random() < 0.35:  # a bright or dark rim
        ids = instances.astype(np.float32)
        rim = (things > 0) & (cv2.erode(ids, _SQUARE) != cv2.dilate(ids, _SQUARE))
        softened = cv2.GaussianBlur(rim.astype(np.float32), (0, 0), 0.8)[..., None]
        image = image + rng.uniform(-0.3, 0.3) * softened
    return np.asarray(image, np.float32)


def depth_of(instances: Instances) -> NDArray[np.float32]:
    """`(H, W)` float32: 0 outside, rising from the border of each thing to 1 where it is thickest.

    >>> depth_of(np.array([[0, 1, 1, 1, 2]], np.int32))[0].tolist()
    [0.0, 0.5, 1.0, 0.5, 1.0]
    """
    ids = instances.astype(np.float32)
    is_border = cv2.erode(ids, _SQUARE) != cv2.dilate(ids, _SQUARE)
    inner = ((instances > 0) & ~is_border).astype(np.uint8)
    distance = distance_inside(inner) + 1
    thickest = np.ones(int(instances.max()) + 1, np.float32)
    np.maximum.at(thickest, instances.ravel(), distance.ravel())
    return np.asarray(np.where(instances > 0, distance / thickest[instances], 0), np.float32)


def _take_picture(rng: np.random.Generator, image: Image) -> Image:
    """Uneven light, blur, noise, gamma, and grey cameras."""
    size = image.shape[0]
    if rng.random() < 0.5:
        image = image * (1 + 0.2 * smooth_noise(rng, size, size / 2)[..., None])
    if rng.random() < 0.4:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.6)), np.float32)
    noisy = image + rng.normal(0, rng.choice([0.005, 0.02, 0.06]), image.shape)
    picture = np.clip(noisy, 0, 1) ** np.exp(rng.normal(0, 0.25))
    if rng.random() < 0.4:
        picture = np.repeat(picture.mean(-1, keepdims=True), 3, axis=2)
    return np.asarray(picture, np.float32)


def _colour(rng: np.random.Generator) -> NDArray[np.float32]:
    return rng.uniform(0, 1, 3).astype(np.float32)
