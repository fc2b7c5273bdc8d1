"""What one person submitted for one image, as plain values: brush regions and reviewed areas.

Coordinates are rows and columns in the frame that the browser shows (EXIF orientation applied).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Origin = Literal["manual", "prediction", "prediction-changed"]

PAINTED_ALPHA = 128
"""Alpha from which a pixel counts as painted; 1..127 is the soft edge of a stroke."""


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels, half-open: rows `top .. top + height`, columns `left .. left + width`."""

    top: int
    left: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


@dataclass(frozen=True)
class BrushRegion:
    """One brush region, cut to the rectangle that its non-zero alpha fills.

    `alpha` is `(height, width)` uint8, placed with its first pixel at `(top, left)` of the image.
    An emptied region has an alpha of shape `(0, 0)`.
    """

    region_id: str
    class_index: int
    origin: Origin
    top: int
    left: int
    alpha: NDArray[np.uint8]

    @property
    def box(self) -> Box:
        return Box(self.top, self.left, *self.alpha.shape)

    @property
    def painted(self) -> NDArray[np.bool_]:
        """`(height, width)` bool: alpha of at least `PAINTED_ALPHA`."""
        return self.alpha >= PAINTED_ALPHA


@dataclass(frozen=True)
class Finding:
    """One remark for the annotator. `code` is stable and in kebab-case; `message` is a sentence."""

    code: str
    message: str


@dataclass(frozen=True)
class Painting:
    """One person's submitted annotation of one image.

    `regions` keep the order of the annotation's result; `reviewed` are areas that the person declared
    to be true as shown (the whole image is one box); `findings` are remarks from reading the result.
    """

    shape: tuple[int, int]
    regions: tuple[BrushRegion, ...] = ()
    reviewed: tuple[Box, ...] = ()
    findings: tuple[Finding, ...] = ()
