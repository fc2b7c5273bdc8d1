"""A piece of an image as what networks read: standardised, channels first, padded to their stride."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.network.pixels import PixelStatistics, conform_channels, standardise

CPU = torch.device("cpu")


def to_batch(
    image: NDArray[Any], statistics: PixelStatistics, stride: int, device: torch.device = CPU
) -> Tensor:
    """`(H, W, C)` image to `(1, C, H', W')` float32, mirrored at its end up to multiples of the stride.

    A GPU gets the image as it is, a quarter of the bytes for 8 bit, and standardises it there.
    """
    if device.type != "cpu":
        batch = fill_up(standardise_on(device, image, statistics), stride)
        return batch.contiguous(memory_format=torch.channels_last)
    values = standardise(image, statistics)
    bottom, right = (-values.shape[0]) % stride, (-values.shape[1]) % stride
    if bottom or right:
        values = _mirror(values, bottom, right)
    batch = torch.from_numpy(values).permute(2, 0, 1)[None]
    return batch.contiguous(memory_format=torch.channels_last)


def _mirror(values: NDArray[np.float32], bottom: int, right: int) -> NDArray[np.float32]:
    padded = cv2.copyMakeBorder(values, 0, bottom, 0, right, cv2.BORDER_REFLECT)
    return np.asarray(padded, np.float32).reshape(*padded.shape[:2], -1)


def standardise_on(device: torch.device, image: NDArray[Any], statistics: PixelStatistics) -> Tensor:
    """What `core.network.pixels.standardise` does, as a tensor `(1, C, H, W)` of a device."""
    own = statistics.of(image.dtype)
    values = np.ascontiguousarray(conform_channels(image, own.n_channels))
    if values.dtype != np.uint8:  # torch knows few other unsigned numbers
        values = values.astype(np.float32)
    # Mean and deviation are float32 there too, in the same order of operations.
    mean, std = (torch.tensor(part, dtype=torch.float32).to(device) for part in (own.mean, own.std))
    return ((torch.from_numpy(values).to(device).float() - mean) / std).permute(2, 0, 1)[None]


def fill_up(values: Tensor, stride: int) -> Tensor:
    """Mirror `(1, C, H, W)` at its end up to multiples of the stride."""
    for axis in (2, 3):
        values = mirror(values, axis, -values.shape[axis] % stride)
    return values


def mirror(image: Tensor, axis: int, after: int) -> Tensor:
    """Continue an image behind its end along an axis, as OpenCV's BORDER_REFLECT does."""
    length = image.shape[axis]
    place = torch.arange(length + after, device=image.device) % (2 * length)
    return image.index_select(axis, torch.where(place < length, place, 2 * length - 1 - place))
