"""What a region draws, as alpha: streams, bitmasks, and outlines filled as the editor fills them."""

from __future__ import annotations

import base64
import binascii
import io
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.errors import RLEError
from core.painting import Finding
from core.polygons import ellipse_points, fill_polygon, turn_points
from core.rle import decode_box

Drawn = tuple[int, int, NDArray[np.uint8]]
"""Top, left, and alpha `(height, width)` uint8 inside the image."""

LARGEST_PCT = 1e6
"""Shapes may reach over the image's edge, but not this far."""

SAID = (
    *("brushlabels", "bitmasklabels", "labels", "polygonlabels", "vectorlabels", "ellipselabels"),
    "rectanglelabels",
    *("rle", "imageDataURL", "points", "vertices", "x", "y", "width", "height", "radiusX", "radiusY"),
    "rotation",
)
"""What a region's value says: where it is, and of which class."""

FEWEST_POINTS = 3
CURVE_POINTS = 32
STRAIGHT_SHARE = 0.3
"""Where one end of a curve has no control point, the editor puts it so far along the straight line."""

DATA_URL = "data:image/png;base64,"


class UnusableError(Exception):
    """This region teaches nothing; the finding says why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.finding = Finding(code, message)


def draw_shape(value: Mapping[str, Any], name: str, shape: tuple[int, int]) -> Drawn:
    """Draw a region's `value` into an image of `shape` `(H, W)`; raises `UnusableError`."""
    for key, draw in DRAWERS.items():
        if key in value:
            try:
                return draw(value, name, shape)
            except (ValueError, OverflowError) as error:
                raise UnusableError("broken-region", f"A {name} region cannot be drawn: {error}.") from None
    raise UnusableError("broken-rle", f"A {name} region has no brush stream and no outline.")


def has_shape(value: Mapping[str, Any]) -> bool:
    """Whether anything in it says where it is."""
    return any(key in value for key in DRAWERS)


def _draw_stream(value: Mapping[str, Any], name: str, shape: tuple[int, int]) -> Drawn:
    if (value.get("format") or "rle") != "rle" or not isinstance(value.get("rle"), list):
        raise UnusableError("broken-rle", f"A {name} region has no brush stream.")
    if not value["rle"]:
        raise UnusableError("broken-rle", f"The brush stream of a {name} region is empty.")
    try:
        return decode_box(value["rle"], shape)
    except RLEError as error:
        raise UnusableError(
            "broken-rle", f"The brush stream of a {name} region is broken: {error}."
        ) from None


def _draw_bitmask(value: Mapping[str, Any], name: str, shape: tuple[int, int]) -> Drawn:
    address = value["imageDataURL"]
    if not isinstance(address, str) or not address.startswith(DATA_URL):
        raise UnusableError("broken-bitmask", f"The bitmask of a {name} region is no PNG in a data address.")
    try:
        content = base64.b64decode(address[len(DATA_URL) :], validate=True)
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            if image.size != shape[::-1]:
                raise UnusableError(
                    "size-mismatch",
                    f"The bitmask of a {name} region has {image.width} x {image.height} pixels, the image "
                    f"{shape[1]} x {shape[0]}. Paint it again on the image as it is now.",
                )
            alpha = np.asarray(image.convert("RGBA"))[:, :, 3]
    except (OSError, SyntaxError, binascii.Error) as error:
        raise UnusableError("broken-bitmask", f"The bitmask of a {name} region is broken: {error}.") from None
    return _cut(alpha)


def _cut(alpha: NDArray[np.uint8]) -> Drawn:
    rows, columns = np.flatnonzero(alpha.any(axis=1)), np.flatnonzero(alpha.any(axis=0))
    if len(rows) == 0:
        return 0, 0, np.zeros((0, 0), np.uint8)
    top, left = int(rows[0]), int(columns[0])
    return top, left, alpha[top : rows[-1] + 1, left : columns[-1] + 1].copy()


def _draw_polygon(value: Mapping[str, Any], name: str, shape: tuple[int, int]) -> Drawn:
    points = value["points"]
    is_listed = isinstance(points, list) and all(isinstance(p, list | tuple) and len(p) == 2 for p in points)
    if not is_listed:
        raise UnusableError("broken-region", f"The points of a {name} region are no list of pairs.")
    _check_closed(value, len(points), name, default=True)
    return fill_polygon(_to_px([(_pct(x, name), _pct(y, name)) for x, y in points], shape), shape)


def _draw_vector(value: Mapping[str, Any], name: str, shape: tuple[int, int]) -> Drawn:
    vertices = value["vertices"]
    if not isinstance(vertices, list) or not all(isinstance(vertex, Mapping) for vertex in vertices):
        raise UnusableError("broken-region", f"The points of a {name} region are no list.")
    _check_closed(value, len(vertices), name, default=False)
    points: list[tuple[float, float]] = []
    for before, here in zip([vertices[-1], *vertices[:-1]], vertices, strict=True):
        points += _curve(before, here, name)
    return fill_polygon(_to_px(points, shape), shape)


def _curve(before: Mapping[str, Any], here: Mapping[str, Any], name: str) -> list[tuple[float, float]]:
    """The end of a straight segment, or points along a curved one; control points lie on both sides."""
    start, end = _vertex(before, name), _vertex(here, name)
    leave = before.get("controlPoint2") if before.get("isBezier") else None
    arrive = here.get("controlPoint1") if here.get("isBezier") else None
    if not isinstance(leave, Mapping) and not isinstance(arrive, Mapping):
        return [end]
    along = STRAIGHT_SHARE * np.subtract(end, start)
    corners = np.array(
        [
            start,
            _vertex(leave, name) if isinstance(leave, Mapping) else start + along,
            _vertex(arrive, name) if isinstance(arrive, Mapping) else end - along,
            end,
        ]
    )
    t = np.linspace(0, 1, CURVE_POINTS + 1)[1:, None]
    weights = np.hstack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3])
    return [(float(x), float(y)) for x, y in weights @ corners]


def _vertex(point: Mapping[str, Any], name: str) -> tuple[float, float]:
    return _pct(point.get("x"), name), _pct(point.get("y"), name)


def _draw_ellipse(value: Mapping[str, Any], name: str, shape: tuple[int, int]) -> Drawn:
    x, y, across, down = (_pct(value.get(key), name) for key in ("x", "y", "radiusX", "radiusY"))
    height, width = shape
    centre, radii = (x / 100 * width, y / 100 * height), (across / 100 * width, down / 100 * height)
    return fill_polygon(ellipse_points(centre, radii, _pct(value.get("rotation") or 0, name)), shape)


def _draw_rectangle(value: Mapping[str, Any], name: str, shape: tuple[int, int]) -> Drawn:
    """Turned about its first corner, as the editor turns it."""
    x, y, width, height = (_pct(value.get(key), name) for key in ("x", "y", "width", "height"))
    (corner, size) = _to_px([(x, y), (width, height)], shape)
    flat = np.array([[0, 0], [size[0], 0], [size[0], size[1]], [0, size[1]]])
    return fill_polygon(turn_points(flat, _pct(value.get("rotation") or 0, name)) + corner, shape)


DRAWERS: Mapping[str, Callable[[Mapping[str, Any], str, tuple[int, int]], Drawn]] = {
    "rle": _draw_stream,
    "imageDataURL": _draw_bitmask,
    "points": _draw_polygon,
    "vertices": _draw_vector,
    "radiusX": _draw_ellipse,
    "width": _draw_rectangle,
}
"""By the key that only this shape has in a region's value."""


def _check_closed(value: Mapping[str, Any], n_points: int, name: str, *, default: bool) -> None:
    if not value.get("closed", default) or n_points < FEWEST_POINTS:
        raise UnusableError(
            "open-outline", f"The outline of a {name} region is not closed. Close it, or delete it."
        )


def _to_px(points: list[tuple[float, float]], shape: tuple[int, int]) -> NDArray[np.float64]:
    return np.array(points, np.float64).reshape(-1, 2) / 100 * (shape[1], shape[0])


def _pct(value: Any, name: str) -> float:
    plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not plain or not math.isfinite(value) or not -LARGEST_PCT <= value <= LARGEST_PCT:
        raise UnusableError("broken-region", f"A {name} region has no place and size in percent.")
    return float(value)
