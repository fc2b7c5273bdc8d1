"""Pixel values on their way into the network: the number of channels, and one standard for a project."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

SMALLEST_STD = 1e-3
"""Standard deviation, in units of the image, below which a channel counts as constant."""

COLOUR_CHANNELS = 3
"""Red, green and blue share a unit, so they share a deviation and colours keep their proportions."""

ONCE_CUT = ((2, 1), (4, 3))
"""Channels of an image and of its network where networks were published that never saw the last channel."""

SEEN_PX = 50_000
"""Pixels of an image, on a lattice, that its range is taken from."""
DARKEST_PCT, BRIGHTEST_PCT = 1, 99
"""Values beyond these percentiles are noise and glare, and no part of the range."""


@dataclass(frozen=True)
class NumberRange:
    """Where the values of images of one number type lie: `low` to `low + span` per channel.

    `kind` is numpy's name of the type, as `uint8`. The ranges are those of whole images, not of what was
    painted in them: cameras and file formats change the one, and people choose the other.
    """

    kind: str
    low: tuple[float, ...]
    span: tuple[float, ...]


@dataclass(frozen=True)
class PixelStatistics:
    """Mean and standard deviation per channel, in units of the image as loaded.

    Taken over the annotated pixels of a whole project, never per image: how bright an image is
    compared with the others often tells what is in it.

    `ranges` has one entry per number type of the project's images. `mean` and `std` are in units of the first
    one; images of another type count as the first type's after their range is brought to its range. Without
    ranges, as in models from before they were kept, values of all types share one unit.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    ranges: tuple[NumberRange, ...] = ()

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not self.mean:
            raise ValueError(f"one mean and one std per channel, got {self.mean} and {self.std}")
        if any(len(r.low) != len(self.mean) or len(r.span) != len(self.mean) for r in self.ranges):
            raise ValueError(f"ranges have {len(self.mean)} channels, got {self.ranges}")

    @property
    def n_channels(self) -> int:
        return len(self.mean)

    def of(self, kind: np.dtype[Any]) -> PixelStatistics:
        """The mean and deviation for images of one number type, in its own units.

        Examples
        --------
        >>> ranges = NumberRange("uint8", (0.0,), (100.0,)), NumberRange("uint16", (50.0,), (1000.0,))
        >>> PixelStatistics((20.0,), (10.0,), ranges).of(np.dtype("uint16"))
        PixelStatistics(mean=(250.0,), std=(100.0,), ranges=())
        """
        plain = replace(self, ranges=())
        if not self.ranges or kind.name == self.ranges[0].kind:
            return plain
        first = self.ranges[0]
        own = next((r for r in self.ranges if r.kind == kind.name), None) or _guess(first, kind)
        if own is None:
            return plain
        gain = [o / f for o, f in zip(own.span, first.span, strict=True)]
        mean = [o + (m - f) * g for o, m, f, g in zip(own.low, self.mean, first.low, gain, strict=True)]
        return PixelStatistics(tuple(mean), tuple(s * g for s, g in zip(self.std, gain, strict=True)))


def _guess(first: NumberRange, kind: np.dtype[Any]) -> NumberRange | None:
    """The range of a type that nobody painted in yet: as `first`, for all the values that the type holds."""
    if kind.kind != "u":
        return None
    gain = np.iinfo(kind).max / np.iinfo(first.kind).max
    return NumberRange(kind.name, tuple(v * gain for v in first.low), tuple(v * gain for v in first.span))


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
    n_found = image.shape[2]
    if n_found == n_channels:
        return image
    if (n_found, n_channels) in ONCE_CUT:
        return image[..., :n_channels]
    if 1 < n_found < n_channels:
        return np.pad(image, ((0, 0), (0, 0), (0, n_channels - n_found)))
    grey = image if n_found == 1 else image.mean(-1, keepdims=True)
    return np.repeat(grey, n_channels, axis=2)


def measure_ranges(images: Iterable[NDArray[Any]], n_channels: int) -> tuple[NumberRange, ...]:
    """One range per unsigned number type: the medians over its images; the type of most images comes first.

    Examples
    --------
    >>> ramp = np.arange(101, dtype=np.uint8).reshape(101, 1, 1)
    >>> [r] = measure_ranges([ramp], 1)
    >>> r.kind, r.low, r.span
    ('uint8', (1.0,), (98.0,))
    """
    seen = sorted(
        ((i.dtype.name, _limits(i, n_channels)) for i in images if i.dtype.kind == "u"), key=lambda s: s[0]
    )
    by_kind = [
        (kind, np.median([limits for _, limits in group], axis=0), len(group))
        for kind, group in ((kind, list(group)) for kind, group in groupby(seen, key=lambda s: s[0]))
    ]
    by_kind.sort(key=lambda found: -found[2])
    return tuple(_to_range(kind, limits) for kind, limits, _ in by_kind)


def _limits(image: NDArray[Any], n_channels: int) -> NDArray[np.float64]:
    """`(2, C)`: about the smallest and the largest value of each channel."""
    step = max(1, int(np.sqrt(image.shape[0] * image.shape[1] / SEEN_PX)))
    values = conform_channels(np.asarray(image[::step, ::step]), n_channels)
    edges = np.percentile(values.reshape(-1, n_channels), [DARKEST_PCT, BRIGHTEST_PCT], axis=0)
    return np.asarray(edges, np.float64)


def _to_range(kind: str, limits: NDArray[np.float64]) -> NumberRange:
    low, span = limits[0], np.maximum(limits[1] - limits[0], 1.0)
    if len(low) == COLOUR_CHANNELS:
        low, span = np.full_like(low, low.min()), np.full_like(span, (limits[1].max() - low.min()).clip(1.0))
    return NumberRange(kind, tuple(map(float, low)), tuple(map(float, span)))


def measure_pixels(
    samples: Sequence[NDArray[Any]], n_channels: int, ranges: tuple[NumberRange, ...] = ()
) -> PixelStatistics:
    """Mean and standard deviation over `(n, C)` samples of annotated pixels.

    Colour images get the largest deviation of their channels for all three; channels of other images have
    units of their own, and a deviation of their own. Samples keep the number types of their images; those
    that `ranges` knows are brought to the units of the first.

    Examples
    --------
    >>> measure_pixels([np.array([[0], [2]]), np.array([[4]])], 1).mean
    (2.0,)
    """
    unit = PixelStatistics((0.0,) * n_channels, (1.0,) * n_channels, ranges)
    parts = []
    for sample in samples:
        own = unit.of(sample.dtype)
        flat = np.asarray(sample, np.float64).reshape(-1, n_channels)
        parts.append((flat - np.array(own.mean)) / np.array(own.std))
    values = np.concatenate(parts)
    if len(values) == 0:
        raise ValueError("no annotated pixel to measure")
    std = np.maximum(values.std(0), SMALLEST_STD)
    if n_channels == COLOUR_CHANNELS:
        std = np.full_like(std, std.max())
    return PixelStatistics(tuple(map(float, values.mean(0))), tuple(map(float, std)), ranges)


def standardise(image: NDArray[Any], statistics: PixelStatistics) -> NDArray[np.float32]:
    """`(H, W, C)` image of any number type to float32 with the project's mean 0 and deviation 1."""
    own = statistics.of(image.dtype)
    conformed = conform_channels(image, own.n_channels)
    mean, std = np.asarray(own.mean, np.float32), np.asarray(own.std, np.float32)
    return (conformed.astype(np.float32) - mean) / std
