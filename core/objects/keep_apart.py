"""Keep painted objects of one class apart, so that connected components are objects again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from core.painting import Box, Mask, shared_box, slices_within

SAME_OBJECT_OVERLAP = 0.25
"""Two strokes that share more than this part of the smaller one paint the same object.

Soft brush edges of neighbours overlap by some percent of the smaller object: two discs of 10 px that
reach 3 px into each other share 19 %. Strokes that go on painting an object start well inside it."""

_NEIGHBOURHOOD = np.ones((3, 3), np.uint8)


@dataclass(frozen=True)
class PaintedObject:
    """The pixels of one brush region that are truth, cut to `box`."""

    class_index: int
    box: Box
    mask: Mask


@dataclass(frozen=True)
class Separation:
    """What was carved: `(H, W)` bool, its pixels, and the objects that lost some of them."""

    carved: Mask
    carved_px: int
    touching_objects: int


def find_contacts(objects: Sequence[PaintedObject], shape: tuple[int, int]) -> Separation:
    """Find the line of pixels that keeps touching objects of one class apart.

    Overlap belongs to the earlier object; the pixels of the later one that are next to the earlier
    one, corners included, are the line. What is left are objects in 8-connectivity, with a line one
    pixel thick between them. Objects that overlap by more than `SAME_OBJECT_OVERLAP` are one object.

    Parameters
    ----------
    objects : sequence of PaintedObject
        In order of precedence.
    shape : (H, W) of the image

    Examples
    --------
    >>> import numpy as np
    >>> left = PaintedObject(1, Box(0, 0, 1, 2), np.ones((1, 2), bool))
    >>> right = PaintedObject(1, Box(0, 2, 1, 3), np.ones((1, 3), bool))
    >>> find_contacts([left, right], (1, 5)).carved.astype(int).tolist()
    [[0, 0, 1, 0, 0]]
    """
    carved = np.zeros(shape, bool)
    pairs = tuple(_neighbours(objects))
    if not pairs:
        return Separation(carved, 0, 0)
    groups = _group(objects, pairs)
    owner = np.zeros(shape, np.min_scalar_type(len(objects)))
    involved = sorted({index for pair in pairs for index in pair})
    n_touching = sum(_claim(objects[index], groups[index] + 1, owner) for index in involved)
    for index in involved:
        box = objects[index].box
        carved[box.slices] |= objects[index].mask & (owner[box.slices] == 0)
    return Separation(carved, int(np.count_nonzero(carved)), n_touching)


def carve_line(labels: NDArray[np.int32]) -> Mask:
    """Return the pixels of each label that are next to a smaller label, corners included.

    Parameters
    ----------
    labels : (H, W) int32, 0 where there is none
    """
    # float32, because OpenCV's erosion has no int32; exact up to 2**24 labels.
    values = np.where(labels > 0, labels, np.iinfo(np.int32).max).astype(np.float32)
    smallest = cv2.erode(values, _NEIGHBOURHOOD, borderType=cv2.BORDER_REPLICATE)
    return (labels > 0) & (smallest < values)


def _neighbours(objects: Sequence[PaintedObject]) -> Iterator[tuple[int, int]]:
    """Yield pairs `(earlier, later)` of one class whose boxes touch or overlap."""
    edges = np.array(
        [(o.box.top, o.box.left, o.box.top + o.box.height, o.box.left + o.box.width) for o in objects]
    ).reshape(-1, 4)
    classes = np.array([o.class_index for o in objects])
    has_pixels = np.array([bool(o.mask.any()) for o in objects])
    for later in range(1, len(objects)):
        top, left, bottom, right = edges[later]
        before = edges[:later]
        near = (before[:, 0] <= bottom) & (before[:, 2] >= top)
        near &= (before[:, 1] <= right) & (before[:, 3] >= left)
        near &= (classes[:later] == classes[later]) & has_pixels[:later] & has_pixels[later]
        for earlier in np.flatnonzero(near):
            yield int(earlier), later


def _group(objects: Sequence[PaintedObject], pairs: Sequence[tuple[int, int]]) -> list[int]:
    """Name each object after the first stroke that paints the same object."""
    first = list(range(len(objects)))
    for earlier, later in pairs:
        if _share(objects[earlier], objects[later]) > SAME_OBJECT_OVERLAP:
            one, other = sorted((_root(first, earlier), _root(first, later)))
            first[other] = one
    return [_root(first, index) for index in range(len(objects))]


def _root(first: list[int], index: int) -> int:
    while first[index] != index:
        index = first[index]
    return index


def _share(one: PaintedObject, other: PaintedObject) -> float:
    box = shared_box(one.box, other.box)
    if box.height == 0 or box.width == 0:
        return 0.0
    both = one.mask[slices_within(box, one.box)] & other.mask[slices_within(box, other.box)]
    n_both = np.count_nonzero(both)
    return n_both / min(np.count_nonzero(one.mask), np.count_nonzero(other.mask)) if n_both else 0.0


def _claim(thing: PaintedObject, group: int, owner: NDArray[np.unsignedinteger]) -> bool:
    """Write `group` where `thing` may stay; return whether it had to give way."""
    box = thing.box
    top, left = max(0, box.top - 1), max(0, box.left - 1)
    around = owner[top : box.top + box.height + 1, left : box.left + box.width + 1]
    others = ((around != 0) & (around != group)).astype(np.uint8)
    inside = slices_within(box, Box(top, left, *around.shape))
    if not others.any():
        owner[box.slices][thing.mask] = group
        return False
    next_to_others = cv2.dilate(others, _NEIGHBOURHOOD)[inside] > 0
    stays = thing.mask & ~next_to_others
    owner[box.slices][stays] = group
    return bool(np.any(thing.mask & next_to_others))
