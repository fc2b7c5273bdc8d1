"""The pixels of an image as colours in which equal distances look equally different."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Colours = NDArray[np.float32]
"""`(H, W, C)`; each channel in about 0..100, as lightness is in CIELAB."""

DARKEST, BRIGHTEST = 0.5, 99.5
"""Percentiles that become black and white: microscopes fill a part of their range."""

SAMPLED_PX = 1_000_000
"""Pixels that the percentiles are taken from, about."""


def to_colours(image: NDArray[Any]) -> Colours:
    """Stretch an image `(H, W, C)` of any number type; three channels become CIELAB.

    Examples
    --------
    >>> to_colours(np.array([[[0], [50]], [[100], [200]]], np.uint16)).round()[..., 0].tolist()
    [[0.0, 25.0], [50.0, 100.0]]
    """
    step = max(1, int(np.sqrt(image.shape[0] * image.shape[1] / SAMPLED_PX)))
    sample = image[::step, ::step].reshape(-1, image.shape[2])
    low, high = np.percentile(sample, [DARKEST, BRIGHTEST], axis=0)
    if image.shape[2] == 3:
        # Together, because the proportions between the channels are the colour.
        low, high = np.full(3, low.min()), np.full(3, high.max())
    scale = 1.0 / np.maximum(high - low, 1e-6)
    stretched = np.clip((image.astype(np.float32) - low.astype(np.float32)) * scale.astype(np.float32), 0, 1)
    if image.shape[2] == 3:
        return np.asarray(cv2.cvtColor(np.ascontiguousarray(stretched), cv2.COLOR_RGB2Lab), np.float32)
    return np.asarray(100 * stretched, np.float32)
