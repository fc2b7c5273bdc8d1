"""The loops of `core.rle`, compiled. Imported at first use only: numba costs half a second to import.

A stream is read in blocks through a 64-bit window. The longest block head has
1 + 2 + 16 + 32 = 51 bits, and a window at any bit offset holds at least 57, so one window is enough.
numba turns a mix of int64 and uint64 into float64: bits are uint64 throughout, positions and counts int64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

OK, TRUNCATED, OVERRUN, VALUE_TOO_LARGE = range(4)

PADDING_BYTES = 8
"""Zero bytes that must follow the data, so that a window at the very end stays inside the array."""

LONGEST_RUN = 1 << 16
_CHANNELS = 4
_MAX_ALPHA = np.uint64(255)
_WINDOW_BITS = 64
_BLOCK_HEAD_BITS = 3
"""One bit for the kind of block, two for the size of its count."""
_WORD_BITS = 8
"""Of the streams written here; so are the count sizes 3, 4, 8 and 16."""

_U1, _U3, _U8 = np.uint64(1), np.uint64(3), np.uint64(8)
_EVERY_BYTE = np.uint64(0x0101010101010101)


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile at first call and keep the result on disk, or in memory where no folder can be written."""
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:  # "no locator available": neither the package nor the user's cache is writable
        return njit(nogil=True)(function)


@_compiled
def _load64(data, at):  # type: ignore[no-untyped-def]
    """Eight bytes from `at`, the first one highest; LLVM makes one load and a byte swap of it."""
    first = np.uint64(at)  # an unsigned index spares the check for negative ones
    word = np.uint64(0)
    for k in range(8):
        word = (word << _U8) | np.uint64(data[first + np.uint64(k)])
    return word


@_compiled
def _next_run(data, at_bit, literals, word_bits, count_sizes):  # type: ignore[no-untyped-def]
    """Read the next run: `(at_bit, literals, count, value)`.

    Each literal is a run of one. The head of a literal block is a run of none that sets `literals`.
    `count_sizes` holds the four sizes, 8 bits each, the first one lowest.
    """
    window = _load64(data, at_bit >> 3) << np.uint64(at_bit & 7)
    value_shift = np.uint64(_WINDOW_BITS - word_bits)
    if literals > 0:
        return at_bit + word_bits, literals - 1, 1, window >> value_shift
    kind = window >> np.uint64(_WINDOW_BITS - 1)
    choice = (window >> np.uint64(_WINDOW_BITS - _BLOCK_HEAD_BITS)) & _U3
    count_bits = np.int64((count_sizes >> (choice << _U3)) & np.uint64(0xFF))
    body = window << np.uint64(_BLOCK_HEAD_BITS)
    count = np.int64(body >> np.uint64(_WINDOW_BITS - count_bits)) + 1
    at_bit += _BLOCK_HEAD_BITS + count_bits
    if kind == _U1:
        return at_bit + word_bits, 0, count, (body << np.uint64(count_bits)) >> value_shift
    return at_bit, count, 0, np.uint64(0)


@_compiled
def _paint8(flat, at, value):  # type: ignore[no-untyped-def]
    first = np.uint64(at)
    for k in range(8):
        flat[first + np.uint64(k)] = value


@_compiled
def _paint(flat, start, end, value):  # type: ignore[no-untyped-def]
    """Set `flat[start:end]`; eight at a time, the last eight overlapping, as most runs are short."""
    if end - start < 8:
        for at in range(np.uint64(start), np.uint64(end)):
            flat[at] = value
        return
    for at in range(start, end - 8, 8):
        _paint8(flat, at, value)
    _paint8(flat, end - 8, value)


@_compiled
def fill(data, n_bits, at_bit, word_bits, count_sizes, n_values, width, top, left, crop):  # type: ignore[no-untyped-def]
    """Write the alpha channel into `crop`, a zeroed rectangle that holds every non-zero pixel.

    Returns `(status, values read, bits read)`. Zeros are never written: the memory stays untouched.
    """
    flat = crop.reshape(-1)
    crop_width = crop.shape[1]
    done, literals = 0, 0
    while done < n_values:
        at_bit, literals, count, value = _next_run(data, at_bit, literals, word_bits, count_sizes)
        if at_bit > n_bits:
            return TRUNCATED, done, at_bit
        end = done + count
        if end + literals > n_values:
            return OVERRUN, done, at_bit
        # Pixel p's alpha is value 4p + 3, so the alphas of values done .. end are pixels done/4 .. end/4.
        first, last = done // _CHANNELS, end // _CHANNELS
        done = end
        if value == np.uint64(0) or first == last:
            continue
        if value > _MAX_ALPHA:
            return VALUE_TOO_LARGE, done, at_bit
        row = top if crop_width == width else first // width
        # A run over several rows makes the rectangle as wide as the image: it is contiguous there too.
        start = first - row * width - left + (row - top) * crop_width
        _paint(flat, start, start + last - first, np.uint8(value))
    return OK, done, at_bit


@_compiled
def scan(data, n_bits, at_bit, word_bits, count_sizes, n_values, width):  # type: ignore[no-untyped-def]
    """Find the rectangle of non-zero alpha: `(status, values, bits, top, left, height, width)`."""
    done, literals = 0, 0
    top, bottom, leftmost, right = -1, 0, width, 0
    while done < n_values:
        at_bit, literals, count, value = _next_run(data, at_bit, literals, word_bits, count_sizes)
        if at_bit > n_bits:
            return TRUNCATED, done, at_bit, 0, 0, 0, 0
        end = done + count
        if end + literals > n_values:
            return OVERRUN, done, at_bit, 0, 0, 0, 0
        first, last = done // _CHANNELS, end // _CHANNELS
        done = end
        if value == np.uint64(0) or first == last:
            continue
        if value > _MAX_ALPHA:
            return VALUE_TOO_LARGE, done, at_bit, 0, 0, 0, 0
        row = first // width
        if top < 0:
            top = row
        bottom = row
        column = first - row * width
        stop = column + last - first
        if stop > width:
            bottom = (last - 1) // width
            column, stop = 0, width
        leftmost = min(leftmost, column)
        right = max(right, stop)
    if top < 0:
        return OK, done, at_bit, 0, 0, 0, 0
    return OK, done, at_bit, top, leftmost, bottom - top + 1, right - leftmost


@_compiled
def _end_of_run(flat, start):  # type: ignore[no-untyped-def]
    """Index after the last of the equal values that begin at `start`; eight at a time."""
    value = flat[start]
    pattern = np.uint64(value) * _EVERY_BYTE
    at = start + 1
    while at + 8 <= flat.size:
        differs = _load64(flat, at) ^ pattern
        if differs != np.uint64(0):
            # The equal bytes come first, hence highest. A sum of comparisons has no branch to mispredict.
            for k in range(1, 8):
                at += np.int64(differs < np.uint64(1 << (_WINDOW_BITS - 8 * k)))
            return at
        at += 8
    while at < flat.size and flat[at] == value:
        at += 1
    return at


@_compiled
def _count_field(count):  # type: ignore[no-untyped-def]
    """Which of the four sizes holds `count - 1`, and its bits."""
    if count <= 1 << 3:
        return 0, 3
    if count <= 1 << 4:
        return 1, 4
    if count <= 1 << 8:
        return 2, 8
    return 3, 16


@_compiled
def count_bits(flat):  # type: ignore[no-untyped-def]
    """Bits that the blocks of these pixels take; one run of n equal pixels is 4n equal values."""
    bits = 0
    start = 0
    while start < flat.size:
        end = _end_of_run(flat, start)
        whole, rest = divmod((end - start) * _CHANNELS, LONGEST_RUN)
        bits += whole * (_BLOCK_HEAD_BITS + 16 + _WORD_BITS)
        if rest > 0:
            bits += _BLOCK_HEAD_BITS + _count_field(rest)[1] + _WORD_BITS
        start = end
    return bits


@_compiled
def write_blocks(flat, is_bool, out, at_byte, pending, n_pending):  # type: ignore[no-untyped-def]
    """Write the runs of `flat` to `out` from `at_byte`, after the last `n_pending` bits of `pending`."""
    start = 0
    while start < flat.size:
        end = _end_of_run(flat, start)
        value = np.uint64(flat[start])
        if is_bool and value != np.uint64(0):
            value = _MAX_ALPHA
        left = (end - start) * _CHANNELS
        while left > 0:
            count = min(left, LONGEST_RUN)
            choice, size = _count_field(count)
            block = (np.uint64(4 | choice) << np.uint64(size)) | np.uint64(count - 1)
            pending = (pending << np.uint64(_BLOCK_HEAD_BITS + size + _WORD_BITS)) | (
                (block << np.uint64(_WORD_BITS)) | value
            )
            n_pending += _BLOCK_HEAD_BITS + size + _WORD_BITS
            while n_pending >= 8:
                n_pending -= 8
                out[at_byte] = np.uint8((pending >> np.uint64(n_pending)) & np.uint64(0xFF))
                at_byte += 1
            left -= count
        start = end
    if n_pending > 0:
        out[at_byte] = np.uint8((pending << np.uint64(8 - n_pending)) & np.uint64(0xFF))
