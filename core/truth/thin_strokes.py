"""Long thin strokes in an object class: scribbles, or a net that is painted as it should be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from core.painting import BrushRegion, Finding, Mask, Painting, fill_holes
from core.schema import LabelSchema

SCRIBBLE_RATIO = 12
"""Length over width from which a stroke is a scribble and not an object painted whole."""

MIN_SCRIBBLE_PX = 100
"""Smaller components are too short to be called a scribble."""

MIN_MESHES = 2
"""A net encloses at least so many places; a ring has one, and a stroke none."""

ROWS_AT_ONCE = 512
"""Large maps are processed in parts, so that memory stays near that of the maps themselves."""


def lint_thin_strokes(painting: Painting, schema: LabelSchema) -> Iterator[Finding]:
    """Say where strokes are no objects; of a class that looks like a net, once that it does."""
    for index in schema.object_indices:
        label = schema.classes[index]
        strokes = [r for r in painting.regions if r.class_index == index and r.origin == "manual"]
        thin = [region for region in strokes if _has_scribble(region, label.autofill)]
        if thin and not label.autofill and _is_net(strokes, painting.shape):
            yield Finding("net-like", describe_net(label.name))
        else:
            message = describe_thin(label.name)
            yield from (Finding("scribble", message) for _ in thin)


def describe_net(name: str) -> str:
    """What is said of a class that looks like a net."""
    return f"{name} looks like a net: its pixels count, not its objects."


def describe_thin(name: str) -> str:
    """What is said of a long thin stroke; a lone crack looks like a scribble, and only a person can tell."""
    return (
        f"A stroke of {name} is long and thin. If {name} is so, as a crack or a fibre is, it is right; "
        "any other object should be painted whole."
    )


def _is_net(strokes: Sequence[BrushRegion], shape: tuple[int, int]) -> bool:
    """Whether the strokes of a class together enclose several places."""
    painted: Mask = np.zeros(shape, bool)
    for stroke in strokes:
        painted[stroke.box.slices] |= stroke.painted
    meshes = (fill_holes(painted) & ~painted).astype(np.uint8)
    n_meshes = cv2.connectedComponents(meshes, connectivity=4)[0] - 1
    return bool(n_meshes >= MIN_MESHES)


def _has_scribble(region: BrushRegion, autofill: bool) -> bool:
    painted: Mask = fill_holes(region.painted) if autofill else region.painted
    if np.count_nonzero(painted) < MIN_SCRIBBLE_PX:
        return False
    padded = np.pad(painted, 1).astype(np.uint8)
    n_labels, labels = cv2.connectedComponents(padded, connectivity=8)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_3)
    area, total = np.zeros((2, n_labels))
    for top in range(0, len(labels), ROWS_AT_ONCE):  # what is counted takes 16 bytes per pixel
        rows = slice(top, top + ROWS_AT_ONCE)
        area += np.bincount(labels[rows].ravel(), minlength=n_labels)
        total += np.bincount(labels[rows].ravel(), distance[rows].ravel(), minlength=n_labels)
    area, total = area[1:], total[1:]
    # Across a stroke of width w the mean distance to its edge is w / 4, whatever its length.
    width = 4 * total / area
    return bool(np.any((area >= MIN_SCRIBBLE_PX) & (area > SCRIBBLE_RATIO * width**2)))
