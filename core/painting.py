"""What one person submitted for one image, as plain values: brush regions, reviewed areas, boxes, masks.

Coordinates are rows and columns in the frame that the browser shows (EXIF orientation applied).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

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


def fill_holes(mask: Mask) -> Mask:
    """Return `mask` with every hole filled that it encloses; a gap of one corner encloses.

    Examples
    --------
    >>> import numpy as np
    >>> ring = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], bool)
    >>> int(fill_holes(ring).sum())
    5
    """
    if mask.size == 0:
        return mask.copy()
    # With a border around it, the outside is one area, wherever the mask touches an edge. The flood is
    # 4-connected, so it does not leak through corners.
    outside = np.pad(mask, 1).astype(np.uint8)
    cv2.floodFill(outside, None, (0, 0), 2, flags=4)
    return outside[1:-1, 1:-1] != 2  # type: ignore[no-any-return]  # numpy types a comparison as Any


def filled_box(values: NDArray[Any]) -> Box:
    """Return the smallest box that holds everything but zero of `(H, W)`; an empty one where all is zero.

    Examples
    --------
    >>> filled_box(np.array([[0, 0, 0], [0, 7, 9]], np.uint8))
    Box(top=1, left=1, height=1, width=2)
    """
    rows, columns = np.flatnonzero(values.any(axis=1)), np.flatnonzero(values.any(axis=0))
    if rows.size == 0:
        return Box(0, 0, 0, 0)
    top, left = int(rows[0]), int(columns[0])
    return Box(top, left, int(rows[-1]) + 1 - top, int(columns[-1]) + 1 - left)


def bounding_box(one: Box, other: Box) -> Box:
    """Return the smallest box around both; an empty box adds nothing."""
    if one.height * one.width == 0 or other.height * other.width == 0:
        return other if one.height * one.width == 0 else one
    top, left = min(one.top, other.top), min(one.left, other.left)
    bottom = max(one.top + one.height, other.top + other.height)
    right = max(one.left + one.width, other.left + other.width)
    return Box(top, left, bottom - top, right - left)


def shared_box(one: Box, other: Box) -> Box:
    """Return the rectangle that both cover; its height or width is 0 where they are apart."""
    top, left = max(one.top, other.top), max(one.left, other.left)
    bottom = min(one.top + one.height, other.top + other.height)
    right = min(one.left + one.width, other.left + other.width)
    return Box(top, left, max(0, bottom - top), max(0, right - left))


def slices_within(inner: Box, outer: Box) -> tuple[slice, slice]:
    """Return the slices of `inner` in an array that covers `outer`."""
    top, left = inner.top - outer.top, inner.left - outer.left
    return slice(top, top + inner.height), slice(left, left + inner.width)
