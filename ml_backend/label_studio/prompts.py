"""What a smart tool of the editor asks: the `context` of an interactive call, read into a prompt.

The page sends every smart region of one kind and label that is not accepted yet, oldest first: key points
(with Alt held, `is_positive` is false), rectangles, ellipses, polygons, or brush strokes. The last one says
what is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.painting import PAINTED_ALPHA, Box, BrushRegion, Mask, filled_box
from core.prompts.prompt import Point, Prompt
from ml_backend.label_studio.label_config import LabelConfig
from ml_backend.label_studio.paintings import parse_painting
from ml_backend.label_studio.shape_regions import UnusableError, draw_shape, has_shape

MOST_POINTS = 100
"""Points of one prompt that are read, the newest ones."""


@dataclass(frozen=True)
class AskedPrompt:
    """A prompt and the class that it asks for."""

    class_index: int
    prompt: Prompt


def read_prompt(
    context: Mapping[str, Any], config: LabelConfig, shape: tuple[int, int]
) -> AskedPrompt | None:
    """Read a context for an image of `shape` `(H, W)`; None where it points at nothing that can be read."""
    listed = context.get("result")
    regions = [region for region in listed if _is_region(region)] if isinstance(listed, list) else []
    if not regions:
        return None
    last = regions[-1]
    class_index = _class_of(last, config)
    if class_index is None:
        return None
    alike = [r for r in regions if _is_point(r) == _is_point(last) and _class_of(r, config) == class_index]
    try:
        prompt = _read_points(alike, shape) if _is_point(last) else _read_area(last, alike, shape)
    except (UnusableError, KeyError, ValueError, TypeError, OverflowError):
        return None
    return AskedPrompt(class_index, prompt)


def read_painted(results: Iterable[Sequence[Any]], config: LabelConfig, shape: tuple[int, int]) -> Mask:
    """`(H, W)` bool: what people painted by hand in these results; suggestions do not count."""
    painted = np.zeros(shape, bool)
    for result in results:
        for region in parse_painting(result, config, shape).regions:
            if region.origin == "manual":
                _draw(region, painted)
    return painted


def _draw(region: BrushRegion, painted: Mask) -> None:
    painted[region.box.slices] |= region.painted


def _is_region(entry: Any) -> bool:
    return isinstance(entry, Mapping) and isinstance(entry.get("value"), Mapping)


def _is_point(region: Mapping[str, Any]) -> bool:
    return str(region.get("type", "")).lower().startswith("keypoint")


def _class_of(region: Mapping[str, Any], config: LabelConfig) -> int | None:
    """The class that a region's label names, whichever of its tag's keys holds it."""
    value, tag = region["value"], str(region.get("from_name"))
    for key, names in value.items():
        if str(key).endswith("labels") and isinstance(names, list) and names and isinstance(names[0], str):
            index = config.class_index(names[0], tag)
            if index is not None:
                return index
    return None


def _read_points(regions: Sequence[Mapping[str, Any]], shape: tuple[int, int]) -> Prompt:
    positive: list[Point] = []
    negative: list[Point] = []
    for region in regions[-MOST_POINTS:]:
        point = _to_px(region["value"]["y"], shape[0]), _to_px(region["value"]["x"], shape[1])
        (negative if region.get("is_positive") is False else positive).append(point)
    return Prompt(tuple(positive), tuple(negative))


def _to_px(share_pct: float, side_px: int) -> float:
    value = float(share_pct) * side_px / 100
    if not math.isfinite(value):
        raise ValueError("a coordinate is no number")
    return value


def _read_area(
    region: Mapping[str, Any], alike: Sequence[Mapping[str, Any]], shape: tuple[int, int]
) -> Prompt:
    """The box around the newest shape; or all strokes of the brush together."""
    if "rle" in region["value"]:
        stroke = np.zeros(shape, bool)
        for one in alike:
            if "rle" in one["value"]:
                top, left, alpha = draw_shape(one["value"], "prompt", shape)
                stroke[Box(top, left, *alpha.shape).slices] |= alpha >= PAINTED_ALPHA
        return Prompt(stroke=stroke)
    if not has_shape(region["value"]):
        raise ValueError("the region has no shape")
    top, left, alpha = draw_shape(region["value"], "prompt", shape)
    inner = filled_box(alpha >= PAINTED_ALPHA)
    return Prompt(box=Box(top + inner.top, left + inner.left, inner.height, inner.width))
