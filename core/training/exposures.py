"""Painted images at the exposure of one another: nobody paints in each light that a project's images have.

Learners that saw each painted image as it is alone take its brightness for a mark of its classes. One more
look at each, at the mean and contrast of another painted image, teaches how far that can be trusted: as
much as the images of this project really differ. A project of one image, or of equal ones, sees no change.

References: Reinhard et al. 2001, "Color transfer between images", https://doi.org/10.1109/38.946629
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

LATTICE_PX = 50_000
"""Pixels of an image, on a lattice, that its mean and contrast are taken from."""

SMALLEST_SPREAD = 1e-6
"""Deviation, as a share of the larger image's, below which a channel has no contrast to change."""

MOST_CONTRAST = 2.0
"""Contrast is raised or lowered by no more than this factor."""

Exposure = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Mean and standard deviation per channel."""


def measure_exposure(image: NDArray[Any]) -> Exposure:
    """Mean and deviation of each channel of an image `(H, W, C)`, in its own units.

    Examples
    --------
    >>> measure_exposure(np.uint8([[[10], [30]]]))
    (array([20.]), array([10.]))
    """
    step = max(1, round((image.shape[0] * image.shape[1] / LATTICE_PX) ** 0.5))
    seen = image[::step, ::step].reshape(-1, image.shape[2]).astype(np.float64)
    return seen.mean(0), seen.std(0)


def expose_like(image: NDArray[Any], own: Exposure, other: Exposure) -> NDArray[Any]:
    """An image `(H, W, C)` at the mean and contrast of another one, in the same number type.

    Examples
    --------
    >>> image = np.uint8([[[10], [30]]])
    >>> expose_like(image, measure_exposure(image), (np.array([100.0]), np.array([20.0]))).ravel().tolist()
    [80, 120]
    """
    (mean, spread), (to_mean, to_spread) = own, other
    gain = np.where(spread > SMALLEST_SPREAD, to_spread / np.maximum(spread, SMALLEST_SPREAD), 1.0)
    gain = np.clip(gain, 1 / MOST_CONTRAST, MOST_CONTRAST)
    changed = (image - mean.astype(np.float32)) * gain.astype(np.float32) + to_mean.astype(np.float32)
    if not np.issubdtype(image.dtype, np.integer):
        return np.asarray(changed.astype(image.dtype))
    limits = np.iinfo(image.dtype)
    return np.asarray(np.clip(np.rint(changed), limits.min, limits.max).astype(image.dtype))


def borrow_exposures(images: Sequence[NDArray[Any]], index: int) -> NDArray[Any] | None:
    """One of `images` at the exposure of the next one of its kind; None where there is no other.

    The next one, and not any: the same image looks the same in every round, so its maps can be kept.

    Examples
    --------
    >>> dark, light = np.uint8([[[10], [30]]]), np.uint8([[[80], [90]]])
    >>> borrow_exposures([dark, light], 0).ravel().tolist()
    [80, 90]
    >>> borrow_exposures([dark], 0) is None
    True
    """
    image = images[index]
    ring = [*range(index + 1, len(images)), *range(index)]
    alike = (i for i in ring if _kind(images[i]) == _kind(image))
    other = next(alike, None)
    if other is None:
        return None
    return expose_like(image, measure_exposure(image), measure_exposure(images[other]))


def _kind(image: NDArray[Any]) -> tuple[np.dtype[Any], int]:
    return image.dtype, image.shape[2]
