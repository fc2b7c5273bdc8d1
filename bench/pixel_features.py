"""The features of ilastik's pixel classification: what a random forest sees of a pixel.

Six families at seven scales, each per channel: Gaussian, Laplacian of Gaussian, gradient magnitude,
difference of Gaussians, eigenvalues of the structure tensor and of the Hessian. As in ilastik, the smallest
scale has the Gaussian only (a derivative of .3 px cannot be sampled), the second Gaussian of a difference has
.66 of the scale, and the structure tensor is averaged with half the scale. OpenCV computes them here, and
VIGRA there; kernels are sampled and cut at three standard deviations in both.

References: Sommer et al. 2011, "ilastik: Interactive learning and segmentation toolkit"; Berg et al. 2019.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

SCALES_PX = (0.3, 0.7, 1.0, 1.6, 3.5, 5.0, 10.0)
SMALLEST_DERIVATIVE_PX = 0.5
NARROWER, WIDER = 0.66, 0.5
"""Scale of the second Gaussian of a difference, and of the window of a structure tensor."""

Plane = NDArray[np.float32]


def pixel_features(image: NDArray[Any]) -> NDArray[np.float32]:
    """`(H, W, C)` image to `(H, W, 49 C)` features.

    >>> pixel_features(np.zeros((8, 9, 3), np.uint8)).shape
    (8, 9, 147)
    """
    planes = [
        feature
        for channel in range(image.shape[2])
        for scale in SCALES_PX
        for feature in _at_scale(np.ascontiguousarray(image[..., channel], np.float32), scale)
    ]
    return np.stack(planes, axis=-1)


def _at_scale(plane: Plane, scale: float) -> Iterator[Plane]:
    smooth = _convolve(plane, scale, 0, 0)
    yield smooth
    if scale < SMALLEST_DERIVATIVE_PX:
        return
    down, right = _convolve(plane, scale, 1, 0), _convolve(plane, scale, 0, 1)
    hessian = [_convolve(plane, scale, *orders) for orders in ((2, 0), (1, 1), (0, 2))]
    yield hessian[0] + hessian[2]
    yield np.sqrt(down * down + right * right)
    yield smooth - _convolve(plane, NARROWER * scale, 0, 0)
    products = (down * down, down * right, right * right)
    yield from _eigenvalues(*(_convolve(product, WIDER * scale, 0, 0) for product in products))
    yield from _eigenvalues(*hessian)


def _convolve(plane: Plane, scale: float, order_down: int, order_right: int) -> Plane:
    kernels = _kernel(scale, order_right), _kernel(scale, order_down)
    return np.asarray(cv2.sepFilter2D(plane, -1, *kernels, borderType=cv2.BORDER_REFLECT_101), np.float32)


def _kernel(scale: float, order: int) -> NDArray[np.float32]:
    """A sampled Gaussian, or its first or second derivative, scaled to be exact on polynomials."""
    reach = max(1, int(np.ceil(3 * scale + 0.5 * order)))
    x = np.arange(-reach, reach + 1)
    kernel = np.exp(-(x**2) / (2 * scale**2))
    if order == 0:
        kernel /= kernel.sum()
    elif order == 1:
        kernel *= x
        kernel /= (kernel * x).sum()
    else:
        kernel *= x**2 / scale**4 - 1 / scale**2
        kernel -= kernel.mean()
        kernel /= (kernel * x**2).sum() / 2
    return kernel.astype(np.float32)


def _eigenvalues(a: Plane, b: Plane, c: Plane) -> tuple[Plane, Plane]:
    """Of the symmetric matrix [[a, b], [b, c]] at each pixel, the larger one first."""
    mean = (a + c) / 2
    apart = np.sqrt(((a - c) / 2) ** 2 + b * b)
    return mean + apart, mean - apart
