"""The image with the classes in colour over it and the rims of the objects drawn."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from core.schema import LabelSchema
from export.colours import colour_of

OPACITY = 0.35
LOW_PCT, HIGH_PCT = 0.5, 99.5
"""Percentiles that become black and white where an image has 16 bits or other than three channels."""


def draw_overlay(
    image: NDArray[Any], label_map: NDArray[np.uint8], objects: NDArray[np.int32], schema: LabelSchema
) -> NDArray[np.uint8]:
    """`(H, W, 3)` uint8: object classes tinted, the outermost pixels of each object in full colour.

    Examples
    --------
    >>> objects = np.zeros((5, 5), np.int32)
    >>> objects[1:4, 1:4] = 1
    >>> grey = np.full((5, 5, 1), 100, np.uint8)
    >>> drawn = draw_overlay(grey, objects.astype(np.uint8), objects, LabelSchema.of("Background", "Nucleus"))
    >>> drawn[0, 0].tolist(), drawn[1, 1].tolist()
    ([100, 100, 100], [225, 29, 72])
    """
    shown = to_rgb(image)
    inner = cv2.erode(objects.astype(np.float32), np.ones((3, 3), np.uint8))
    rim = (objects > 0) & (inner != cv2.dilate(objects.astype(np.float32), np.ones((3, 3), np.uint8)))
    for index in schema.object_indices:
        colour = np.array(colour_of(index), np.float32)
        is_class = label_map == index
        shown[is_class] = ((1 - OPACITY) * shown[is_class] + OPACITY * colour).round().astype(np.uint8)
        shown[rim & is_class] = colour.astype(np.uint8)
    return shown


def to_rgb(image: NDArray[Any]) -> NDArray[np.uint8]:
    """`(H, W, C)` of 8 or 16 bits as people see it; of several channels the first three, of two the first."""
    channels = image[:, :, :3] if image.shape[2] >= 3 else np.repeat(image[:, :, :1], 3, axis=2)
    if channels.dtype == np.uint8 and image.shape[2] in (1, 3):
        return np.array(channels)
    low, high = np.percentile(channels, (LOW_PCT, HIGH_PCT), axis=(0, 1))
    scaled = (channels - low) / np.maximum(high - low, 1)
    return np.asarray(np.clip(scaled, 0, 1) * 255, np.uint8)
