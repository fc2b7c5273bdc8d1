"""Cut predicted blobs where two objects of one class have grown together."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import watershed

from core.distances import distance_inside
from core.objects.components import find_components
from core.objects.keep_apart import carve_line
from core.painting import Box, Mask, filled_box

NECK_SHARE = 0.82
"""A neck narrower than this part of the thinner side is a contact between two objects. Outlines that
wobble by a tenth of the radius, and long objects of even width, stay whole."""

NECK_SHARE_IN_SIGHT = 0.78
"""The same where the model also says where outlines are: they make necks deeper, and wrong ones too."""

OUTLINE_WEIGHT = 0.7
"""How much of its distance a pixel loses that is surely at an outline. All of it would cut through
textured objects after a few painted ones; none of it leaves nuclei of ten pixels together."""

MIN_PART_SHARE = 0.35
"""A part thinner than this share of the typical diameter is a bump, not an object."""

MIN_CLUMP_SHARE = 0.5
"""Blobs below this share of the typical area are too small to be two objects."""

LARGE_SHARE = 1.4
"""From this many typical areas on, a blob may hold two objects even if its outline shows no dent."""

SOLIDITY = 0.96
"""Area over area of the convex hull, from which an outline has no dent that could be a neck."""

MAX_CLUMP_PX = 16_000_000
"""Blobs with a larger box are sheets, not clumps: they stay whole, so that memory stays bounded."""

MIN_PART_RADIUS_PX = 2.5
"""Thinner parts are a pixel staircase: nobody can tell two of them from one."""

_SOFTENING_PX = 1.5
"""Added to distances before they are compared: half a pixel of staircase on either side is no neck."""

_ALL, _LATER, _EARLIER = slice(None), slice(1, None), slice(None, -1)
_NEIGHBOURS = (
    ((_LATER, _ALL), (_EARLIER, _ALL)),
    ((_ALL, _LATER), (_ALL, _EARLIER)),
    ((_LATER, _LATER), (_EARLIER, _EARLIER)),
    ((_LATER, _EARLIER), (_EARLIER, _LATER)),
)
"""Slices that lay an array over itself, moved by one pixel in each of four directions."""


NECK_SHIFT, NECK_SPREAD = 0.08, 0.04
"""How probable two objects are at a neck of a share: the logistic function that fits best to 805 necks of
true masks (see docs/benchmarks.md). Cuts are made where nearly nine in ten are two: wrong ones cost more."""


@dataclass(frozen=True)
class Neck:
    """What may be one object or two: the box of both sides, and how probable it is that they are two."""

    box: Box
    p_two: float


def separate_touching(
    mask: Mask, typical_diameter_px: float, *, outline: NDArray[np.floating[Any]] | None = None
) -> Mask:
    """Carve one pixel line between objects that touch.

    Each blob that is large or has a dent is cut by a watershed on its distance transform (Soille and
    Ansoult 1990). Two basins are two objects when the ridge between them falls below `NECK_SHARE` of
    the lower peak: a rule on the ratio does not depend on the size of the objects.

    Parameters
    ----------
    mask : (H, W) bool
        All objects of one class.
    typical_diameter_px : float
        Of an object of this class, from `core.objects.measure.ObjectLimits`.
    outline : (H, W) float, optional
        How probable it is that a pixel is at the rim of an object, in 0..1; lowers the distances there.

    Returns
    -------
    (H, W) bool
        `mask` without the lines, so that 8-connected components are objects.

    Examples
    --------
    >>> import numpy as np
    >>> rows, columns = np.mgrid[:40, :60]
    >>> mask = np.hypot(rows - 20, columns - 20) < 11
    >>> mask |= np.hypot(rows - 20, columns - 38) < 11
    >>> parts = separate_touching(mask, 22)
    >>> cv2.connectedComponents(parts.astype(np.uint8), connectivity=8)[0] - 1
    2
    """
    return split_touching(mask, typical_diameter_px, outline=outline)[0]


def split_touching(
    mask: Mask, typical_diameter_px: float, *, outline: NDArray[np.floating[Any]] | None = None
) -> tuple[Mask, tuple[Neck, ...]]:
    """The same, and the necks at which this was decided, the most doubtful one of each blob."""
    separated = mask.copy()
    necks: list[Neck] = []
    for box, blob in _suspects(mask, typical_diameter_px):
        parts, neck = _parts(blob, typical_diameter_px, None if outline is None else outline[box])
        if parts is not None:
            separated[box] &= ~(blob & carve_line(parts))
        if neck is not None:
            top, left = box[0].start, box[1].start
            inner = neck.box
            moved = Box(inner.top + top, inner.left + left, inner.height, inner.width)
            necks.append(Neck(moved, neck.p_two))
    return separated, tuple(necks)


def _suspects(mask: Mask, typical_diameter_px: float) -> Iterator[tuple[tuple[slice, slice], Mask]]:
    """Yield the box and the pixels of each blob that may hold more than one object."""
    typical_area = np.pi / 4 * typical_diameter_px**2
    components = find_components(mask)
    spans = components.boxes[:, 2:] - components.boxes[:, :2]
    may_be_clump = components.areas >= MIN_CLUMP_SHARE * typical_area
    may_be_clump &= spans.prod(axis=1, dtype=np.int64) <= MAX_CLUMP_PX
    for number, box, blob in components.cut_out(may_be_clump):
        if components.areas[number - 1] > LARGE_SHARE * typical_area or _solidity(blob) < SOLIDITY:
            yield box, blob


def _solidity(blob: Mask) -> float:
    outlines, _ = cv2.findContours(blob.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = max(outlines, key=len)
    hull_area = float(cv2.contourArea(cv2.convexHull(outline)))
    return float(cv2.contourArea(outline)) / hull_area if hull_area > 0 else 1.0


def _parts(
    blob: Mask, typical_diameter_px: float, outline: NDArray[np.floating[Any]] | None
) -> tuple[NDArray[np.int32] | None, Neck | None]:
    """Return labels of the objects in one blob, None when it is one object; and its most doubtful neck."""
    distance = distance_inside(np.pad(blob, 1))[1:-1, 1:-1]
    if outline is not None:
        distance = distance * (1 - OUTLINE_WEIGHT * outline.astype(np.float32))
    # Pixels without a higher neighbour: all peaks, and some flat slopes, which join their peak below.
    tops = (distance >= cv2.dilate(distance, np.ones((3, 3), np.uint8))) & blob
    n_seeds, seeds = cv2.connectedComponents(tops.astype(np.uint8), connectivity=8)
    if n_seeds <= 2:
        return None, None
    flooded = watershed(-distance, seeds, connectivity=2, mask=blob)  # type: ignore[no-untyped-call]
    basins = np.asarray(flooded, np.int32)
    min_radius_px = max(MIN_PART_RADIUS_PX, MIN_PART_SHARE * typical_diameter_px / 2)
    neck_share = NECK_SHARE if outline is None else NECK_SHARE_IN_SIGHT
    root, passes = _join_basins(basins, distance, min_radius_px, neck_share)
    joined = np.array(root, np.int32)[basins]
    neck = _most_doubtful(joined, root, passes, neck_share)
    return (joined if joined.max() > joined[blob].min() else None), neck


def _join_basins(
    basins: NDArray[np.int32], distance: NDArray[Any], min_radius_px: float, neck_share: float
) -> tuple[list[int], list[tuple[float, int, int]]]:
    """Join basins over their highest ridges first, until only real necks are left between them.

    Returns the basin that each one belongs to in the end; and for each pair that might be two objects the
    depth of what lies between them, as a share, with both basins.
    """
    n_basins = int(basins.max()) + 1
    peaks = np.zeros(n_basins, np.float32)
    np.maximum.at(peaks, basins.ravel(), distance.ravel())
    root = list(range(n_basins))
    passes: list[tuple[float, int, int]] = []
    for ridge, one, other in _ridges(basins, distance, n_basins):
        high, low = sorted((_root(root, one), _root(root, other)), key=lambda r: -float(peaks[r]))
        if high == low:
            continue
        share = (ridge + _SOFTENING_PX) / (float(peaks[low]) + _SOFTENING_PX)
        if peaks[low] >= min_radius_px:
            passes.append((share, low, high))
        if share > neck_share or peaks[low] < min_radius_px:
            root[low] = high
    return [_root(root, basin) for basin in range(n_basins)], passes


def _most_doubtful(
    joined: NDArray[np.int32], root: list[int], passes: list[tuple[float, int, int]], neck_share: float
) -> Neck | None:
    """The neck at which one and two are most alike, with the box of all that lies on its two sides."""
    if not passes:
        return None
    share, low, high = min(passes, key=lambda found: abs(found[0] - neck_share - NECK_SHIFT))
    sides = np.isin(joined, (root[low], root[high]))
    return Neck(filled_box(sides), 1 / (1 + math.exp((share - neck_share - NECK_SHIFT) / NECK_SPREAD)))


def _ridges(basins: NDArray[np.int32], distance: NDArray[Any], n_basins: int) -> list[tuple[float, int, int]]:
    """Return the highest pass between each pair of adjacent basins, highest first."""
    codes, heights = [], []
    for here, there in _NEIGHBOURS:
        one, other = basins[here], basins[there]
        differs = (one != other) & (one > 0) & (other > 0)
        low, high = np.minimum(one, other)[differs], np.maximum(one, other)[differs]
        codes.append(low.astype(np.int64) * n_basins + high)
        heights.append(np.minimum(distance[here], distance[there])[differs])
    # Each pair of basins is one number by now, so one pass groups all pixels of their border.
    code, inverse = np.unique(np.concatenate(codes), return_inverse=True)
    passes = np.zeros(code.size, np.float32)
    np.maximum.at(passes, inverse, np.concatenate(heights))
    # Stable: equal passes are joined in the same order on every machine.
    order = np.argsort(-passes, kind="stable")
    return [(float(passes[i]), int(code[i] // n_basins), int(code[i] % n_basins)) for i in order]


def _root(root: list[int], index: int) -> int:
    while root[index] != index:
        index = root[index]
    return index
