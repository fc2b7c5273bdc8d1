"""Pictures with known objects, and what somebody paints in them as the browser writes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.annotator import SCHEMA
from core.painting import Box, BrushRegion
from core.rle import encode
from core.synthetic import Kind, make_image

BLOCK_PX = 256
"""Larger pictures are put together from blocks of this size, because drawing takes long."""

SOFT_EDGE_PX = 0.5
"""Blur of the browser's brush: some pixels at the edge of a stroke are half painted."""

BAND_PX = 10
"""Width of the Background that is painted around the objects."""


def draw(kind: Kind, seed: int, side: int) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """A square picture and its objects."""
    rng = np.random.default_rng(seed)
    if side <= BLOCK_PX:
        return make_image(kind, rng, (side, side))
    n = -(-side // BLOCK_PX)
    blocks = [make_image(kind, rng, (BLOCK_PX, BLOCK_PX)) for _ in range(min(n, 3))]
    order = rng.integers(0, len(blocks), (n, n))
    image = np.concatenate([np.concatenate([blocks[i][0] for i in row], 1) for row in order], 0)
    counts = np.arange(n * n, dtype=np.int32).reshape(n, n) * (1 + max(int(b[1].max()) for b in blocks))
    shifted = [
        np.concatenate(
            [
                np.where(blocks[i][1] > 0, blocks[i][1] + shift, 0)
                for i, shift in zip(row, shifts, strict=True)
            ],
            1,
        )
        for row, shifts in zip(order, counts, strict=True)
    ]
    return image[:side, :side], np.concatenate(shifted, 0)[:side, :side].astype(np.int32)


def paint_objects(instances: NDArray[np.int32], n_objects: int | None) -> list[dict[str, Any]]:
    """Regions of the first objects and of a band of Background around them."""
    numbers = np.unique(instances)
    chosen = numbers[numbers > 0][:n_objects]
    objects = np.isin(instances, chosen)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * BAND_PX + 1, 2 * BAND_PX + 1))
    near = cv2.dilate(objects.astype(np.uint8), disc) > 0
    painted = [("Background", near & (instances == 0))]
    painted += [("Nucleus", instances == number) for number in chosen]
    return [to_region(f"r{i}", mask, label) for i, (label, mask) in enumerate(painted)]


def to_region(region_id: str, mask: NDArray[np.bool_], label: str) -> dict[str, Any]:
    """A brush region as the browser writes it."""
    alpha = cv2.GaussianBlur(mask.astype(np.uint8) * 255, (0, 0), SOFT_EDGE_PX)
    return brush_result(region_id, np.asarray(alpha, np.uint8), label)


def brush_result(
    region_id: str, alpha: NDArray[np.uint8], label: str, origin: str = "manual"
) -> dict[str, Any]:
    """A brush stream of `(H, W)` alpha, in a result of Label Studio's."""
    return {
        **_frame(region_id, (alpha.shape[0], alpha.shape[1])),
        "type": "brushlabels",
        "from_name": "brush",
        "origin": origin,
        "value": {"format": "rle", "rle": encode(alpha), "brushlabels": [label]},
    }


def to_results(
    regions: Sequence[BrushRegion], reviewed: Sequence[Box], shape: tuple[int, int], name: str
) -> list[dict[str, Any]]:
    """Strokes and answers as the browser writes them: brush streams, and rectangles in percent."""
    found = [_brush(region, shape) for region in regions if region.alpha.size]
    return found + [_reviewed(f"{name}x{n}", box, shape) for n, box in enumerate(reviewed)]


def _brush(region: BrushRegion, shape: tuple[int, int]) -> dict[str, Any]:
    alpha = np.zeros(shape, np.uint8)
    alpha[region.box.slices] = region.alpha
    return brush_result(region.region_id, alpha, SCHEMA.names[region.class_index], region.origin)


def _reviewed(region_id: str, box: Box, shape: tuple[int, int]) -> dict[str, Any]:
    height, width = shape
    value = {
        "x": 100 * box.left / width,
        "y": 100 * box.top / height,
        "width": 100 * box.width / width,
        "height": 100 * box.height / height,
        "rotation": 0,
        "rectanglelabels": ["Reviewed"],
    }
    return {
        **_frame(region_id, shape),
        "type": "rectanglelabels",
        "from_name": "uncertain",
        "origin": "prediction",
        "value": value,
    }


def _frame(region_id: str, shape: tuple[int, int]) -> Mapping[str, Any]:
    return {
        "id": region_id,
        "to_name": "image",
        "original_width": shape[1],
        "original_height": shape[0],
        "image_rotation": 0,
    }
