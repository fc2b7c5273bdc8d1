"""Distances that are the same at every call."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


def distance_inside(mask: NDArray[Any]) -> NDArray[np.float32]:
    """Return how far each pixel of a mask is from the nearest one outside, exact up to 2,000 px.

    OpenCV's precise transform differs in the last bit from call to call, with the place in memory. That
    decides between two equally near objects, and on which side of a limit a pixel lies. The square of a
    distance between two pixels is a whole number, so rounding it gives the true one.

    Parameters
    ----------
    mask : (H, W) bool or uint8
        Has a pixel outside.

    Returns
    -------
    (H, W) float32
        In pixels; 0 outside the mask.

    Examples
    --------
    >>> distance_inside(np.array([[1, 1], [1, 0]], bool)).tolist() == [[np.float32(2**0.5), 1.0], [1.0, 0.0]]
    True
    """
    values = np.asarray(mask != 0).view(np.uint8)
    distance = cv2.distanceTransform(values, cv2.DIST_L2, cv2.DIST_MASK_PRECISE).astype(np.float64)
    return np.asarray(np.sqrt(np.rint(distance * distance)), np.float32)
