"""Label Studio's brush stream to an alpha mask, and back.

The format is thi.ng's `rle-pack` over the four channels of every pixel, row by row, most significant first::

    32 bits          number of values, 4 · H · W
    5 bits           word size - 1
    4 x 4 bits       the four sizes that a block's count may have, each - 1
    then blocks      1 bit kind (1 = run, 0 = literals), 2 bits which size, that many bits count - 1,
                     one word (run) or `count` words (literals)

Whatever follows the last value is padding. Only the fourth channel, alpha, means anything.

The compiled part is imported at first use, and kept on disk; `warm_up` does both early.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from core.errors import RLEError
from core.rle._bytes import Stream, as_sequence, to_bytes
from core.rle._header import (
    CHANNELS,
    HEADER_BITS,
    HEADER_BYTES,
    MAX_VALUES,
    Header,
    check_header,
    read_header,
)

WRITTEN_WORD_BITS = 8
WRITTEN_COUNT_SIZES = (3, 4, 8, 16)
"""What the browser writes, and so do we."""

__all__ = ["Header", "Stream", "check_header", "decode", "decode_box", "encode", "read_header", "warm_up"]


def decode(stream: Stream, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Decode a brush stream to the alpha of its image.

    Parameters
    ----------
    stream
        Integers 0..255 (list, tuple, integer array), or the same as bytes.
    shape
        `(H, W)` of the image in pixels. The stream is checked against it before memory is taken.

    Returns
    -------
    alpha
        `(H, W)` uint8. Values are given as they are: 255 is fully painted, 128 and more counts as painted.

    Raises
    ------
    RLEError
        The stream does not announce 4 · H · W values, ends early, holds more values than announced, an alpha
        above 255 (words may have up to 32 bits), or something that is not an integer 0..255.
        The message says what and where.

    Notes
    -----
    Reading stops at the last value, so what follows (padding; label-studio-sdk sometimes writes one byte more
    than the browser) is ignored. R, G and B are read over. Time grows with the stream and the image, memory
    with the same: never with what the stream claims.

    Examples
    --------
    >>> import numpy as np
    >>> decode(encode(np.array([[False, True, True]])), (1, 3))
    array([[  0, 255, 255]], dtype=uint8)
    >>> decode([0, 0, 0, 12, 57, 27, 254], (1, 2))
    Traceback (most recent call last):
    ...
    core.errors.RLEError: the stream announces 12 values, but 4 channels of 1 x 2 pixels are 8
    """
    header, data, n_bits = _open(stream, shape)
    alpha = np.zeros(shape, np.uint8)
    if alpha.size:
        _fill(header, data, n_bits, shape[1], 0, 0, alpha)
    return alpha


def decode_box(stream: Stream, shape: tuple[int, int]) -> tuple[int, int, NDArray[np.uint8]]:
    """Decode a brush stream to the smallest rectangle that holds its non-zero alpha.

    Takes memory for that rectangle alone, so hundreds of regions of one large image fit.

    Parameters
    ----------
    stream, shape
        As for `decode`.

    Returns
    -------
    top, left
        Row and column of the rectangle's first pixel; 0, 0 when nothing is painted.
    alpha
        `(height, width)` uint8, shape `(0, 0)` when nothing is painted.

    Raises
    ------
    RLEError
        As for `decode`.

    Examples
    --------
    >>> import numpy as np
    >>> mask = np.zeros((50, 40), bool)
    >>> mask[7:9, 30:33] = True
    >>> decode_box(encode(mask), (50, 40))
    (7, 30, array([[255, 255, 255],
           [255, 255, 255]], dtype=uint8))
    """
    header, data, n_bits = _open(stream, shape)
    if header.n_values == 0:
        return 0, 0, np.zeros((0, 0), np.uint8)
    status, n_values, at_bit, top, left, height, width = _load_kernels().scan(
        data, n_bits, HEADER_BITS, header.word_bits, _packed(header), header.n_values, shape[1]
    )
    _check_status(status, n_values, at_bit, n_bits, header)
    alpha = np.zeros((height, width), np.uint8)
    if alpha.size:
        _fill(header, data, n_bits, shape[1], top, left, alpha)
    return top, left, alpha


def encode(mask: NDArray[np.bool_] | NDArray[np.uint8]) -> list[int]:
    """Encode a mask as the browser would, byte for byte.

    Parameters
    ----------
    mask
        `(H, W)`. bool: True becomes alpha 255; the safe form. uint8: alpha as it is, so a mask of 0 and 1
        gives strokes that nobody can see (alpha 1 of 255).

    Returns
    -------
    stream
        Integers 0..255, ready for JSON. Word size 8, run sizes 3, 4, 8 and 16, R = G = B = A.

    Raises
    ------
    ValueError
        Another type or number of axes, or more than 2^30 pixels.

    Examples
    --------
    >>> import numpy as np
    >>> encode(np.ones((5, 7), bool))
    [0, 0, 0, 140, 57, 27, 254, 139, 255]
    """
    if mask.ndim != 2 or mask.dtype not in (np.bool_, np.uint8):
        raise ValueError(f"a mask is (H, W) bool or uint8, not {mask.shape} {mask.dtype}")
    n_values = mask.size * CHANNELS
    if n_values > MAX_VALUES:
        raise ValueError(
            f"a mask of {mask.shape} has {n_values} values, the format counts up to {MAX_VALUES}"
        )
    flat = _read_only(np.ascontiguousarray(mask).reshape(-1).view(np.uint8))
    header = _header_bits(n_values)
    kernels = _load_kernels()
    out = np.empty(-(-(HEADER_BITS + kernels.count_bits(flat)) // 8), np.uint8)
    n_pending = HEADER_BITS % 8
    out[: HEADER_BYTES - 1] = list((header >> n_pending).to_bytes(HEADER_BYTES - 1, "big"))
    pending = np.uint64(header & ((1 << n_pending) - 1))
    kernels.write_blocks(flat, mask.dtype == np.bool_, out, HEADER_BYTES - 1, pending, n_pending)
    return list(out.tobytes())  # twice as fast as `out.tolist()`


def warm_up() -> None:
    """Import and compile what this module needs, so that no request has to wait for it (seconds, once)."""
    mask = np.ones((1, 1), np.bool_)
    stream = encode(mask)
    decode(stream, mask.shape)
    decode_box(stream, mask.shape)


def _header_bits(n_values: int) -> int:
    bits = (n_values << 5) | (WRITTEN_WORD_BITS - 1)
    for size in WRITTEN_COUNT_SIZES:
        bits = (bits << 4) | (size - 1)
    return bits


@cache
def _load_kernels() -> ModuleType:
    from core.rle import _kernels

    return _kernels


def _open(stream: Stream, shape: tuple[int, int]) -> tuple[Header, NDArray[np.uint8], int]:
    """Header, padded bytes and number of bits of a stream that may be one of this image."""
    stream = as_sequence(stream)
    header = check_header(stream, shape)
    data = to_bytes(stream)
    n_bits = len(data) * 8
    return header, _read_only(np.frombuffer(data + bytes(_load_kernels().PADDING_BYTES), np.uint8)), n_bits


def _read_only(view: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The view itself, closed to writing: to numba a writable array is another type, to be compiled again."""
    view.flags.writeable = False
    return view


def _fill(
    header: Header,
    data: NDArray[np.uint8],
    n_bits: int,
    width: int,
    top: int,
    left: int,
    crop: NDArray[np.uint8],
) -> None:
    status, n_values, at_bit = _load_kernels().fill(
        data, n_bits, HEADER_BITS, header.word_bits, _packed(header), header.n_values, width, top, left, crop
    )
    _check_status(status, n_values, at_bit, n_bits, header)


def _packed(header: Header) -> np.uint64:
    """The four sizes in one number, the first one lowest: the kernels keep it in a register."""
    return np.uint64(int.from_bytes(bytes(header.count_sizes), "little"))


def _check_status(status: int, n_values: int, at_bit: int, n_bits: int, header: Header) -> None:
    kernels = _load_kernels()
    if status == kernels.OK:
        return
    where = f"after {n_values} of {header.n_values} values"
    if status == kernels.TRUNCATED:
        raise RLEError(f"the stream ends too early: {n_bits // 8} bytes hold no whole block {where}")
    if status == kernels.OVERRUN:
        raise RLEError(f"the block that ends at byte {at_bit // 8} holds more values than are left {where}")
    raise RLEError(f"the block that ends at byte {at_bit // 8} has an alpha above 255 {where}")
