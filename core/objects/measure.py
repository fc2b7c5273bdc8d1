"""Objects as connected components: number them, measure them, clean them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from core.objects.components import ROWS_AT_ONCE, find_components
from core.objects.split_blobs import separate_touching
from core.painting import Box, Mask
from core.schema import LabelSchema

__all__ = [
    "ObjectLimits",
    "ObjectStats",
    "clean_mask",
    "count_labels",
    "count_objects",
    "label_objects",
    "learn_limits",
    "object_areas",
    "object_stats",
    "separate_touching",
]

MIN_OBJECTS_TO_LEARN = 3
"""Fewer objects than this say nothing about a class: the defaults hold."""

CRUMB_SHARE = 0.05
"""Components below this share of the typical area are left over from brush work, not objects."""

SMALL_QUANTILE, SPECK_SHARE = 0.1, 0.3
"""A speck is smaller than this share of the small objects that a person painted."""

HOLE_SHARE = 0.1
"""A hole up to this share of the typical object is an error of the prediction."""

MIN_SPECK_PX = 4
"""No limit is below this: a person cannot see such a region, nor click on it."""


@dataclass(frozen=True)
class ObjectLimits:
    """How large the objects of one class are; the defaults suit cells at common magnifications.

    `min_object_px` and `max_hole_px` are areas: smaller components are specks, holes up to that are filled.
    """

    min_object_px: int = 20
    max_hole_px: int = 20
    typical_diameter_px: float = 24.0

    def to_record(self) -> dict[str, Any]:
        """Plain JSON form, for checkpoints."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> ObjectLimits:
        """Read what `to_record` wrote."""
        return cls(
            int(record["min_object_px"]), int(record["max_hole_px"]), float(record["typical_diameter_px"])
        )


@dataclass(frozen=True)
class ObjectStats:
    """One object of a label map."""

    class_index: int
    area_px: int
    box: Box


def label_objects(label_map: NDArray[np.uint8], schema: LabelSchema) -> NDArray[np.int32]:
    """Number the objects of a label map: 8-connected components of each object class.

    Parameters
    ----------
    label_map : (H, W) uint8
        Class index, or `IGNORE_INDEX`.

    Returns
    -------
    (H, W) int32
        0 where there is no object, 1..n one object each; numbers follow the classes.

    Examples
    --------
    >>> import numpy as np
    >>> label_map = np.array([[1, 0, 1, 2, 255]], np.uint8)
    >>> label_objects(label_map, LabelSchema.of("Background", "A", "B")).tolist()
    [[1, 0, 2, 3, 0]]
    """
    instances = np.zeros(label_map.shape, np.int32)
    n_before = 0
    for class_index in _present(label_map, schema):
        mask = (label_map == class_index).view(np.uint8)
        n_labels, labels = cv2.connectedComponents(mask, connectivity=8)
        np.add(labels, n_before, out=instances, where=mask.view(np.bool_))
        n_before += n_labels - 1
    return instances


def count_labels(label_map: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Count how often each value 0..255 stands in a label map.

    Examples
    --------
    >>> import numpy as np
    >>> count_labels(np.array([[1, 1, 0, 255]], np.uint8))[[0, 1, 2, 255]].tolist()
    [1, 2, 0, 1]
    """
    counts = np.zeros(256, np.int64)
    for top in range(0, label_map.shape[0], ROWS_AT_ONCE):
        counts += np.bincount(label_map[top : top + ROWS_AT_ONCE].ravel(), minlength=256)
    return counts


def count_objects(label_map: NDArray[np.uint8], schema: LabelSchema) -> tuple[int, ...]:
    """Count the objects of each class, 8-connected components, in memory for some rows alone.

    Examples
    --------
    >>> import numpy as np
    >>> count_objects(np.array([[1, 0, 1, 255]], np.uint8), LabelSchema.of("Background", "A"))
    (0, 2)
    """
    counts = [0] * len(schema)
    for class_index in _present(label_map, schema):
        counts[class_index] = len(find_components(label_map, class_index))
    return tuple(counts)


def object_stats(label_map: NDArray[np.uint8], schema: LabelSchema) -> tuple[ObjectStats, ...]:
    """Measure the objects of a label map, in the order in which `label_objects` numbers them.

    Examples
    --------
    >>> import numpy as np
    >>> stats, = object_stats(np.array([[0, 1, 1]], np.uint8), LabelSchema.of("Background", "A"))
    >>> stats.area_px, stats.box
    (2, Box(top=0, left=1, height=1, width=2))
    """
    found: list[ObjectStats] = []
    for class_index in _present(label_map, schema):
        mask = (label_map == class_index).astype(np.uint8)
        _, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        for left, top, width, height, area in stats[1:]:
            box = Box(int(top), int(left), int(height), int(width))
            found.append(ObjectStats(class_index, int(area), box))
    return tuple(found)


def object_areas(label_map: NDArray[np.uint8], schema: LabelSchema) -> tuple[tuple[int, ...], ...]:
    """Return the areas in pixels of the objects of each class; empty for the background."""
    areas: list[list[int]] = [[] for _ in schema.classes]
    for stats in object_stats(label_map, schema):
        areas[stats.class_index].append(stats.area_px)
    return tuple(tuple(of_class) for of_class in areas)


def learn_limits(areas: Sequence[Sequence[int]]) -> tuple[ObjectLimits, ...]:
    """Learn how large objects are from the ones that people painted.

    Parameters
    ----------
    areas : per class, the areas in pixels of annotated objects
        As `object_areas` gives them, put together over several images.

    Returns
    -------
    tuple of ObjectLimits
        One per class; the defaults for a class with fewer than `MIN_OBJECTS_TO_LEARN` objects.

    Examples
    --------
    >>> limits, unknown = learn_limits([[300, 320, 310, 2], [500]])
    >>> round(limits.typical_diameter_px), limits.min_object_px, unknown == ObjectLimits()
    (20, 91, True)
    """
    return tuple(_limits_of(np.asarray(of_class, float)) for of_class in areas)


def clean_mask(mask: Mask, limits: ObjectLimits) -> Mask:
    """Remove specks and fill holes below the limits of a class.

    Objects are 8-connected, holes 4-connected. A hole that touches the border of the image is none.

    Examples
    --------
    >>> import numpy as np
    >>> mask = np.array([[1, 1, 1, 0, 0], [1, 0, 1, 0, 1], [1, 1, 1, 0, 0]], bool)
    >>> clean_mask(mask, ObjectLimits(min_object_px=2, max_hole_px=1)).astype(int).tolist()
    [[1, 1, 1, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 0, 0]]
    """
    cleaned = mask.copy()
    if limits.min_object_px > 1:
        objects = find_components(mask)
        for rows, is_speck in objects.where(objects.areas < limits.min_object_px):
            cleaned[rows][is_speck] = False
    if limits.max_hole_px < 1:
        return cleaned
    gaps = find_components(~cleaned, connectivity=4)
    height, width = mask.shape
    inside = (gaps.boxes[:, :2] > 0).all(axis=1) & (gaps.boxes[:, 2:] < (height, width)).all(axis=1)
    for rows, is_hole in gaps.where(inside & (gaps.areas <= limits.max_hole_px)):
        cleaned[rows][is_hole] = True
    return cleaned


def _present(label_map: NDArray[np.uint8], schema: LabelSchema) -> list[int]:
    counts = count_labels(label_map)
    return [index for index in schema.object_indices if counts[index]]


def _limits_of(areas: NDArray[np.float64]) -> ObjectLimits:
    if areas.size < MIN_OBJECTS_TO_LEARN:
        return ObjectLimits()
    # Half of all painted pixels lie in objects at least this large: crumbs cannot move it.
    ordered = np.sort(areas)[::-1]
    half_point = ordered[np.searchsorted(np.cumsum(ordered), ordered.sum() / 2)]
    objects = areas[areas >= CRUMB_SHARE * half_point]
    typical_area = float(np.median(objects))
    small = float(np.quantile(objects, SMALL_QUANTILE))
    return ObjectLimits(
        min_object_px=max(MIN_SPECK_PX, round(SPECK_SHARE * small)),
        max_hole_px=max(MIN_SPECK_PX, round(HOLE_SHARE * typical_area)),
        typical_diameter_px=float(np.sqrt(4 * typical_area / np.pi)),
    )
