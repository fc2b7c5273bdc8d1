"""Pixel values on their way into the network: the number of channels, and one standard for a project."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SMALLEST_STD = 1e-3
"""Standard deviation, in units of the image, below which a channel counts as constant."""


@dataclass(frozen=True)
class PixelStatistics:
    """Mean and standard deviation per channel, in units of the image as loaded.

    Taken over the annotated pixels of a whole project, never per image: how bright an image is
    compared with the others often tells what is in it.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not self.mean:
            raise ValueError(f"one mean and one std per channel, got {self.mean} and {self.std}")

    @property
    def n_channels(self) -> int:
        return len(self.mean)


ONCE_CUT = ((2, 1), (4, 3))
"""Channels of an image and of its network where networks were published that never saw the last channel."""


def conform_channels(image: NDArray[Any], n_channels: int) -> NDArray[Any]:
    """Give an image the channels that a network reads.

    Parameters
    ----------
    image : (H, W, C) array
        A view of it is returned where nothing has to change.
    n_channels : int
        A grey image is repeated; another one with too few channels gets empty ones. A network that reads less
        than the image has, because nobody painted in such images yet, sees the mean of the channels; one that
        reads 3 of 4 or 1 of 2 sees the first ones, as it did when such images came without their last.

    Examples
    --------
    >>> conform_channels(np.zeros((2, 2, 1), np.uint8), 3).shape
    (2, 2, 3)
    """
    if image.ndim != 3:
        raise ValueError(f"an image is (H, W, C), got {image.shape}")
    found = image.shape[2]
    if found == n_channels:
        return image
    if (found, n_channels) in ONCE_CUT:
        return image[..., :n_channels]
    if 1 < found < n_channels:
        return np.pad(image, ((0, 0), (0, 0), (0, n_channels - found)))
    grey = image if found == 1 else image.mean(-1, keepdims=True)
    return np.repeat(grey, n_channels, axis=2)


COLOUR_CHANNELS = 3
"""Red, green and blue share a unit, so they share a deviation and colours keep their proportions."""


def measure_pixels(samples: Iterable[NDArray[Any]], n_channels: int) -> PixelStatistics:
    """Mean and standard deviation over `(n, C)` samples of annotated pixels.

    Colour images get the largest deviation of their channels for all three; channels of other images have
    units of their own, and a deviation of their own.

    Examples
    --------
    >>> measure_pixels([np.array([[0], [2]]), np.array([[4]])], 1).mean
    (2.0,)
    """
    values = np.concatenate([np.asarray(s, np.float64).reshape(-1, n_channels) for s in samples])
    if len(values) == 0:
        raise ValueError("no annotated pixel to measure")
    std = np.maximum(values.std(0), SMALLEST_STD)
    if n_channels == COLOUR_CHANNELS:
        std = np.full_like(std, std.max())
    return PixelStatistics(tuple(map(float, values.mean(0))), tuple(map(float, std)))


def standardise(image: NDArray[Any], statistics: PixelStatistics) -> NDArray[np.float32]:
    """`(H, W, C)` image of any number type to float32 with the project's mean 0 and deviation 1."""
    conformed = conform_channels(image, statistics.n_channels)
    mean, std = np.asarray(statistics.mean, np.float32), np.asarray(statistics.std, np.float32)
    return (conformed.astype(np.float32) - mean) / std
