"""What a smart tool of the editor asks: the `context` of an interactive call, read into a prompt.

Label Studio 1.23.2 sends every smart region of one kind and label that is not accepted yet, oldest first: key
points (with Alt held, `is_positive` is false), rectangles, ellipses, polygons, or brush strokes. The last one
says what is asked for. Newer pages say `positive` in a key point's value, may name no label, and call with an
`event` too; label-studio-ml's example `segment_anything_video_interactive` shows that protocol.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from core.painting import PAINTED_ALPHA, Box, BrushRegion, Mask, filled_box
from core.prompts.prompt import Point, Prompt
from ml_backend.label_studio.label_config import LabelConfig
from ml_backend.label_studio.painters import PAINTERS
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
    alike = [region for region in regions if _class_of(region, config) == class_index]
    try:
        prompt = _read_points([r for r in alike if _is_point(r)], shape)
        shapes = [r for r in alike if not _is_point(r)]
        prompt = _with_area(prompt, shapes, shape) if shapes else prompt
    except (UnusableError, KeyError, ValueError, TypeError, OverflowError):
        return None
    return AskedPrompt(class_index, prompt)


def read_event(context: Mapping[str, Any]) -> str:
    """What a newer page wants beside answers to prompts: `capabilities`, `prewarm`; else `predict`.

    >>> read_event({"result": []}), read_event({"event": "prewarm"})
    ('predict', 'prewarm')
    """
    event = context.get("event")
    return event if isinstance(event, str) and event else "predict"


def list_capabilities(config: LabelConfig, version: str) -> dict[str, Any]:
    """The region that tells a newer page which prompts are answered, and for which tag of the setup."""
    kind = config.class_tags.get(config.brush_tag, "brushlabels")
    output = config.answer_shape if config.answer_shape in ("polygon", "vector") else "mask"
    value = {
        "prompts": ["point", "box"],
        "targets": [{"tag": PAINTERS[kind], "output": "polygon" if output == "vector" else output}],
        "model_info": {"name": "Brushloop", "version": version},
    }
    return {"id": "capabilities", "type": "capabilities", "origin": "manual", "value": value}


def acknowledge_prewarm(config: LabelConfig) -> dict[str, Any]:
    """The region that tells a newer page that the image is being looked at."""
    return {
        "id": "prewarm", "type": "prewarm_ack", "origin": "manual", "from_name": config.brush_tag,
        "to_name": config.image_tag, "value": {"status": "ok", "cached": [0], "pending": []},
    }  # fmt: skip


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
    tag = str(region.get("from_name"))
    named = [
        names[0]
        for key, names in region["value"].items()
        if str(key).endswith("labels") and isinstance(names, list) and names and isinstance(names[0], str)
    ]
    indices = (config.class_index(name, tag) for name in named)
    return next((index for index in indices if index is not None), None) if named else _only_object(config)


def _only_object(config: LabelConfig) -> int | None:
    """What a prompt without a label asks for: there has to be one class of objects."""
    objects = config.schema.object_indices
    return objects[0] if len(objects) == 1 else None


def _read_points(regions: Sequence[Mapping[str, Any]], shape: tuple[int, int]) -> Prompt:
    positive: list[Point] = []
    negative: list[Point] = []
    for region in regions[-MOST_POINTS:]:
        point = _to_px(region["value"]["y"], shape[0]), _to_px(region["value"]["x"], shape[1])
        said = region.get("is_positive", region["value"].get("positive"))
        (negative if said is False else positive).append(point)
    return Prompt(tuple(positive), tuple(negative))


def _to_px(share_pct: float, side_px: int) -> float:
    value = float(share_pct) * side_px / 100
    if not math.isfinite(value):
        raise ValueError("a coordinate is no number")
    return value


def _with_area(points: Prompt, alike: Sequence[Mapping[str, Any]], shape: tuple[int, int]) -> Prompt:
    """Points, which correct, and the box around the newest shape, or all strokes of the brush together."""
    region = alike[-1]
    if "rle" in region["value"]:
        stroke = np.zeros(shape, bool)
        for one in alike:
            if "rle" in one["value"]:
                top, left, alpha = draw_shape(one["value"], "prompt", shape)
                stroke[Box(top, left, *alpha.shape).slices] |= alpha >= PAINTED_ALPHA
        return replace(points, stroke=stroke)
    if not has_shape(region["value"]):
        raise ValueError("the region has no shape")
    top, left, alpha = draw_shape(region["value"], "prompt", shape)
    inner = filled_box(alpha >= PAINTED_ALPHA)
    return replace(points, box=Box(top + inner.top, left + inner.left, inner.height, inner.width))
