"""A simulated annotator: sees an image's dense truth through some noise, and paints or corrects with a brush.

What it does at a place, what that costs and what it leaves out is decided in `docs/decisions/0008`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from core.distances import distance_inside
from core.painting import PAINTED_ALPHA, Box, BrushRegion, Mask, Origin, filled_box
from core.schema import LabelSchema
from simulation.brush import Effort, Stroke, cover, draw, effort_of
from simulation.perception import DenseTruth

BAND_PX = 10
"""Width of the Background that is painted around an object."""

SHARE_INSIDE = 0.25
"""An object belongs to a place when this much of it is inside, or when it fills the middle of the box."""

EDGE_TOLERANCE_PX = 2.0
"""Errors this close to an outline are let be: nobody sees them (RootPainter's simulation)."""

REPAIR_REACH_PX = 3
"""Who mends an error also takes its margin along."""


@dataclass(frozen=True)
class ShownMask:
    """One region of a pre-annotation as the annotator sees it; `mask` is `(H, W)` bool."""

    region_id: str
    class_index: int
    mask: Mask


@dataclass(frozen=True)
class Work:
    """What somebody did at one place.

    `objects` are the numbers of the objects that were painted whole or lie in a reviewed box;
    `hand` is where the pointer ended, as row and column.
    """

    regions: tuple[BrushRegion, ...]
    reviewed: tuple[Box, ...]
    objects: tuple[int, ...]
    effort: Effort
    hand: tuple[float, float]
    strokes: tuple[Stroke, ...] = field(default=(), repr=False)

    @property
    def n_units(self) -> int:
        """What it counts in a budget of objects: a place without an object counts as one."""
        return max(1, len(self.objects))


def find_objects(seen: DenseTruth, box: Box, finished: Collection[int] = ()) -> list[int]:
    """List the objects of a place that are not finished, the ones nearest to its middle first."""
    inside = seen.instances[box.slices]
    middle = (box.top + box.height / 2, box.left + box.width / 2)
    distances: list[tuple[float, int]] = []
    for number in (int(i) for i in np.unique(inside) if i > 0 and int(i) not in finished):
        rows, columns = np.nonzero(seen.instances == number)
        is_middle = seen.instances[int(middle[0]), int(middle[1])] == number
        if is_middle or np.count_nonzero(inside == number) >= SHARE_INSIDE * rows.size:
            distances.append((float(np.hypot(rows.mean() - middle[0], columns.mean() - middle[1])), number))
    return [number for _, number in sorted(distances)]


def place_around(seen: DenseTruth, number: int, side_px: int) -> Box:
    """Return a square around the middle of an object, moved to lie inside the image."""
    rows, columns = np.nonzero(seen.instances == number)
    height, width = (min(side_px, size) for size in seen.instances.shape)
    if rows.size == 0:  # covered by its neighbours when outlines moved
        return Box(0, 0, height, width)
    top = int(np.clip(rows.mean() - height / 2, 0, seen.instances.shape[0] - height))
    left = int(np.clip(columns.mean() - width / 2, 0, seen.instances.shape[1] - width))
    return Box(top, left, height, width)


def paint_place(
    seen: DenseTruth,
    schema: LabelSchema,
    box: Box,
    finished: Collection[int] = (),
    *,
    n_objects: int | None = None,
    name: str = "p",
    hand: tuple[float, float] | None = None,
) -> Work:
    """Paint the objects of a place whole, then Background in the box and around them.

    Parameters
    ----------
    seen : DenseTruth
        As `perceive` gives it.
    box : Box
        Inside the image.
    finished : numbers of objects that were painted before
        Background may be painted over them; it never goes over an object that is not painted.
    n_objects : int, optional
        Paint no more objects than this.
    name : str
        What the ids of the regions begin with.
    hand : (float, float), optional
        Row and column where the pointer is; by default in the middle of the image.

    Examples
    --------
    >>> instances = np.zeros((64, 64), np.int32)
    >>> instances[20:40, 20:40] = 1
    >>> truth, schema = DenseTruth.of_one_class(instances, 1), LabelSchema.of("Background", "Nucleus")
    >>> work = paint_place(truth, schema, Box(8, 8, 48, 48))
    >>> [region.class_index for region in work.regions], work.objects, work.effort.places
    ([1, 0], (1,), 1)
    """
    shape = _shape(seen)
    chosen = find_objects(seen, box, finished)[:n_objects]
    painted = [(seen.class_of[number], cover(seen.instances == number)) for number in chosen]
    if schema.background_index is not None:
        done = [*finished, *chosen]
        painted.append((schema.background_index, _paint_ground(seen, box, chosen, done)))
    painted = [(class_index, strokes) for class_index, strokes in painted if strokes]
    regions = [
        _to_region(f"{name}-{index}", class_index, draw(strokes, shape))
        for index, (class_index, strokes) in enumerate(painted)
    ]
    strokes = tuple(stroke for _, of_one in painted for stroke in of_one)
    effort, hand = effort_of(strokes, hand or (shape[0] / 2, shape[1] / 2))
    return Work(tuple(regions), (), tuple(chosen), effort + Effort(places=1), hand, strokes)


def review_place(
    seen: DenseTruth,
    schema: LabelSchema,
    box: Box,
    shown: Sequence[ShownMask],
    *,
    name: str = "q",
    hand: tuple[float, float] | None = None,
) -> Work:
    """Answer a question: correct the pre-annotation inside a box, then call the box reviewed.

    What was left out is painted, what is wrong is erased; errors within `EDGE_TOLERANCE_PX` of an outline are
    let be. A class that is not among `shown` gets a region of its own. All regions of `shown` are in the
    answer, since a reviewed box is true as shown.

    Examples
    --------
    >>> instances = np.zeros((64, 64), np.int32)
    >>> instances[20:40, 20:40] = 1
    >>> truth, schema = DenseTruth.of_one_class(instances, 1), LabelSchema.of("Background", "Nucleus")
    >>> work = review_place(truth, schema, Box(8, 8, 48, 48), [ShownMask("a", 1, instances > 0)])
    >>> [region.origin for region in work.regions], work.effort.strokes, len(work.reviewed)
    (['prediction'], 0, 1)
    """
    shape = _shape(seen)
    inside = np.zeros(shape, bool)
    inside[box.slices] = True
    regions: list[BrushRegion] = []
    strokes: list[Stroke] = []
    for class_index in schema.object_indices:
        true = seen.class_mask(class_index)
        far = _away_from_edges(true)
        of_class = [one for one in shown if one.class_index == class_index]
        masks = [np.where(one.mask, 255, 0).astype(np.uint8) for one in of_class]
        there: Mask = np.any([one.mask for one in of_class], axis=0) if of_class else np.zeros(shape, bool)
        false, missing = (_to_mend(w & inside, far) for w in (there & ~true, true & ~there))
        erasing, adding = cover(~true & _grow(false), false), cover(true & _grow(missing), missing)
        gone = draw(erasing, shape) >= PAINTED_ALPHA if erasing else np.zeros(shape, bool)
        fresh = draw(adding, shape)
        target = _largest(masks)
        for position, (one, alpha) in enumerate(zip(of_class, masks, strict=True)):
            changed = np.where(gone, 0, alpha)
            if position == target:
                changed = np.maximum(changed, fresh)
            origin: Origin = "prediction" if np.array_equal(changed, alpha) else "prediction-changed"
            regions.append(_to_region(one.region_id, class_index, changed.astype(np.uint8), origin))
        if not of_class and adding:
            regions.append(_to_region(f"{name}-{class_index}", class_index, fresh))
        strokes += [*erasing, *adding]
    effort, hand = effort_of(strokes, hand or (shape[0] / 2, shape[1] / 2))
    effort += Effort(places=1, questions=1)
    return Work(tuple(regions), (box,), tuple(find_objects(seen, box)), effort, hand, tuple(strokes))


def _shape(seen: DenseTruth) -> tuple[int, int]:
    height, width = seen.instances.shape
    return height, width


def _paint_ground(
    seen: DenseTruth, box: Box, around: Collection[int], finished: Collection[int]
) -> tuple[Stroke, ...]:
    """Strokes of Background over a box and around some objects, off everything that is not painted."""
    side = 2 * BAND_PX + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    near = cv2.dilate(np.isin(seen.instances, list(around)).astype(np.uint8), disc) > 0
    near[box.slices] = True
    is_free = (seen.instances == 0) | np.isin(seen.instances, list(finished))
    return cover(near & is_free, seen.instances == 0)


def _to_region(
    region_id: str, class_index: int, alpha: NDArray[np.uint8], origin: Origin = "manual"
) -> BrushRegion:
    """Cut alpha `(H, W)` to the rectangle that it fills."""
    box = filled_box(alpha)
    return BrushRegion(region_id, class_index, origin, box.top, box.left, alpha[box.slices].copy())


def _away_from_edges(true: Mask) -> Mask:
    """Pixels that are further than `EDGE_TOLERANCE_PX` from the outline of `true`."""
    if true.all() or not true.any():
        return np.ones(true.shape, bool)
    return np.asarray(np.maximum(distance_inside(true), distance_inside(~true)) > EDGE_TOLERANCE_PX)


def _to_mend(wrong: Mask, far: Mask) -> Mask:
    """What of some wrong pixels is mended: what lies away from outlines, with its margin."""
    return np.asarray(wrong & _grow(wrong & far))


def _grow(mask: Mask) -> Mask:
    side = 2 * REPAIR_REACH_PX + 1
    return np.asarray(cv2.dilate(mask.astype(np.uint8), np.ones((side, side), np.uint8)) > 0)


def _largest(masks: Sequence[NDArray[np.uint8]]) -> int:
    """Position of the region that new paint is added to."""
    return int(np.argmax([np.count_nonzero(mask) for mask in masks])) if masks else -1
