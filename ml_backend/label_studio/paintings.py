"""One annotation's `result` read into a `Painting`: brush regions, reviewed areas, and remarks.

Nothing here raises for a bad region: it teaches nothing, and a finding says why.

========================  ============================================================================
code of a finding         when
========================  ============================================================================
broken-region             an entry of the result that is not a region, or whose fields have odd types
unlabelled-region         a mask without a label: magic wand, or a label that was taken away
unknown-label             a label that the labeling setup does not have (any more)
several-labels            one region with more than one class
size-mismatch             painted at another size than the image has
rotated-region            painted while the picture was rotated in the browser
rotated-rectangle         a `Reviewed` rectangle that was turned
empty-rectangle           a `Reviewed` rectangle without a pixel inside the image
broken-rle                a brush stream that cannot be decoded
unknown-origin            an `origin` that Label Studio is not known to write
========================  ============================================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, get_args

from core.errors import RLEError
from core.painting import Box, BrushRegion, Finding, Origin, Painting
from core.rle import decode_box
from ml_backend.label_studio.label_config import LabelConfig

ORIGINS: tuple[Origin, ...] = get_args(Origin)

LARGEST_SIDE_PX = 1_000_000
"""Sizes in a message are shown up to this; a stranger may have written any number."""

LARGEST_PCT = 1e6
"""Rectangles may reach over the image's edge, but not this far."""


class _Unusable(Exception):  # noqa: N818 - a way out of a region, caught in this file
    """This region teaches nothing; the finding says why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.finding = Finding(code, message)


def parse_painting(result: Iterable[Any], config: LabelConfig, shape: tuple[int, int]) -> Painting:
    """Read an annotation's regions for an image of `shape` `(H, W)`, in the frame that the browser shows.

    Regions of other images and of controls that mean nothing here are passed over in silence. A region
    without `origin` was made over the API and counts as manual; `payloads` has marked the copies of
    predictions before. `Reviewed` counts whatever the rectangle's origin says: changing the label of the
    model's `Uncertain` leaves its origin at `prediction`, and the model itself never sends `Reviewed`.
    """
    read = [_read_entry(entry, config, shape) for entry in result]
    return Painting(
        shape=shape,
        regions=tuple(part for part in read if isinstance(part, BrushRegion)),
        reviewed=tuple(part for part in read if isinstance(part, Box)),
        findings=tuple(part for part in read if isinstance(part, Finding)),
    )


def _read_entry(
    entry: Any, config: LabelConfig, shape: tuple[int, int]
) -> BrushRegion | Box | Finding | None:
    try:
        return _read_region(_as_mapping(entry), config, shape)
    except _Unusable as unusable:
        return unusable.finding


def _read_region(
    region: Mapping[str, Any], config: LabelConfig, shape: tuple[int, int]
) -> BrushRegion | Box | None:
    """A painted region, a reviewed area, or nothing."""
    if _is_elsewhere(region, config):
        return None
    if region.get("from_name") == config.brush_tag:
        return _read_brush(region, config, shape)
    if _offers(region, config.review_tag, "choices", config.review_choice):
        return Box(0, 0, *shape)
    if _offers(region, config.reviewed_tag, "rectanglelabels", config.reviewed_label):
        return _read_rectangle(region, shape)
    if region.get("type") == "magicwand" or "rle" in region["value"]:
        raise _Unusable("unlabelled-region", "A mask without a label, as the magic wand makes, says nothing.")
    return None


def _as_mapping(entry: Any) -> Mapping[str, Any]:
    """The entry with a `value` that is a mapping; relations between regions have none."""
    if not isinstance(entry, Mapping) or not isinstance(entry.get("value", {}), Mapping):
        raise _Unusable("broken-region", "An entry of the annotation is not a region.")
    return {"value": {}, **entry}


def _is_elsewhere(region: Mapping[str, Any], config: LabelConfig) -> bool:
    """True for regions of another image, and for those of a brush that belongs to another image."""
    return (
        region.get("to_name", config.image_tag) != config.image_tag
        or region.get("from_name") in config.other_brush_tags
    )


def _read_brush(region: Mapping[str, Any], config: LabelConfig, shape: tuple[int, int]) -> BrushRegion:
    class_index, name = _read_label(region, config)
    _check_frame(region, name, shape)
    top, left, alpha = _read_mask(region, name, shape)
    return BrushRegion(str(region.get("id", "")), class_index, _read_origin(region, name), top, left, alpha)


def _read_label(region: Mapping[str, Any], config: LabelConfig) -> tuple[int, str]:
    names = region["value"].get("brushlabels") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _Unusable("broken-region", "A brush region's labels are not a list of names.")
    if not names:
        raise _Unusable("unlabelled-region", "A brush region without a label says nothing.")
    if len(set(names)) > 1:
        raise _Unusable("several-labels", f"A brush region has {len(names)} labels; a pixel has one class.")
    class_index = config.schema.index_of(names[0])
    if class_index is None:
        raise _Unusable("unknown-label", f"The label {names[0][:60]!r} is not in the labeling setup.")
    return class_index, names[0]


def _read_origin(region: Mapping[str, Any], name: str) -> Origin:
    origin = region.get("origin") or "manual"
    for known in ORIGINS:
        if origin == known:
            return known
    raise _Unusable(
        "unknown-origin", f"A {name} region says neither that a person nor that the model made it."
    )


def _check_frame(region: Mapping[str, Any], name: str, shape: tuple[int, int]) -> None:
    """Sizes may be missing in what comes over the API; the stream's own length then has to fit."""
    _check_rotation(region, name)
    height, width = shape
    seen = region.get("original_height", height), region.get("original_width", width)
    if seen != (height, width):
        raise _Unusable(
            "size-mismatch",
            f"A {name} region was painted at {_side(seen[1])} x {_side(seen[0])} pixels, "
            f"the image has {width} x {height}.",
        )


def _check_rotation(region: Mapping[str, Any], name: str) -> None:
    if region.get("image_rotation") not in (None, 0):
        raise _Unusable(
            "rotated-region",
            f"A {name} region was made on a rotated picture, where strokes do not sit where they were drawn.",
        )


def _side(value: Any) -> str:
    plain = isinstance(value, (int, float)) and 0 <= value <= LARGEST_SIDE_PX
    return f"{value:g}" if plain else "?"


def _read_mask(region: Mapping[str, Any], name: str, shape: tuple[int, int]) -> tuple[int, int, Any]:
    value = region["value"]
    if value.get("format", "rle") != "rle" or not isinstance(value.get("rle"), list):
        raise _Unusable("broken-rle", f"A {name} region has no brush stream.")
    if not value["rle"]:
        raise _Unusable("broken-rle", f"The brush stream of a {name} region is empty.")
    try:
        return decode_box(value["rle"], shape)
    except RLEError as error:
        raise _Unusable("broken-rle", f"The brush stream of a {name} region is broken: {error}.") from None


def _offers(region: Mapping[str, Any], tag: str | None, key: str, text: str | None) -> bool:
    """True when the region comes from `tag` and carries `text` among its labels or choices."""
    names = region["value"].get(key)
    return tag is not None and region.get("from_name") == tag and isinstance(names, list) and text in names


def _read_rectangle(region: Mapping[str, Any], shape: tuple[int, int]) -> Box:
    """Percent of the image to whole pixels, cut to the image."""
    value = region["value"]
    _check_rotation(region, "Reviewed")
    if value.get("rotation") not in (None, 0):
        raise _Unusable("rotated-rectangle", "A Reviewed rectangle is turned; draw it upright.")
    x, y, width, height = (_percent(value.get(key)) for key in ("x", "y", "width", "height"))
    top, bottom = _edges(y, y + height, shape[0])
    left, right = _edges(x, x + width, shape[1])
    if bottom <= top or right <= left:
        raise _Unusable("empty-rectangle", "A Reviewed rectangle has no pixel inside the image.")
    return Box(top, left, bottom - top, right - left)


def _percent(value: Any) -> float:
    plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not plain or not -LARGEST_PCT <= value <= LARGEST_PCT:  # NaN fails too
        raise _Unusable("broken-region", "A Reviewed rectangle has no place and size in percent.")
    return float(value)


def _edges(start_pct: float, stop_pct: float, length_px: int) -> tuple[int, int]:
    start, stop = (min(max(round(pct / 100 * length_px), 0), length_px) for pct in (start_pct, stop_pct))
    return start, stop
