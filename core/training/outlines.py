"""Where the outlines of painted objects are known: what the network's outline output is taught by.

A pixel is at a rim when it lies within `RIM_PX` of the line between an object and anything else, on
either side. Only outlines that somebody painted are known: the end of a scribble inside an object is none.
"""

from __future__ import annotations

from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from core.painting import Mask
from core.schema import IGNORE_INDEX

T = TypeVar("T", np.uint8, np.float32)

RIM_PX = 2
"""How far a rim reaches to either side of an outline: thin enough to leave a small nucleus an inside."""

NEAR_PX = 3
"""An outline is checked where something else is painted this near; soft brush edges lie between."""

WHOLE_SHARE = 0.5
"""From this share of checked outline on, an object was painted whole, and all its outline is meant: where
it touches a neighbour that nobody painted, nothing else can be painted beside it."""

_RIM = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * RIM_PX + 1, 2 * RIM_PX + 1))
_NEAR = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * NEAR_PX + 1, 2 * NEAR_PX + 1))
_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


def rims_of(instances: NDArray[np.int32]) -> Mask:
    """`(H, W)` bool: pixels at a rim, where every object of an image is known.

    >>> rims_of(np.array([[0, 0, 0, 0, 1, 1, 1, 1]], np.int32))[0].astype(int).tolist()
    [0, 0, 1, 1, 1, 1, 0, 0]
    """
    values = instances.astype(np.float32)  # OpenCV has no int32 here; exact up to 2**24 objects
    return np.asarray(_widest(values) != _narrowest(values))


def outline_targets(label_map: NDArray[np.uint8], background: int | None) -> NDArray[np.uint8]:
    """What a partial label map says about outlines.

    Parameters
    ----------
    label_map : (H, W) uint8
        Class indices, or `IGNORE_INDEX`.
    background : int or None
        Index of the class that has no objects.

    Returns
    -------
    (H, W) uint8
        1 at a rim, 0 where there is none, `IGNORE_INDEX` where nobody knows.

    Examples
    --------
    >>> row = np.array([[255, 255, 0, 0, 0, 0, 1, 1, 1, 1, 255, 255]], np.uint8)
    >>> outline_targets(row, background=0)[0].tolist()
    [255, 255, 255, 255, 1, 1, 1, 1, 1, 1, 255, 255]
    """
    targets = np.full(label_map.shape, IGNORE_INDEX, np.uint8)
    annotated = label_map != IGNORE_INDEX
    # Far from everything that is different or unknown there is no outline.
    targets[annotated & (_widest(label_map) == _narrowest(label_map))] = 0
    for class_index in np.flatnonzero(np.bincount(label_map[annotated])):
        if class_index != background:
            mask = label_map == class_index
            outline = _known_outline(mask, annotated & ~mask).astype(np.uint8)
            values = mask.astype(np.uint8)
            at_edge = _widest(values) != _narrowest(values)
            targets[annotated & at_edge & (cv2.dilate(outline, _RIM) > 0)] = 1
    return targets


def _known_outline(mask: Mask, others: Mask) -> Mask:
    """Pixels of one class just inside an outline that was painted."""
    values = mask.astype(np.uint8)
    # Beyond the edge of the image the same goes on: an object that is cut off has no outline there.
    outline = mask & ~(cv2.erode(values, _CROSS, borderType=cv2.BORDER_REPLICATE) > 0)
    checked = outline & (cv2.dilate(others.astype(np.uint8), _NEAR) > 0)
    n_labels, labels = cv2.connectedComponents(values, connectivity=8)
    total = np.bincount(labels[outline], minlength=n_labels)
    seen = np.bincount(labels[checked], minlength=n_labels)
    is_whole = seen >= WHOLE_SHARE * np.maximum(total, 1)
    return np.asarray(checked | (outline & is_whole[labels]))


def _widest(values: NDArray[T]) -> NDArray[T]:
    return np.asarray(cv2.dilate(values, _RIM, borderType=cv2.BORDER_REPLICATE), values.dtype)


def _narrowest(values: NDArray[T]) -> NDArray[T]:
    return np.asarray(cv2.erode(values, _RIM, borderType=cv2.BORDER_REPLICATE), values.dtype)
