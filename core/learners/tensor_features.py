"""The features of `core.learners.pixel_features` once more, as operations on tensors.

Compiled loops are faster on processors. This is for GPUs and for graphs that are exported: every number is
computed from the same values in the same order of scales, and differs by rounding alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from core.learners.feature_plan import (
    NARROWER,
    REACH,
    SCALES_PX,
    SMALLEST_SIGMA_PX,
    WINDOW,
    Scale,
    plan_features,
)

FARTHEST = max(
    math.ceil(REACH * max(scale.sigma(), scale.scale_px * WINDOW / 2**scale.octave))
    for scale in map(Scale, SCALES_PX)
)
"""Pixels that the widest Gaussian reaches, in those of its octave."""

HALVING = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
"""OpenCV's kernel for the next image of a pyramid."""


def features_of_pixels(image: Tensor) -> Tensor:
    """`(1, C, H, W)` standardised float32 to `(F, H, W)`.

    Examples
    --------
    >>> features_of_pixels(torch.zeros(1, 3, 8, 9)).shape
    torch.Size([147, 8, 9])
    """
    height, width = image.shape[2], image.shape[3]
    plan = plan_features(image.shape[1])
    plane = image.transpose(0, 1)  # (C, 1, H, W): every channel by itself
    half = _halve(plane)
    pyramid = [_Plane.of(level) for level in (plane, half, _halve(half))]
    octaves: list[list[Tensor]] = [[plane], [], []]
    for scale in plan.scales[: None if plan.n_families else 0]:
        octaves[scale.octave].append(_at_scale(pyramid[scale.octave], scale)[:, : plan.n_families])
    # Channel by channel within an octave, as the compiled loops have them.
    joined = [torch.cat(found, dim=1).flatten(0, 1)[None] if found else None for found in octaves]
    planes = [
        _enlarge(found, 2**octave, height, width) if octave else found
        for octave, found in enumerate(joined)
        if found is not None
    ]
    return torch.cat(planes, dim=1)[0]


@dataclass(frozen=True)
class _Plane:
    """An octave `(C, 1, h, w)`, and where its rows and columns go on, `FARTHEST` beyond each edge."""

    values: Tensor
    rows: Tensor
    columns: Tensor

    @classmethod
    def of(cls, values: Tensor) -> _Plane:
        rows, columns = (mirrored_places(values.shape[axis], FARTHEST, FARTHEST, values) for axis in (2, 3))
        return cls(values, rows, columns)

    def blur(self, values: Tensor, sigma_px: float) -> Tensor:
        """Smooth values of the plane's size."""
        kernel = _gaussian(sigma_px)
        skipped = FARTHEST - len(kernel) // 2
        rows, columns = (places[skipped : places.shape[0] - skipped] for places in (self.rows, self.columns))
        return _convolve(values, kernel.to(values), (rows, columns), 1)


def mirrored_places(length: int, before: int, after: int, like: Tensor) -> Tensor:
    """Which pixel stands at each place from `-before` on; that at the edge is not repeated."""
    period = torch.clamp(torch.as_tensor(2 * length - 2), min=1)
    place = torch.arange(-before, length + after, device=like.device) % period
    return torch.where(place < length, place, period - place)


def _at_scale(plane: _Plane, scale: Scale) -> Tensor:
    """`(C, FAMILIES, h, w)` of one scale, from the plane of its octave."""
    sigma = scale.sigma()
    smooth = plane.blur(plane.values, sigma)
    around = F.pad(smooth, (1, 1, 1, 1), mode="replicate")
    up, down = around[:, :, :-2, 1:-1], around[:, :, 2:, 1:-1]
    left, right = around[:, :, 1:-1, :-2], around[:, :, 1:-1, 2:]
    falling = around[:, :, 2:, 2:] + around[:, :, :-2, :-2]
    rising = around[:, :, 2:, :-2] + around[:, :, :-2, 2:]
    dy, dx = (down - up) * (0.5 * sigma), (right - left) * (0.5 * sigma)
    yy, xx = (down + up - 2 * smooth) * sigma**2, (right + left - 2 * smooth) * sigma**2
    xy = (falling - rising) * (0.25 * sigma**2)
    narrower = smooth - plane.blur(plane.values, scale.sigma(NARROWER))
    window = scale.scale_px * WINDOW / 2**scale.octave
    together = torch.stack([dy * dy, dy * dx, dx * dx]).flatten(0, 1)
    products = plane.blur(together, window).chunk(3)
    gradient = torch.sqrt(dy * dy + dx * dx)
    families = [smooth, gradient, yy + xx, narrower, *_eigenvalues(yy, xy, xx), *_eigenvalues(*products)]
    return torch.cat(families, dim=1)


def _eigenvalues(a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Of the symmetric matrix [[a, b], [b, c]], the larger one first."""
    middle, apart = (a + c) * 0.5, (a - c) * 0.5
    root = torch.sqrt(apart * apart + b * b)
    return middle + root, middle - root


def _gaussian(sigma_px: float) -> Tensor:
    reach = max(1, math.ceil(REACH * sigma_px))
    x = torch.arange(-reach, reach + 1, dtype=torch.float64)
    kernel = torch.exp(-(x**2) / (2 * max(sigma_px, SMALLEST_SIGMA_PX) ** 2))
    return (kernel / kernel.sum()).float()


def _halve(plane: Tensor) -> Tensor:
    reach = len(HALVING) // 2
    rows, columns = (mirrored_places(plane.shape[axis], reach, reach, plane) for axis in (2, 3))
    return _convolve(plane, torch.tensor(HALVING).to(plane), (rows, columns), 2)


def _convolve(plane: Tensor, kernel: Tensor, places: tuple[Tensor, Tensor], stride: int) -> Tensor:
    """Along columns and rows, which go on at `places` beyond the edges."""
    along = F.conv2d(plane.index_select(3, places[1]), kernel[None, None, None], stride=(1, stride))
    return F.conv2d(along.index_select(2, places[0]), kernel[None, None, :, None], stride=(stride, 1))


def _enlarge(small: Tensor, step: int, height: int, width: int) -> Tensor:
    """From every `step`-th pixel to all; between samples interpolated, beyond the last ones repeated."""
    for axis, length in ((2, height), (3, width)):
        place = torch.arange(length, device=small.device)
        first = place // step
        last = torch.clamp(first + 1, max=small.shape[axis] - 1)
        share = (place % step).to(small.dtype) / step
        share = share[:, None] if axis == 2 else share
        small = small.index_select(axis, first) * (1 - share) + small.index_select(axis, last) * share
    return small
