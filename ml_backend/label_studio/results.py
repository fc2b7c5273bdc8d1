"""What the model suggests, written as a prediction that Label Studio accepts with all its checks on."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from core.asking.reason import checked_share, reason
from core.asking.regions import Region
from core.asking.suggestion import SuggestedMask, Suggestion
from core.painting import Box
from ml_backend.label_studio.answer_shapes import DrawnAnswer, draw_answer
from ml_backend.label_studio.label_config import LabelConfig
from ml_backend.ports import SentRegion

ID_LENGTH = 10
"""Characters of a region id, as the browser makes them: 60 bits."""


def to_prediction(
    suggestion: Suggestion, config: LabelConfig, model_version: str, task_key: str
) -> tuple[dict[str, Any], tuple[SentRegion, ...]]:
    """Build the prediction of one task, and the brush regions in it to be remembered.

    Scores are confidences: low = look here first. Every region says `origin: prediction`, so that copies
    which the server makes of it are not taken for a person's. Questions are left out where the project has no
    tag for them. The same arguments give the same ids; another mask gets another id.

    Raises
    ------
    ValueError
        No model version, or a score that is not a number in 0..1: Label Studio would refuse the whole batch.
    """
    if not model_version:
        raise ValueError("a prediction needs a model version")
    result: list[dict[str, Any]] = []
    sent: list[SentRegion] = []
    for index, mask in enumerate(suggestion.masks):
        for part in draw_answer(mask, config.answer_shape, suggestion.shape):
            content = np.ascontiguousarray(part.mask).data
            region_id = _region_id(task_key, model_version, index, part.box, content)
            result += _mask_region(region_id, part, mask, config, suggestion.shape)
            name = config.schema.names[mask.class_index]
            sent.append(SentRegion(region_id, name, model_version, part.top, part.left, part.mask))
    if config.uncertain_tag is not None:
        for index, region in enumerate(suggestion.regions):
            box = _cut_to(region.box, suggestion.shape)
            if box.height > 0 and box.width > 0:
                region_id = _region_id(task_key, model_version, index, box, b"question")
                result.append(_question(region_id, region, box, config, suggestion.shape))
    prediction = {
        "result": result,
        "score": checked_share(suggestion.score),
        "model_version": model_version,
    }
    return prediction, tuple(sent)


def to_annotation(
    masks: Sequence[SuggestedMask],
    config: LabelConfig,
    shape: tuple[int, int],
    key: str,
    remark: str,
    *,
    is_reviewed: bool = False,
) -> dict[str, Any]:
    """Build an annotation of masks that another tool made, in the shape that the labeling setup offers.

    Its regions count as a person's and carry `remark`, which the editor shows with them. `is_reviewed` adds
    that the whole image is true as shown, in a setup that offers it.
    """
    result: list[dict[str, Any]] = []
    for index, mask in enumerate(masks):
        for part in draw_answer(mask, config.answer_shape, shape):
            region_id = _region_id(key, remark, index, part.box, np.ascontiguousarray(part.mask).data)
            for region in _mask_region(region_id, part, mask, config, shape):
                del region["score"]
                result.append({**region, "origin": "manual", "meta": {"text": [remark]}})
    if is_reviewed and config.review_tag is not None:
        choice = {"choices": [config.review_choice]}
        result.append(
            {
                "id": _region_id(key, remark, len(masks), Box(0, 0, *shape), b"reviewed"),
                "type": "choices",
                "from_name": config.review_tag,
                "to_name": config.image_tag,
                "origin": "manual",
                "value": choice,
            }
        )
    return {"result": result}


def to_prompted_regions(
    mask: SuggestedMask, config: LabelConfig, shape: tuple[int, int], key: str
) -> list[dict[str, Any]]:
    """The answer to a smart tool, as one region in the shape of the labeling setup; `key` makes its id.

    Without `origin`: what a person asked for and accepts is the person's.
    """
    parts = list(draw_answer(mask, config.answer_shape, shape))
    if not parts:
        return []
    largest = max(parts, key=lambda part: np.count_nonzero(part.mask))
    region_id = _region_id(key, "prompt", 0, largest.box, np.ascontiguousarray(largest.mask).data)
    regions = _mask_region(region_id, largest, mask, config, shape)
    return [{name: value for name, value in region.items() if name != "origin"} for region in regions]


def _mask_region(
    region_id: str, part: DrawnAnswer, mask: SuggestedMask, config: LabelConfig, shape: tuple[int, ...]
) -> list[dict[str, Any]]:
    """One region; beside a `<Labels>` as two entries of one id, the shape and its label."""
    key = config.class_tags.get(config.brush_tag, "brushlabels")
    named = {**part.value, key: [config.schema.names[mask.class_index]]}
    score = checked_share(mask.confidence)
    region = _region(region_id, key, config.brush_tag, config, shape, named, score)
    if config.answer_tool is None:
        return [region]
    tool = config.answer_tool
    return [_region(region_id, config.answer_shape, tool, config, shape, part.value, score), region]


def _question(
    region_id: str, region: Region, box: Box, config: LabelConfig, shape: tuple[int, int]
) -> dict[str, Any]:
    """One rectangle that asks; it can be edited, because locked ones could never be removed."""
    height, width = shape
    left, top = 100 * box.left / width, 100 * box.top / height
    value = {
        "x": left,
        "y": top,
        "width": min(100 * box.width / width, 100 - left),
        "height": min(100 * box.height / height, 100 - top),
        "rotation": 0,
        "rectanglelabels": [config.uncertain_label],
    }
    # The editor shows it beside the label: the same number as in the reason, so that it has one meaning.
    score = checked_share(region.confidence)
    rectangle = _region(region_id, "rectanglelabels", str(config.uncertain_tag), config, shape, value, score)
    return {**rectangle, "meta": {"text": [reason(region, config.schema)]}}


def _region(
    region_id: str,
    kind: str,
    from_name: str,
    config: LabelConfig,
    shape: tuple[int, ...],
    value: dict[str, Any],
    score: float,
) -> dict[str, Any]:
    return {
        "id": region_id,
        "type": kind,
        "from_name": from_name,
        "to_name": config.image_tag,
        "original_width": shape[1],
        "original_height": shape[0],
        "image_rotation": 0,
        "origin": "prediction",
        "value": value,
        "score": score,
    }


def _cut_to(box: Box, shape: tuple[int, int]) -> Box:
    top, left = max(box.top, 0), max(box.left, 0)
    bottom, right = min(box.top + box.height, shape[0]), min(box.left + box.width, shape[1])
    return Box(top, left, bottom - top, right - left)


def _region_id(task_key: str, model_version: str, index: int, box: Box, content: bytes | memoryview) -> str:
    text = "\n".join((task_key, model_version, str(index), repr(box)))
    digest = hashlib.blake2b(text.encode(), digest_size=15)
    digest.update(content)
    return base64.urlsafe_b64encode(digest.digest()).decode()[:ID_LENGTH]
