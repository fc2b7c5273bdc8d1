"""Masks to outlines along the edges of their pixels, which say exactly the same pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from core.schema import LabelSchema
from export.result import number_objects

Ring = NDArray[np.int64]
"""`(N, 2)` corners `x, y` in pixels, not closed; pixel 0 reaches from 0 to 1."""

Part = list[Ring]
"""The outer ring of pixels that share edges, then its holes, wound the other way."""

STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))
"""East, south, west, north: a turn to the left is one back."""

LEFT_STRAIGHT_RIGHT = (3, 0, 1)


@dataclass(frozen=True)
class Outlined:
    """One object: pixels that meet at corners alone are parts of their own."""

    class_index: int
    parts: list[Part]


def outline_all(label_map: NDArray[np.uint8], schema: LabelSchema) -> Iterator[Outlined]:
    """Outline the objects of `(H, W)` class indices, in the order of `number_objects`."""
    objects, class_of = number_objects(label_map, schema)
    for number, rows_and_columns in enumerate(ndimage.find_objects(objects), 1):
        corner = np.array([rows_and_columns[1].start, rows_and_columns[0].start])
        parts = outline_parts(objects[rows_and_columns] == number)
        yield Outlined(class_of[number - 1], [[ring + corner for ring in part] for part in parts])


def outline_parts(mask: NDArray[np.bool_]) -> list[Part]:
    """Outline `(H, W)` bool; no ring touches itself, and outer rings turn from x to y.

    Examples
    --------
    >>> mask = np.ones((3, 3), bool)
    >>> mask[1, 1] = False
    >>> ((outer, hole),) = outline_parts(mask)
    >>> outer.tolist(), hole.tolist()
    ([[3, 0], [3, 3], [0, 3], [0, 0]], [[2, 2], [2, 1], [1, 1], [1, 2]])
    """
    n_labels, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    return [_trace(labels == label) for label in range(1, n_labels)]


def _trace(mask: NDArray[np.bool_]) -> Part:
    """The rings of pixels that share edges. The first one met, row by row, is the outer one."""
    edges, width = _find_edges(mask)
    moves = [x + y * width for x, y in STEPS]
    rings = []
    for start in np.flatnonzero(edges[0]).tolist():
        if edges[0][start]:
            corners = np.array(_walk(edges, moves, start))
            rings.append(np.stack([corners % width, corners // width], axis=1))
    return rings


def _find_edges(mask: NDArray[np.bool_]) -> tuple[list[bytearray], int]:
    """For each direction, whether an edge leaves a corner that way with the mask on its right; row length."""
    framed = np.pad(mask, 1)
    up_left, up_right = framed[:-1, :-1], framed[:-1, 1:]
    low_left, low_right = framed[1:, :-1], framed[1:, 1:]
    leaving = (low_right & ~up_right, low_left & ~low_right, up_left & ~low_left, up_right & ~up_left)
    return [bytearray(edge.tobytes()) for edge in leaving], mask.shape[1] + 1


def _walk(edges: Sequence[bytearray], moves: Sequence[int], start: int) -> list[int]:
    """Follow the edges from `start`, eastwards, until they are used up; where two go on, the left one.

    Going left keeps two sides of the background apart where they meet at a corner.
    """
    corners: list[int] = []
    at, direction = start, 0
    while edges[direction][at]:
        edges[direction][at] = at == start and direction == 0  # kept until the walk comes back to it
        at += moves[direction]
        onward = next(way for turn in LEFT_STRAIGHT_RIGHT if edges[way := (direction + turn) % 4][at])
        if onward != direction:
            corners.append(at)
        direction = onward
        if at == start and direction == 0:
            edges[0][start] = 0
    return corners
