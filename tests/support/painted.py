"""Small generated images, and annotations of them as Label Studio would send them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.painted_results import brush_result
from core.synthetic import make_image

LABEL_CONFIG = """<View>
  <Image name="image" value="$image"/>
  <BrushLabels name="brush" toName="image">
    <Label value="Background"/><Label value="Nucleus"/>
  </BrushLabels>
  <RectangleLabels name="uncertain" toName="image">
    <Label value="Uncertain"/><Label value="Reviewed"/>
  </RectangleLabels>
</View>"""

SIDE_PX = 64


def make_picture(seed: int, side_px: int = SIDE_PX) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """An image `(H, W, 1)` and its objects `(H, W)`, the same for the same seed."""
    return make_image("fluorescence", np.random.default_rng(seed), (side_px, side_px))


def brush(region_id: str, mask: NDArray[np.bool_], label: str, origin: str = "manual") -> dict[str, Any]:
    """One brush region as it comes back in an annotation."""
    return brush_result(region_id, np.where(mask, np.uint8(255), np.uint8(0)), label, origin)


def paint_all(instances: NDArray[np.int32]) -> list[dict[str, Any]]:
    """Every object as a region of its own, and the rest as Background."""
    objects = [brush(f"n{i}", instances == i, "Nucleus") for i in range(1, int(instances.max()) + 1)]
    return [brush("ground", instances == 0, "Background"), *objects]


def annotation_row(
    annotation_id: int,
    task_id: int,
    result: list[dict[str, Any]],
    updated_at: str,
    user_id: int = 1,
    **more: Any,
) -> dict[str, Any]:
    """An annotation as the API and the webhooks show it."""
    return {
        "id": annotation_id,
        "task": task_id,
        "project": 1,
        "completed_by": user_id,
        "updated_at": updated_at,
        "created_at": updated_at,
        "was_cancelled": False,
        "result": result,
        **more,
    }
