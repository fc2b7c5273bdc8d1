"""One annotation's `result` read into a `Painting`: brush regions, reviewed areas, and remarks.

Nothing here raises for a bad region: it teaches nothing, and exactly one finding says why. What belongs to no
region (texts, choices, relations) is passed over. What a region that was read teaches in the end, and why
another one does not, is found in `core.truth`.

========================  ============================================================================
code of a finding         when
========================  ============================================================================
broken-region             an entry of the result that is not a region, or whose fields have odd types
strange-control           made with a control that the labeling setup does not have, or that names no class
strange-target            painted on something else than the image
other-frame               painted on a further page of a task
not-painted               a key point, or a rectangle that names no class
question-by-hand          an `Uncertain` rectangle that a person drew
unlabelled-region         a mask without a label: magic wand, or a label that was taken away
unknown-label             a label that the labeling setup does not have (any more)
several-labels            one region with more than one class
size-mismatch             painted at another size than the image has
unreadable-size           a size or rotation that is no number
rotated-region            painted while the picture was rotated in the browser
rotated-rectangle         a `Reviewed` rectangle that was turned
empty-rectangle           a `Reviewed` rectangle without a pixel inside the image
broken-rle                a brush stream that cannot be decoded
broken-bitmask            a bitmask that is no PNG
open-outline              a polygon or vector that is not closed
unknown-origin            an `origin` that Label Studio is not known to write
========================  ============================================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from core.painting import Box, BrushRegion, Finding, Painting
from ml_backend.label_studio.brush_regions import (
    check_rotation,
    read_brush,
    read_number,
    shown,
)
from ml_backend.label_studio.entries import (
    BARE_SHAPES,
    LABELLED_SHAPES,
    SHAPES,
    find_labelled,
    join_labels,
    without_prompts,
)
from ml_backend.label_studio.label_config import WHOLE_IMAGE_REVIEWED, LabelConfig
from ml_backend.label_studio.shape_regions import UnusableError, has_shape

LARGEST_PCT = 1e6
"""Rectangles may reach over the image's edge, but not this far."""


def parse_painting(result: Iterable[Any], config: LabelConfig, shape: tuple[int, int]) -> Painting:
    """Read an annotation's regions for an image of `shape` `(H, W)`, in the frame that the browser shows.

    A region without `origin` was made over the API and counts as manual; copies of predictions were marked
    before. `Reviewed` counts whatever the rectangle's origin says: changing the label of the model's
    `Uncertain` leaves its origin at `prediction`, and the model itself never sends `Reviewed`.
    """
    entries = without_prompts(list(result), config)
    labelled = find_labelled(entries)
    entries = join_labels(entries)
    read = [_read_entry(entry, config, shape, labelled) for entry in entries]
    return Painting(
        shape=shape,
        regions=tuple(part for part in read if isinstance(part, BrushRegion)),
        reviewed=tuple(part for part in read if isinstance(part, Box)),
        findings=tuple(part for part in read if isinstance(part, Finding)),
    )


def _read_entry(
    entry: Any, config: LabelConfig, shape: tuple[int, int], labelled: set[str]
) -> BrushRegion | Box | Finding | None:
    try:
        return _read_region(_as_mapping(entry), config, shape, labelled)
    except UnusableError as unusable:
        return unusable.finding


def _read_region(
    region: Mapping[str, Any], config: LabelConfig, shape: tuple[int, int], labelled: set[str]
) -> BrushRegion | Box | None:
    """A painted region, a reviewed area, or nothing."""
    tag = region.get("from_name")
    kind = _kind_of(region)
    if isinstance(tag, str) and tag in config.class_tags and _is_of(kind, config.class_tags[tag]):
        _check_target(region, config)
        key = config.class_tags[tag]
        if kind in SHAPES and SHAPES[kind] != "mask" and not has_shape(region["value"]):
            raise _not_painted(kind, config)
        if key == "rectanglelabels" and not _names_class(region, config):
            raise _not_painted(key, config)
        return read_brush(region, key, config, shape)
    if _is_review(region, config):
        _check_target(region, config)
        return Box(0, 0, *shape)
    if kind not in SHAPES:
        return None
    if kind in BARE_SHAPES and region.get("id") in list(labelled):
        return None
    return _read_other_shape(region, kind, config, shape)


def _is_of(kind: str, key: str) -> bool:
    """Whether a control whose labels are under `key` makes results that call themselves `kind`."""
    return kind == key or kind not in LABELLED_SHAPES


def _names_class(region: Mapping[str, Any], config: LabelConfig) -> bool:
    names = region["value"].get("rectanglelabels")
    return isinstance(names, list) and any(
        isinstance(name, str) and config.class_index(name, str(region.get("from_name"))) is not None
        for name in names
    )


def _read_other_shape(
    region: Mapping[str, Any], kind: str, config: LabelConfig, shape: tuple[int, int]
) -> BrushRegion | Box | None:
    """Something that was drawn, but not with a control that holds the classes."""
    tag = region.get("from_name")
    if not isinstance(tag, str) or tag not in config.controls or kind == "brushlabels":
        raise UnusableError(
            "strange-control",
            f"A {SHAPES[kind]} names {shown(tag)} as the control that made it; the brush of the labeling "
            f"setup is {config.brush_tag!r}. Paint it with that one, or import it under that name.",
        )
    if tag in (config.uncertain_tag, config.reviewed_tag):
        return _read_rectangle(region, config, shape)
    if SHAPES[kind] == "mask":
        raise UnusableError(
            "unlabelled-region",
            "A mask without a label, as the magic wand makes, says nothing. Paint with a label of the brush.",
        )
    raise _not_painted(kind, config)


def _as_mapping(entry: Any) -> Mapping[str, Any]:
    """The entry with a `value` that is a mapping; relations between regions have none."""
    if not isinstance(entry, Mapping) or not isinstance(entry.get("value", {}), Mapping):
        raise UnusableError("broken-region", "An entry of the annotation is not a region.")
    return {"value": {}, **entry}


def _kind_of(region: Mapping[str, Any]) -> str:
    """What the result says it is; one that says nothing, and has a mask, is one."""
    kind = region.get("type")
    if isinstance(kind, str):
        return kind.lower()
    return "brush" if "rle" in region["value"] else ""


def _check_target(region: Mapping[str, Any], config: LabelConfig) -> None:
    target = region.get("to_name")
    if target is not None and target != config.image_tag:
        raise UnusableError(
            "strange-target",
            f"A result belongs to {shown(target)}, but only the image {config.image_tag!r} is learnt from. "
            "Make it there, or import it under that name.",
        )


def _is_review(region: Mapping[str, Any], config: LabelConfig) -> bool:
    """Whether somebody said that all of the image is true as shown."""
    choices = region["value"].get("choices")
    if not isinstance(choices, list):
        return False
    tag = region.get("from_name")
    if tag == config.review_tag:
        return config.offers(config.review_tag, config.review_choice, choices)
    is_meant = any(
        isinstance(choice, str) and choice.casefold() == WHOLE_IMAGE_REVIEWED.casefold() for choice in choices
    )
    if is_meant:
        has = f"is {config.review_tag!r}" if config.review_tag else "does not exist"
        raise UnusableError(
            "strange-control",
            f"{WHOLE_IMAGE_REVIEWED!r} was said by the control {shown(tag)}; the one that counts {has} "
            "in the labeling setup.",
        )
    return False


def _not_painted(kind: str, config: LabelConfig) -> UnusableError:
    return UnusableError(
        "not-painted",
        f"Only what was painted with the brush {config.brush_tag!r} teaches; a {SHAPES[kind]} does not. "
        "Paint the object instead.",
    )


def _read_rectangle(
    region: Mapping[str, Any], config: LabelConfig, shape: tuple[int, int]
) -> BrushRegion | Box | None:
    """A reviewed area in whole pixels, cut to the image; None for the model's question."""
    value, tag = region["value"], region.get("from_name")
    labels = value.get("rectanglelabels")
    names = labels if isinstance(labels, list) else []
    _check_target(region, config)
    if tag == config.reviewed_tag and config.offers(config.reviewed_tag, config.reviewed_label, names):
        return _read_reviewed(region, shape)
    if tag == config.uncertain_tag and config.offers(config.uncertain_tag, config.uncertain_label, names):
        if region.get("origin") == "manual":
            raise UnusableError(
                "question-by-hand",
                f"{config.uncertain_label} is the model's question and teaches nothing. "
                + ("Say Reviewed where all is right as shown." if config.reviewed_label else "Delete it."),
            )
        return None
    if not names:
        raise UnusableError(
            "unlabelled-region", "A rectangle without a label says nothing. Choose its label, or delete it."
        )
    if _names_class(region, config):
        return read_brush(region, "rectanglelabels", config, shape)
    raise _not_painted("rectanglelabels", config)


def _read_reviewed(region: Mapping[str, Any], shape: tuple[int, int]) -> Box:
    value = region["value"]
    check_rotation(region, "Reviewed")
    if read_number(value.get("rotation"), "Reviewed", "turn") not in (None, 0, 360):
        raise UnusableError("rotated-rectangle", "A Reviewed rectangle is turned; draw it upright.")
    x, y, width, height = (_percent(value.get(key)) for key in ("x", "y", "width", "height"))
    top, bottom = _edges(y, y + height, shape[0])
    left, right = _edges(x, x + width, shape[1])
    if bottom <= top or right <= left:
        raise UnusableError(
            "empty-rectangle",
            "A Reviewed rectangle has no pixel inside the image. Draw it larger, or delete it.",
        )
    return Box(top, left, bottom - top, right - left)


def _percent(value: Any) -> float:
    plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not plain or not -LARGEST_PCT <= value <= LARGEST_PCT:  # NaN fails too
        raise UnusableError("broken-region", "A Reviewed rectangle has no place and size in percent.")
    return float(value)


def _edges(start_pct: float, stop_pct: float, length_px: int) -> tuple[int, int]:
    start, stop = (min(max(round(pct / 100 * length_px), 0), length_px) for pct in (start_pct, stop_pct))
    return start, stop
