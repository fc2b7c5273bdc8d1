"""Which features a pixel gets: families at scales, as many as its channels leave room for."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

SCALES_PX = (0.7, 1.0, 1.6, 3.5, 5.0, 10.0)
FAMILIES = 8
"""Features that one scale gives: the rows of `_feature_kernels.derive`."""

FINEST_AT_HALF_PX, FINEST_AT_QUARTER_PX = 3.0, 7.0
"""Scales from which on an image of half or a quarter of the size has all that there is to see."""
PYRAMID_VARIANCE = 1.0
"""Of the kernel 1, 4, 6, 4, 1 with which OpenCV halves an image, in its pixels."""
NARROWER, WINDOW = 0.66, 0.5
"""Scale of the second Gaussian of a difference, and of the window of a structure tensor, as in ilastik."""
REACH = 3.0
"""Standard deviations at which a Gaussian is cut off."""

MOST_FEATURES = 200
"""Images of more than four channels get fewer scales per channel: at most so many features in all."""

ONLY_SCALE_PX = 1.6
"""What is left where there is room for one scale."""
SMALLEST_SIGMA_PX = 0.1
"""A narrower Gaussian changes nothing."""


@dataclass(frozen=True)
class Scale:
    """A Gaussian of `scale_px`, computed `octave` halvings down the pyramid."""

    scale_px: float

    @property
    def octave(self) -> int:
        return (self.scale_px >= FINEST_AT_HALF_PX) + (self.scale_px >= FINEST_AT_QUARTER_PX)

    def sigma(self, share: float = 1.0) -> float:
        """What is left to smooth at the octave, in its pixels, for `share` of the scale."""
        step = 1 << self.octave
        done = PYRAMID_VARIANCE * (step**2 - 1) / 3  # 1 after one halving, 1 + 4 after two
        return math.sqrt(max((self.scale_px * share) ** 2 - done, 0.0)) / step


@dataclass(frozen=True)
class FeaturePlan:
    """Which features each channel gets: its value, and `n_families` of every scale."""

    scales: tuple[Scale, ...]
    n_families: int

    @property
    def n_per_channel(self) -> int:
        return 1 + len(self.scales) * self.n_families


def plan_features(n_channels: int) -> FeaturePlan:
    """All families at all scales where they fit into `MOST_FEATURES`, else as many scales as fit.

    Where not even one does, the first families of one scale.

    Examples
    --------
    >>> [plan_features(n).n_per_channel for n in (1, 4, 5, 12, 64)]
    [49, 49, 33, 9, 3]
    """
    room = max(MOST_FEATURES // n_channels - 1, 0)
    n_scales = min(room // FAMILIES, len(SCALES_PX))
    if n_scales <= 1:
        return FeaturePlan((Scale(ONLY_SCALE_PX),), min(room, FAMILIES))
    chosen = np.linspace(0, len(SCALES_PX) - 1, n_scales).round().astype(int)
    return FeaturePlan(tuple(Scale(SCALES_PX[i]) for i in chosen), FAMILIES)


def count_features(n_channels: int) -> int:
    """Features of one pixel."""
    return n_channels * plan_features(n_channels).n_per_channel
