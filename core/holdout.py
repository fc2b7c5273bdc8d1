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

from core.objects import ObjectStats, label_objects, object_stats
from core.painting import Box
from core.rounds import ExampleSummary
from core.schema import IGNORE_INDEX, LabelSchema
from core.truth import Mask

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
    known = label_map[box.slices]
    is_held_out = _held_out_cells(box, _key(task_key))
    if schema.background_index is not None:
        _move_objects(is_held_out, known, schema, box, _key(task_key))
    is_held_out &= known != IGNORE_INDEX
    np.copyto(held_out_map[box.slices], known, where=is_held_out)
    np.copyto(train_map[box.slices], known, where=_distance(is_held_out) > GUARD_PX)
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

    Examples
    --------
    >>> one = ExampleSummary("t", (9, 9), (100, 100), (90, 60), (0, 9), (0, 3), True)
    >>> has_enough_held_out([one], LabelSchema.of("Background", "A"))
    True
    """
    n_objects = sum(sum(summary.held_out_objects) for summary in summaries)
    pixels = [sum(summary.held_out_pixels[c] for summary in summaries) for c in range(len(schema))]
    n_classes = sum(count >= ENOUGH_HELD_OUT_PX for count in pixels)
    return n_objects >= ENOUGH_HELD_OUT_OBJECTS and n_classes >= ENOUGH_HELD_OUT_CLASSES


def count_pixels(label_map: NDArray[np.uint8], schema: LabelSchema) -> tuple[int, ...]:
    """Count the pixels of each class of the schema."""
    counts = np.bincount(label_map.ravel(), minlength=IGNORE_INDEX + 1)
    return tuple(int(count) for count in counts[: len(schema)])


def _count_units(label_map: NDArray[np.uint8], schema: LabelSchema) -> tuple[int, ...]:
    if schema.background_index is None:
        return tuple(_count_cells(label_map == index) for index in range(len(schema)))
    counts = [0] * len(schema)
    for stats in object_stats(label_map, schema):
        counts[stats.class_index] += 1
    return tuple(counts)


def _count_cells(mask: Mask) -> int:
    rows, columns = np.nonzero(mask)
    return int(np.unique((rows // CELL_PX) * mask.shape[1] + columns // CELL_PX).size)


def _key(task_key: str) -> bytes:
    # A key of BLAKE2 has at most 64 bytes; a name may be longer.
    return hashlib.blake2b(task_key.encode(), digest_size=32).digest()


def _is_held_out(key: bytes, kind: str, row: int, column: int) -> bool:
    digest = hashlib.blake2b(f"{kind}:{row}:{column}".encode(), key=key, digest_size=8).digest()
    return int.from_bytes(digest, "big") < HELD_OUT_SHARE * 2**64


def _annotated_box(label_map: NDArray[np.uint8]) -> Box:
    """Return the rectangle of the annotated pixels, its first corner on the grid of the cells."""
    annotated = label_map != IGNORE_INDEX
    rows, columns = np.flatnonzero(annotated.any(axis=1)), np.flatnonzero(annotated.any(axis=0))
    if rows.size == 0:
        return Box(0, 0, 0, 0)
    top, left = int(rows[0]) // CELL_PX * CELL_PX, int(columns[0]) // CELL_PX * CELL_PX
    return Box(top, left, int(rows[-1]) + 1 - top, int(columns[-1]) + 1 - left)


def _held_out_cells(box: Box, key: bytes) -> Mask:
    row, column = box.top // CELL_PX, box.left // CELL_PX
    n_rows, n_columns = -(-box.height // CELL_PX), -(-box.width // CELL_PX)
    cells = [
        [_is_held_out(key, "cell", row + i, column + j) for j in range(n_columns)] for i in range(n_rows)
    ]
    grid = np.array(cells, bool).reshape(n_rows, n_columns)
    return grid.repeat(CELL_PX, 0).repeat(CELL_PX, 1)[: box.height, : box.width]


def _move_objects(
    is_held_out: Mask, label_map: NDArray[np.uint8], schema: LabelSchema, box: Box, key: bytes
) -> None:
    """Give each object one side, and the background around it the side of the nearest object."""
    objects = [
        s for s in object_stats(label_map, schema) if max(s.box.height, s.box.width) <= LARGE_OBJECT_PX
    ]
    if not objects:
        return
    instances = label_objects(label_map, schema)
    side_of = np.zeros(1 + int(instances.max()), np.uint8)
    for stats in objects:
        side_of[stats.instance] = 2 if _is_held_out(key, "object", *_anchor(stats, box)) else 1
    sides = side_of[instances]
    to_train, to_held_out = _distance(sides == 1), _distance(sides == 2)
    around = (sides == 0) & (label_map == schema.background_index)
    is_held_out[around & (to_train <= RING_PX) & (to_train < to_held_out)] = False
    is_held_out[around & (to_held_out <= RING_PX) & (to_held_out <= to_train)] = True
    np.copyto(is_held_out, sides == 2, where=sides > 0)


def _anchor(stats: ObjectStats, box: Box) -> tuple[int, int]:
    row = box.top + stats.box.top + stats.box.height // 2
    column = box.left + stats.box.left + stats.box.width // 2
    return row // ANCHOR_PX, column // ANCHOR_PX


def _distance(mask: Mask) -> NDArray[np.float32]:
    """Distance of each pixel to the nearest pixel of `mask`; infinite where there is none."""
    if not mask.any():
        return np.full(mask.shape, np.inf, np.float32)
    distance = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(distance, np.float32)
