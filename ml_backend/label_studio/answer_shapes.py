"""A suggested mask in the shape that the labeling setup offers, and the pixels that this shape then shows.

Corrections are read against what was sent, so what is remembered is the shape as it is drawn, not the mask
that it was made from. Outlines are within `core.outlining.TOLERANCE_PX` of the mask's.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.asking.suggestion import SuggestedMask
from core.outlining import outline_objects
from core.painting import PAINTED_ALPHA, Box, Mask
from core.rle import encode
from ml_backend.label_studio.shape_regions import DATA_URL, draw_shape

MOST_OUTLINES = 300
"""Outlines of one class in one task, the largest first; the editor gets slow with more."""


@dataclass(frozen=True)
class DrawnAnswer:
    """The `value` of a region without its label, and what it shows: `mask` at `top, left`."""

    value: dict[str, Any]
    top: int
    left: int
    mask: Mask

    @property
    def box(self) -> Box:
        return Box(self.top, self.left, *self.mask.shape)


def draw_answer(mask: SuggestedMask, answer_shape: str, shape: tuple[int, ...]) -> Iterator[DrawnAnswer]:
    """Draw one suggested mask for an image of `shape` `(H, W)`: one brush or bitmask, or its outlines."""
    if not mask.mask.any():
        return
    if answer_shape in ("brush", "bitmask"):
        whole = np.zeros(shape[:2], np.bool_)
        whole[mask.box.slices] = mask.mask
        value = _stream(whole) if answer_shape == "brush" else _bitmask(whole)
        yield DrawnAnswer(value, mask.top, mask.left, mask.mask)
        return
    height, width = shape[:2]
    for n_sent, ring in enumerate(outline_objects(mask.mask)):
        if n_sent == MOST_OUTLINES:
            return
        points = (ring + np.array([mask.left, mask.top])) * (100 / width, 100 / height)
        value = _outline(np.minimum(points, 100.0), answer_shape)
        top, left, alpha = draw_shape(value, answer_shape, (height, width))
        if (alpha >= PAINTED_ALPHA).any():
            yield DrawnAnswer(value, top, left, alpha >= PAINTED_ALPHA)


def _stream(whole: Mask) -> dict[str, Any]:
    return {"format": "rle", "rle": encode(whole)}


def _bitmask(whole: Mask) -> dict[str, Any]:
    """A PNG in which only alpha matters; the editor gives it the label's colour."""
    pixels = np.repeat(whole[:, :, np.newaxis].astype(np.uint8) * 255, 4, axis=2)
    file = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(file, "PNG")
    return {"imageDataURL": DATA_URL + base64.b64encode(file.getvalue()).decode()}


def _outline(points: NDArray[np.float64], answer_shape: str) -> dict[str, Any]:
    """An outline in percent as polygon or vector; or the box, or the ellipse in it, around it."""
    if answer_shape == "polygon":
        return {"points": points.tolist(), "closed": True}
    if answer_shape == "vector":
        ids = [f"p{index}" for index in range(len(points))]
        vertices = [
            {"id": ids[i], "prevPointId": ids[i - 1] if i else None, "x": x, "y": y, "isBezier": False}
            for i, (x, y) in enumerate(points.tolist())
        ]
        return {"vertices": vertices, "closed": True}
    (x, y), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    width, height = right - x, bottom - y
    if answer_shape == "ellipse":
        radii = {"radiusX": width / 2, "radiusY": height / 2}
        return {"x": x + width / 2, "y": y + height / 2, **radii, "rotation": 0}
    return {"x": x, "y": y, "width": width, "height": height, "rotation": 0}
