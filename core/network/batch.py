"""A piece of an image as what networks read: standardised, channels first, padded to their stride."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.network.pixels import PixelStatistics, standardise


def to_batch(image: NDArray[Any], statistics: PixelStatistics, stride: int) -> Tensor:
    """`(H, W, C)` image to `(1, C, H', W')` float32, mirrored at its end up to multiples of the stride."""
    values = standardise(image, statistics)
    bottom, right = (-values.shape[0]) % stride, (-values.shape[1]) % stride
    if bottom or right:
        values = _mirror(values, bottom, right)
    batch = torch.from_numpy(values).permute(2, 0, 1)[None]
    return batch.contiguous(memory_format=torch.channels_last)


def _mirror(values: NDArray[np.float32], bottom: int, right: int) -> NDArray[np.float32]:
    padded = cv2.copyMakeBorder(values, 0, bottom, 0, right, cv2.BORDER_REFLECT)
    return np.asarray(padded, np.float32).reshape(*padded.shape[:2], -1)
