"""Numbers of any type as the 8 or 16 bits that are stored; the words say what a stored number stands for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.errors import ImageError
from ingest.frames import Frame, walk_bands

LARGEST = 65_535


@dataclass(frozen=True)
class Scaling:
    """Stored = (value - low) / (high - low) * 65535, or the value plus `offset` where nothing is lost."""

    dtype: np.dtype[Any]
    low: float = 0.0
    high: float = 0.0
    offset: int | None = 0

    @property
    def words(self) -> str:
        """What was done to the numbers; empty where nothing was."""
        if self.offset is None:
            return f"0 to {LARGEST} stands for {self.low:.9g} to {self.high:.9g}"
        return f"stored is the value plus {self.offset}" if self.offset else ""

    def apply(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Pixels of any type in `dtype`; what is no number becomes the lowest."""
        if self.offset is not None:
            if pixels.dtype == self.dtype:
                return pixels
            return np.asarray((pixels.astype(np.int64) + self.offset).astype(self.dtype))
        wide = pixels.astype(np.float64)
        span = self.high - self.low
        scaled = (wide - self.low) * (LARGEST / span) if span > 0 else np.zeros_like(wide)
        cut = np.clip(np.nan_to_num(scaled, nan=0.0, posinf=LARGEST, neginf=0.0), 0, LARGEST)
        return np.asarray(np.rint(cut).astype(self.dtype))


def plan_scaling(frames: Iterable[Frame], wanted: tuple[float, float] | None = None) -> Scaling:
    """One scaling for all frames of a file, which are walked through where their type alone does not say it.

    `wanted` are the two values that become 0 and 65535; 8 and 16 bits without a sign stay as they are.
    """
    frames = list(frames)
    dtype = frames[0].dtype
    if dtype in (np.uint8, np.uint16):
        return Scaling(dtype)
    if dtype == np.int8:
        return Scaling(np.dtype(np.uint8), offset=128)
    if dtype == np.int16:
        return Scaling(np.dtype(np.uint16), offset=32768)
    stored = np.dtype(np.uint16)
    if wanted is not None:
        return Scaling(stored, *wanted, offset=None)
    low, high = _measure(frames)
    if dtype.kind in "ui" and low >= 0 and high <= LARGEST:
        return Scaling(stored)
    return Scaling(stored, low, high, offset=None)


def _measure(frames: Iterable[Frame]) -> tuple[float, float]:
    """Smallest and largest number; raises where there is none."""
    low, high = np.inf, -np.inf
    for frame in frames:
        for band in walk_bands(frame):
            finite = band[np.isfinite(band)] if band.dtype.kind == "f" else band
            if finite.size:
                low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    if low > high:
        raise ImageError("none of its pixels is a number")
    return low, high
