"""Choose what is never trained on: by position, in the same way every time.

A model that is compared on pixels it was trained on looks better than it is. So part of the painted
objects, with the background around them, is put aside; where something lies decides, not when it was
painted, and painting more elsewhere moves nothing to the other side.

Until a project has enough held-out truth (`has_enough_held_out`), it learns from everything and its
models are drafts. The first model that is no draft starts from fresh weights: no published model that is
compared on the hold-out has ever seen it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from core.distances import distance_inside
from core.objects.measure import count_labels, count_objects
from core.painting import Box, Mask, filled_box
from core.rounds import ExampleSummary
from core.schema import IGNORE_INDEX, LabelSchema
from core.tiles import cut_tiles

HELD_OUT_SHARE = 0.2
"""Part of the objects, or of the cells, that is held out."""

GUARD_PX = 8
"""No trained pixel is this close to a held-out one: neighbours show almost the same picture."""

CELL_PX = 64
"""Pixels that belong to no object are held out in square cells of this size."""

ANCHOR_PX = 32
"""The middle of an object is rounded to this grid, so that a small edit rarely moves it."""

RING_PX = 24
"""Background this close to an object goes where the nearest object goes."""

LARGE_OBJECT_PX = 256
"""Components with a longer side are areas, not objects: they are split by cells."""

TILE_PX = 2048
"""Maps are worked on in tiles of this side, each with a margin beyond which nothing can change what it
says: a large map takes little more memory than itself, and is split as if it were processed whole."""

_TRAINED, _HELD_OUT = np.uint8(1), np.uint8(2)
"""Sides of an object; 0 is no object, or one that is an area."""

ENOUGH_HELD_OUT_OBJECTS = 3
ENOUGH_HELD_OUT_CLASSES = 2
ENOUGH_HELD_OUT_PX = 50
"""A class counts from this many held-out pixels on; fewer cannot tell two models apart."""


def split(
    label_map: NDArray[np.uint8], schema: LabelSchema, task_key: str
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Split a label map into a part to train on and a part to compare models on.

    Whole objects are held out, by a keyed hash of `task_key` and the place of the object (BLAKE2, RFC
    7693). Background near an object goes with the nearest one; everything else, components larger than
    `LARGE_OBJECT_PX`, and projects without a Background class are split by cells of `CELL_PX`.

    Parameters
    ----------
    label_map : (H, W) uint8
        With `IGNORE_INDEX` where nothing is known.
    task_key : str
        Names the image; the same pixels of two images fall differently.

    Returns
    -------
    train_map, held_out_map : (H, W) uint8
        Each pixel of `label_map` is in at most one of them; `train_map` says nothing within `GUARD_PX` of
        what `held_out_map` says.

    Examples
    --------
    >>> import numpy as np
    >>> label_map = np.zeros((256, 256), np.uint8)
    >>> train_map, held_out_map = split(label_map, LabelSchema.of("A", "B"), "task-1")
    >>> bool(((train_map == 255) | (held_out_map == 255)).all()), bool((held_out_map == 0).any())
    (True, True)
    """
    train_map = np.full(label_map.shape, IGNORE_INDEX, np.uint8)
    held_out_map = train_map.copy()
    box = _annotated_box(label_map)
    # Only the annotated rectangle is worked on: a few strokes on a large image stay cheap.
    truth, held_out, train = (m[box.slices] for m in (label_map, held_out_map, train_map))
    key = _key(task_key)
    sides = np.zeros(truth.shape, np.uint8)
    if schema.background_index is not None:
        _choose_sides(sides, truth, schema, box, key)
    cells = _held_out_cells(box, key)
    for tile in cut_tiles((box.height, box.width), RING_PX + 1, 1, TILE_PX):
        is_held_out = _stretch(cells, tile.core)
        if schema.background_index is not None:
            _move_objects(is_held_out, sides[tile.read], truth[tile.core], tile.core_in_read, schema)
        is_held_out &= truth[tile.core] != IGNORE_INDEX
        np.copyto(held_out[tile.core], truth[tile.core], where=is_held_out)
    for tile in cut_tiles((box.height, box.width), GUARD_PX + 1, 1, TILE_PX):
        distance = _distance(held_out[tile.read] != IGNORE_INDEX)[tile.core_in_read]
        np.copyto(train[tile.core], truth[tile.core], where=distance > GUARD_PX)
    return train_map, held_out_map


def summarise(
    key: str,
    train_map: NDArray[np.uint8],
    held_out_map: NDArray[np.uint8],
    schema: LabelSchema,
    is_new: bool,
) -> ExampleSummary:
    """Count what the two maps of one image hold.

    Objects are components where the project has a Background class, else occupied cells of `CELL_PX`.
    For a draft, `train_map` is the whole label map: its counts then include the held-out ones.

    Examples
    --------
    >>> import numpy as np
    >>> train_map = np.array([[1, 0, 255]], np.uint8)
    >>> nothing = np.full((1, 3), 255, np.uint8)
    >>> summarise("t", train_map, nothing, LabelSchema.of("Background", "A"), True).class_pixels
    (1, 1)
    """
    height, width = train_map.shape
    return ExampleSummary(
        key=key,
        shape=(height, width),
        class_pixels=count_pixels(train_map, schema),
        held_out_pixels=count_pixels(held_out_map, schema),
        class_objects=_count_units(train_map, schema),
        held_out_objects=_count_units(held_out_map, schema),
        is_new=is_new,
    )


def has_enough_held_out(summaries: Sequence[ExampleSummary], schema: LabelSchema) -> bool:
    """Whether models can be compared: some held-out objects in all, and pixels of two classes.

    Something has to be left to learn from, too: a few objects in one small image may all be held out.

    Examples
    --------
    >>> one = ExampleSummary("t", (9, 9), (100, 100), (90, 60), (0, 9), (0, 3), True)
    >>> has_enough_held_out([one], LabelSchema.of("Background", "A"))
    True
    """
    n_objects = sum(sum(summary.held_out_objects) for summary in summaries)
    pixels = [sum(summary.held_out_pixels[c] for summary in summaries) for c in range(len(schema))]
    n_classes = sum(count >= ENOUGH_HELD_OUT_PX for count in pixels)
    n_left = sum(any(summary.class_pixels[c] for summary in summaries) for c in range(len(schema)))
    return n_objects >= ENOUGH_HELD_OUT_OBJECTS and min(n_classes, n_left) >= ENOUGH_HELD_OUT_CLASSES


def count_pixels(label_map: NDArray[np.uint8], schema: LabelSchema) -> tuple[int, ...]:
    """Count the pixels of each class of the schema."""
    return tuple(int(count) for count in count_labels(label_map)[: len(schema)])


def _count_units(label_map: NDArray[np.uint8], schema: LabelSchema) -> tuple[int, ...]:
    if schema.background_index is None:
        return tuple(_count_cells(label_map == index) for index in range(len(schema)))
    return count_objects(label_map, schema)


def _count_cells(mask: Mask) -> int:
    rows, columns = (np.arange(0, length, CELL_PX) for length in mask.shape)
    occupied = np.logical_or.reduceat(np.logical_or.reduceat(mask, rows, axis=0), columns, axis=1)
    return int(np.count_nonzero(occupied))


def _key(task_key: str) -> bytes:
    # A key of BLAKE2 has at most 64 bytes; a name may be longer.
    return hashlib.blake2b(task_key.encode(), digest_size=32).digest()


def _is_held_out(key: bytes, kind: str, row: int, column: int) -> bool:
    digest = hashlib.blake2b(f"{kind}:{row}:{column}".encode(), key=key, digest_size=8).digest()
    return int.from_bytes(digest, "big") < HELD_OUT_SHARE * 2**64


def _annotated_box(label_map: NDArray[np.uint8]) -> Box:
    """Return the rectangle of the annotated pixels, its first corner on the grid of the cells."""
    box = filled_box(label_map != IGNORE_INDEX)
    top, left = box.top // CELL_PX * CELL_PX, box.left // CELL_PX * CELL_PX
    return Box(top, left, box.top + box.height - top, box.left + box.width - left)


def _held_out_cells(box: Box, key: bytes) -> Mask:
    """`(n_rows, n_columns)` bool, one entry per cell of the box."""
    row, column = box.top // CELL_PX, box.left // CELL_PX
    n_rows, n_columns = -(-box.height // CELL_PX), -(-box.width // CELL_PX)
    cells = [
        [_is_held_out(key, "cell", row + i, column + j) for j in range(n_columns)] for i in range(n_rows)
    ]
    return np.array(cells, bool).reshape(n_rows, n_columns)


def _stretch(cells: Mask, area: tuple[slice, slice]) -> Mask:
    """The cells as pixels of `area`."""
    rows, columns = (np.arange(part.start, part.stop) // CELL_PX for part in area)
    return np.asarray(cells[np.ix_(rows, columns)])


def _choose_sides(
    sides: NDArray[np.uint8], label_map: NDArray[np.uint8], schema: LabelSchema, box: Box, key: bytes
) -> None:
    """Give each object one side."""
    # What reaches from a tile out of its margin is longer than an object may be; all others are seen whole.
    for tile in cut_tiles((box.height, box.width), LARGE_OBJECT_PX + 1, 1, TILE_PX):
        seen = label_map[tile.read]
        top, left = box.top + tile.read[0].start, box.left + tile.read[1].start
        for class_index in schema.object_indices:
            mask = (seen == class_index).view(np.uint8)
            n_labels, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
            side_of = np.zeros(n_labels, np.uint8)
            for label, (x, y, width, height, _) in enumerate(stats[1:].tolist(), start=1):
                if max(height, width) <= LARGE_OBJECT_PX:
                    anchor = (top + y + height // 2) // ANCHOR_PX, (left + x + width // 2) // ANCHOR_PX
                    side_of[label] = _HELD_OUT if _is_held_out(key, "object", *anchor) else _TRAINED
            sides[tile.core] |= side_of[labels[tile.core_in_read]]


def _move_objects(
    is_held_out: Mask,
    sides: NDArray[np.uint8],
    label_map: NDArray[np.uint8],
    core: tuple[slice, slice],
    schema: LabelSchema,
) -> None:
    """Move objects to their side, and the background around them to the side of the nearest object.

    `sides` reaches `RING_PX` beyond `core`, which the other two cover.
    """
    if not sides.any():
        return
    to_train, to_held_out = _distance(sides == _TRAINED)[core], _distance(sides == _HELD_OUT)[core]
    around = (sides[core] == 0) & (label_map == schema.background_index)
    is_held_out[around & (to_train <= RING_PX) & (to_train < to_held_out)] = False
    is_held_out[around & (to_held_out <= RING_PX) & (to_held_out <= to_train)] = True
    np.copyto(is_held_out, sides[core] == _HELD_OUT, where=sides[core] > 0)


def _distance(mask: Mask) -> NDArray[np.float32]:
    """Distance of each pixel to the nearest pixel of `mask`; infinite where there is none."""
    if not mask.any():
        return np.full(mask.shape, np.inf, np.float32)
    return distance_inside(~mask)
