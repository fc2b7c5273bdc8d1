"""Connected components of large maps, a stripe of rows at a time.

OpenCV takes four bytes per pixel and more for the components of a whole image: half a gigabyte at 10,000 x
10,000 pixels. Here each stripe is numbered for itself, and parts that touch across a seam are joined.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from core.painting import Mask

ROWS_AT_ONCE = 512
"""Height of a stripe: numpy and OpenCV take 4 to 16 bytes for each pixel that they read. Even, because
OpenCV numbers blocks of two rows: components of any number of stripes then have the order of one."""

Slices = tuple[slice, slice]


@dataclass(frozen=True)
class Components:
    """Connected components, numbered from 1 on; row `number - 1` of each array is about one of them.

    Attributes
    ----------
    areas : (N,) int64
        In pixels.
    boxes : (N, 4) int32
        First row, first column, row after the last, column after the last.
    """

    areas: NDArray[np.int64]
    boxes: NDArray[np.int32]
    _values: NDArray[Any]
    _value: int
    _connectivity: int
    _numbers: tuple[NDArray[np.int32], ...]

    def __len__(self) -> int:
        return len(self.areas)

    def stripes(self) -> Iterator[tuple[slice, NDArray[np.int32]]]:
        """Yield some rows, and the number of the component at each of their pixels, 0 for none.

        The map must still be what it was: it is numbered again.
        """
        for rows, numbers in zip(_cut_rows(self._values.shape[0]), self._numbers, strict=True):
            _, labels = cv2.connectedComponents(
                _is_in(self._values[rows], self._value), connectivity=self._connectivity
            )
            yield rows, numbers[labels]

    def where(self, chosen: NDArray[np.bool_]) -> Iterator[tuple[slice, Mask]]:
        """Yield some rows, and which of their pixels are in a chosen component; `chosen` is `(N,)` bool."""
        if chosen.any():
            of_number = np.concatenate([[False], chosen])
            for rows, numbers in self.stripes():
                yield rows, of_number[numbers]

    def cut_out(self, chosen: NDArray[np.bool_]) -> Iterator[tuple[int, Slices, Mask]]:
        """Yield number, box, and pixels within the box of each chosen component; `chosen` is `(N,)` bool."""
        if not chosen.any():
            return
        # A component is cut out in the stripe where it begins: its first row has a pixel to flood from.
        tops = np.where(chosen, self.boxes[:, 0], -1)
        for rows, numbers in self.stripes():
            for index in np.flatnonzero((tops >= rows.start) & (tops < rows.stop)):
                top, left, bottom, right = (int(edge) for edge in self.boxes[index])
                first_row = numbers[top - rows.start, left:right]
                box = slice(top, bottom), slice(left, right)
                yield int(index) + 1, box, self._flood(box, int(np.argmax(first_row == index + 1)))

    def _flood(self, box: Slices, column: int) -> Mask:
        """The component of `box` that has this column in its first row: all of it is in its own box."""
        canvas = _is_in(self._values[box], self._value)
        cv2.floodFill(canvas, None, (column, 0), 2, flags=self._connectivity)
        return np.asarray(canvas == 2)


def find_components(values: NDArray[Any], value: int = 1, connectivity: int = 8) -> Components:
    """Find the connected components of the pixels that have one value.

    Parameters
    ----------
    values : (H, W) bool or uint8
        Kept, not copied.
    value : int
        1 finds the components of a mask.
    connectivity : 4 or 8

    Returns
    -------
    Components
        The same for any height of the stripes; only the order may change where that is odd.

    Examples
    --------
    >>> import numpy as np
    >>> found = find_components(np.array([[1, 0, 0, 1], [1, 1, 0, 0]], np.uint8))
    >>> found.areas.tolist(), found.boxes.tolist()
    ([3, 1], [[0, 0, 2, 2], [0, 3, 1, 4]])
    >>> [(number, mask.tolist()) for number, _, mask in found.cut_out(found.areas > 1)]
    [(1, [[True, False], [True, True]])]
    """
    n_parts = 0
    above: NDArray[np.int32] = np.zeros(values.shape[1], np.int32)
    measured: list[NDArray[np.int32]] = [np.zeros((0, 5), np.int32)]
    seams: list[NDArray[np.int32]] = [np.zeros((2, 0), np.int32)]
    for rows in _cut_rows(values.shape[0]):
        _, labels, stats, _ = cv2.connectedComponentsWithStats(
            _is_in(values[rows], value), connectivity=connectivity
        )
        first, last = (np.where(row > 0, row + n_parts, 0) for row in (labels[0], labels[-1]))
        seams.append(_touching(above, first, connectivity))
        measured.append(_measure(stats[1:], rows.start))
        above, n_parts = np.asarray(last, np.int32), n_parts + len(stats) - 1
    whole_of = _join(np.concatenate(seams, axis=1), n_parts)
    areas, boxes = _put_together(np.concatenate(measured), whole_of)
    ends = np.cumsum([len(parts) for parts in measured[1:]])[:-1]
    of_stripes = np.split(whole_of + 1, ends) if len(measured) > 1 else []
    numbers = tuple(np.concatenate([np.zeros(1, np.int32), some]) for some in of_stripes)
    return Components(areas, boxes, values, value, connectivity, numbers)


def _cut_rows(height: int) -> Iterator[slice]:
    for top in range(0, height, ROWS_AT_ONCE):
        yield slice(top, min(top + ROWS_AT_ONCE, height))


def _is_in(values: NDArray[Any], value: int) -> NDArray[np.uint8]:
    return np.asarray(values == value).view(np.uint8)


def _touching(above: NDArray[np.int32], below: NDArray[np.int32], connectivity: int) -> NDArray[np.int32]:
    """Pairs of part numbers, `(2, n)`, that touch across the seam between two rows."""
    pairs = [(above, below)]
    if connectivity == 8:
        pairs += [(above[1:], below[:-1]), (above[:-1], below[1:])]
    both = [(one > 0) & (other > 0) for one, other in pairs]
    return np.concatenate([np.stack([a[at], b[at]]) for (a, b), at in zip(pairs, both, strict=True)], axis=1)


def _measure(stats: NDArray[Any], top: int) -> NDArray[np.int32]:
    """OpenCV's statistics to area and edges of the box in the whole map."""
    left, upper, width, height, area = stats.T
    edges = (upper + top, left, upper + top + height, left + width)
    return np.stack([area, *edges], axis=1).astype(np.int32)


def _join(seams: NDArray[np.int32], n_parts: int) -> NDArray[np.int32]:
    """Index of the whole that each part belongs to, in the order of their first parts."""
    if seams.shape[1] == 0:
        return np.arange(n_parts, dtype=np.int32)
    links = coo_array((np.ones(seams.shape[1], bool), tuple(seams - 1)), shape=(n_parts, n_parts))
    _, joined = connected_components(links, directed=False)
    _, first = np.unique(joined, return_index=True)
    ranks = np.empty(first.size, np.int32)
    ranks[np.argsort(first)] = np.arange(first.size, dtype=np.int32)
    return np.asarray(ranks[joined], np.int32)


def _put_together(
    parts: NDArray[np.int32], whole_of: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Areas and boxes of wholes, from area and box of each of their parts."""
    n = int(whole_of.max()) + 1 if whole_of.size else 0
    areas = np.zeros(n, np.int64)
    np.add.at(areas, whole_of, parts[:, 0])
    boxes = np.zeros((n, 4), np.int32)
    boxes[:, :2] = np.iinfo(np.int32).max
    for edge in (0, 1):
        np.minimum.at(boxes[:, edge], whole_of, parts[:, 1 + edge])
    for edge in (2, 3):
        np.maximum.at(boxes[:, edge], whole_of, parts[:, 1 + edge])
    return areas, boxes
