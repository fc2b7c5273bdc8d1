"""One region of a result that names a class: its label, its frame, its mask, and who made it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, get_args

from core.painting import BrushRegion, Origin
from ml_backend.label_studio.label_config import LabelConfig
from ml_backend.label_studio.shape_regions import UnusableError, draw_shape

ORIGINS: tuple[Origin, ...] = get_args(Origin)

LARGEST_SIDE_PX = 1_000_000
"""Sizes in a message are shown up to this; a stranger may have written any number."""

SHOWN_CHARS = 60
"""Of a name from outside, so much is repeated in a message."""


def read_brush(
    region: Mapping[str, Any], key: str, config: LabelConfig, shape: tuple[int, int]
) -> BrushRegion:
    """Read a region whose value names its class under `key`, for an image of `shape` `(H, W)`."""
    class_index, name = _read_label(region, key, config)
    _check_frame(region, name, shape)
    top, left, alpha = draw_shape(region["value"], name, shape)
    return BrushRegion(str(region.get("id", "")), class_index, _read_origin(region, name), top, left, alpha)


def check_rotation(region: Mapping[str, Any], name: str) -> None:
    """Strokes on a rotated picture do not sit where they were drawn."""
    if read_number(region.get("image_rotation"), name, "rotation") not in (None, 0, 360):
        raise UnusableError(
            "rotated-region",
            f"A {name} region was made on a rotated picture, where strokes do not sit where they were drawn. "
            "Turn the picture upright and paint it again.",
        )


def shown(value: object) -> str:
    """A name from outside, short enough for a message."""
    return repr(str(value)[:SHOWN_CHARS])


def _read_label(region: Mapping[str, Any], key: str, config: LabelConfig) -> tuple[int, str]:
    names, tag = region["value"].get(key) or [], str(region.get("from_name"))
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UnusableError("broken-region", "A brush region's labels are not a list of names.")
    if not names:
        raise UnusableError(
            "unlabelled-region",
            "A brush region without a label says nothing. Select it and choose its label.",
        )
    found = {config.class_index(name, tag) for name in names}
    if len(set(names)) > 1 and len(found) > 1:
        raise UnusableError(
            "several-labels",
            f"A brush region has {len(set(names))} labels; a pixel has one class. Leave it one of them.",
        )
    index = config.class_index(names[0], tag)
    if index is None or not config.schema.classes[index].is_painted:
        raise UnusableError(
            "unknown-label",
            f"The label {shown(names[0])} is not in the labeling setup. Give the region a label that is, or "
            "add this one to the setup.",
        )
    return index, names[0]


def _read_origin(region: Mapping[str, Any], name: str) -> Origin:
    origin = region.get("origin") or "manual"
    for known in ORIGINS:
        if origin == known:
            return known
    raise UnusableError(
        "unknown-origin", f"A {name} region says neither that a person nor that the model made it."
    )


def _check_frame(region: Mapping[str, Any], name: str, shape: tuple[int, int]) -> None:
    """Sizes may be missing in what comes over the API; the stream's own length then has to fit."""
    check_rotation(region, name)
    if region.get("item_index") not in (None, 0):
        raise UnusableError(
            "other-frame", f"A {name} region is on another page than the first, which alone is learnt from."
        )
    height, width = shape
    seen_height = read_number(region.get("original_height"), name, "height")
    seen_width = read_number(region.get("original_width"), name, "width")
    if seen_height not in (None, height) or seen_width not in (None, width):
        raise UnusableError(
            "size-mismatch",
            f"A {name} region was painted at {_side(seen_width)} x {_side(seen_height)} pixels, "
            f"the image has {width} x {height}. Paint it again on the image as it is now.",
        )


def read_number(value: Any, name: str, what: str) -> float | None:
    """A number, also one that is written as text; None where there is none."""
    if value is None:
        return None
    try:
        number = float(value) if isinstance(value, str) else value
    except ValueError:
        number = math.nan
    if isinstance(number, (int, float)) and not math.isnan(_bounded(number)):
        return number
    raise UnusableError(
        "unreadable-size",
        f"A {name} region names {shown(value)} as the {what} of its image, which is no number.",
    )


def _bounded(number: float) -> float:
    """The number, or a very large one for an integer that no float can hold."""
    return float(max(-LARGEST_SIDE_PX, min(number, LARGEST_SIDE_PX))) if isinstance(number, int) else number


def _side(value: float | None) -> str:
    plain = value is not None and 0 <= value <= LARGEST_SIDE_PX
    return f"{value:g}" if plain else "?"
