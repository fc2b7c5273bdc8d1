"""Patches cut out of images under random turns, flips, sizes and light.

Geometry happens while cutting, so a turned patch has no empty corners where the image goes on, and only
the window that is needed is read from an image that may be a memory map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from core.schema import IGNORE_INDEX

MAX_CV2_CHANNELS = 4
"""cv2.warpAffine fills borders of at most so many channels at a time."""


@dataclass(frozen=True)
class Augmentation:
    """How far images are changed; 0 switches a part off.

    Attributes
    ----------
    warped : share of patches that are turned by any angle and resized; the others only by quarter turns
    scale : standard deviation of the logarithm of the size
    contrast : standard deviation of the logarithm of the contrast
    brightness : standard deviation of an offset, in standard deviations of the project's pixels
    tint : the same per channel
    """

    warped: float = 0.5
    scale: float = 0.15
    contrast: float = 0.15
    brightness: float = 0.15
    tint: float = 0.05


def random_affine(
    rng: np.random.Generator, centre: tuple[float, float], size_px: int, settings: Augmentation
) -> NDArray[np.float64]:
    """`(2, 3)` matrix from patch (x, y) to image (x, y), with `centre` (row, column) inside the patch.

    Flips and quarter turns hit pixel centres exactly; the rest is interpolated.
    """
    angle, scale = np.pi / 2 * int(rng.integers(4)), 1.0
    if rng.random() < settings.warped:
        angle = rng.uniform(0, 2 * np.pi)
        scale = float(np.exp(rng.normal(0, settings.scale)))
    cosine, sine = np.cos(angle) * scale, np.sin(angle) * scale
    flip = -1.0 if rng.random() < 0.5 else 1.0
    linear = np.array([[cosine * flip, -sine], [sine * flip, cosine]])
    # The wanted pixel lands anywhere in the middle half of the patch, not always in its centre.
    landing = rng.integers(size_px // 4, size_px - size_px // 4, 2)[::-1]
    offset = np.asarray(centre[::-1]) - linear @ landing
    return np.concatenate([linear, offset[:, None]], axis=1)


def cut_patch(
    image: NDArray[Any], label_map: NDArray[np.uint8], affine: NDArray[np.float64], size_px: int
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Cut a square patch; beyond the image its pixels are mirrored and its labels `IGNORE_INDEX`.

    Parameters
    ----------
    image : (H, W, C)
    label_map : (H, W) uint8
    affine : (2, 3)
        From patch (x, y) to image (x, y).

    Returns
    -------
    patch : (size_px, size_px, C) float32, in units of the image
    labels : (size_px, size_px) uint8

    Examples
    --------
    >>> image = np.arange(16, dtype=np.uint8).reshape(4, 4, 1)
    >>> shift = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    >>> cut_patch(image, image[..., 0], shift, 2)[0][..., 0].tolist()
    [[5.0, 6.0], [9.0, 10.0]]
    """
    corners = np.array([[0, 0], [size_px - 1, 0], [0, size_px - 1], [size_px - 1, size_px - 1]])
    reached = corners @ affine[:, :2].T + affine[:, 2]
    height, width = label_map.shape
    # One pixel more on each side for interpolation, but always at least one pixel of the image.
    left, top = np.clip(np.floor(reached.min(0)).astype(int) - 1, 0, [width - 1, height - 1])
    right, bottom = np.clip(np.ceil(reached.max(0)).astype(int) + 2, [left + 1, top + 1], [width, height])
    local = affine.copy()
    local[:, 2] -= (left, top)
    patch = _warp_channels(image[top:bottom, left:right], local, size_px)
    # Never interpolated: between class 1 and class 3 there is no class 2.
    labels = cv2.warpAffine(
        np.ascontiguousarray(label_map[top:bottom, left:right]),
        local,
        (size_px, size_px),
        flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=IGNORE_INDEX,
    )
    return patch, np.asarray(labels, np.uint8)


def _warp_channels(window: NDArray[Any], affine: NDArray[np.float64], size_px: int) -> NDArray[np.float32]:
    values = np.ascontiguousarray(window, np.float32)
    parts = [
        cv2.warpAffine(
            values[..., first : first + MAX_CV2_CHANNELS],
            affine,
            (size_px, size_px),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT_101,
        ).reshape(size_px, size_px, -1)
        for first in range(0, values.shape[2], MAX_CV2_CHANNELS)
    ]
    return np.concatenate(parts, axis=2)


@dataclass(frozen=True)
class Light:
    """A change of contrast, and an offset per channel, `(C,)`, of standardised values."""

    contrast: float
    offset: NDArray[np.float64]


def draw_light(rng: np.random.Generator, n_channels: int, settings: Augmentation) -> Light:
    """Draw contrast, brightness and tint."""
    contrast = float(np.exp(rng.normal(0, settings.contrast)))
    return Light(contrast, rng.normal(0, settings.brightness) + rng.normal(0, settings.tint, n_channels))


def change_light(patch: NDArray[np.float32], light: Light) -> NDArray[np.float32]:
    """Change the light of a standardised `(H, W, C)` patch."""
    return np.asarray(patch * light.contrast + light.offset, np.float32)
