"""Images made by a generator, with their true objects: for the demo, the tests and dry runs.

Nothing here imitates a data set; the pictures are only as hard as an annotation tool needs them to be:
uneven light, noise, blur, touching objects and, in `tissue`, a textured background with distractors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Kind = Literal["fluorescence", "tissue", "grains"]

KINDS: tuple[Kind, ...] = ("fluorescence", "tissue", "grains")

TISSUE_RGB = np.array([[0.93, 0.80, 0.88], [0.78, 0.52, 0.70]])
"""Two stroma colours that the background of `tissue` mixes."""

NUCLEUS_RGB = np.array([0.42, 0.27, 0.58])


def make_image(
    kind: Kind, rng: np.random.Generator, shape: tuple[int, int] = (256, 256), n_objects: int | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Draw one image and the objects in it.

    Parameters
    ----------
    kind : {"fluorescence", "tissue", "grains"}
        Bright blobs on dark `(H, W, 1)`; dark nuclei on textured pink `(H, W, 3)`; packed polygons that
        fill the image, `(H, W, 1)`.
    rng : numpy.random.Generator
        The only source of chance: the same state draws the same image.
    shape : (int, int)
        Rows and columns, at least 32 each.
    n_objects : int, optional
        How many objects to try to place; by default as many as suit the area.

    Returns
    -------
    image : (H, W, C) uint8
    instances : (H, W) int32
        0 is background, 1..n one object each.

    Examples
    --------
    >>> image, instances = make_image("fluorescence", np.random.default_rng(0), (64, 96))
    >>> image.shape, image.dtype, instances.shape
    ((64, 96, 1), dtype('uint8'), (64, 96))
    """
    if min(shape) < 32:
        raise ValueError(f"an image of at least 32 x 32 pixels is needed, not {shape}")
    if kind == "grains":
        instances = _grains(rng, shape, n_objects or max(4, shape[0] * shape[1] // 1500))
    else:
        instances = _ellipses(rng, shape, n_objects or max(3, shape[0] * shape[1] // 2600))
    return _RENDER[kind](rng, instances), instances


def _ellipses(rng: np.random.Generator, shape: tuple[int, int], n_objects: int) -> NDArray[np.int32]:
    """Place ellipses of similar size; they may touch, and hide at most a third of one another."""
    instances = np.zeros(shape, np.int32)
    radius = rng.uniform(8, 13)
    placed = 0
    for _ in range(n_objects * 4):
        axes = tuple(round(a) for a in radius * rng.uniform(0.75, 1.3, 2))
        centre = (int(rng.integers(0, shape[1])), int(rng.integers(0, shape[0])))
        stamp = np.zeros(shape, np.uint8)
        cv2.ellipse(stamp, centre, axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
        inside = stamp > 0
        if inside.sum() == 0 or (instances[inside] > 0).mean() > 1 / 3:
            continue
        placed += 1
        instances[inside & (instances == 0)] = placed
        if placed == n_objects:
            break
    return instances


def _grains(rng: np.random.Generator, shape: tuple[int, int], n_objects: int) -> NDArray[np.int32]:
    """Voronoi cells with one dark pixel line between them."""
    seeds = rng.uniform((0, 0), shape, (n_objects, 2))
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    distances = (rows[..., None] - seeds[:, 0]) ** 2 + (columns[..., None] - seeds[:, 1]) ** 2
    instances: NDArray[np.int32] = (distances.argmin(-1) + 1).astype(np.int32)
    right, below = np.roll(instances, -1, 1), np.roll(instances, -1, 0)
    instances[(instances != right) | (instances != below)] = 0
    return instances


def _blur(image: NDArray[np.float64], sigma_px: float) -> NDArray[np.float64]:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma_px), np.float64)


def _smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], scale_px: float) -> NDArray[np.float64]:
    """Blurred noise with a standard deviation of 1 and about `scale_px` between its bumps."""
    noise = _blur(rng.standard_normal(shape), scale_px)
    return np.asarray((noise - noise.mean()) / (noise.std() + 1e-9), np.float64)


def _render_fluorescence(rng: np.random.Generator, instances: NDArray[np.int32]) -> NDArray[np.uint8]:
    brightness = np.concatenate([[0.0], rng.uniform(0.35, 0.9, int(instances.max()))])
    signal = _blur(brightness[instances], 1.2)
    signal *= 1 + 0.12 * _smooth_noise(rng, instances.shape, 3)
    light = 0.06 + 0.03 * _smooth_noise(rng, instances.shape, instances.shape[0] / 4)
    image: NDArray[np.float64] = signal + light + rng.normal(0, 0.03, instances.shape)
    return _to_uint8(image[..., None])


def _render_tissue(rng: np.random.Generator, instances: NDArray[np.int32]) -> NDArray[np.uint8]:
    mix = 1 / (1 + np.exp(-1.5 * _smooth_noise(rng, instances.shape, 9)))
    image = TISSUE_RGB[0] * (1 - mix[..., None]) + TISSUE_RGB[1] * mix[..., None]
    darkness = np.concatenate([[0.0], rng.uniform(0.55, 0.95, int(instances.max()))])
    cover = _blur(darkness[instances], 1.0)[..., None]
    image = image * (1 - cover) + NUCLEUS_RGB * cover
    image += 0.03 * _smooth_noise(rng, instances.shape, 2)[..., None] + rng.normal(0, 0.02, image.shape)
    return _to_uint8(image)


def _render_grains(rng: np.random.Generator, instances: NDArray[np.int32]) -> NDArray[np.uint8]:
    tone = np.concatenate([[0.15], rng.uniform(0.45, 0.85, int(instances.max()))])
    image = _blur(tone[instances], 0.8)
    image += 0.04 * _smooth_noise(rng, instances.shape, 2) + rng.normal(0, 0.02, instances.shape)
    return _to_uint8(image[..., None])


_RENDER: dict[str, Callable[[np.random.Generator, NDArray[np.int32]], NDArray[np.uint8]]] = {
    "fluorescence": _render_fluorescence,
    "tissue": _render_tissue,
    "grains": _render_grains,
}


def _to_uint8(image: NDArray[np.float64]) -> NDArray[np.uint8]:
    return (np.clip(image, 0, 1) * 255).round().astype(np.uint8)
