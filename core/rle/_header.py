"""The head of a brush stream, and whether it can belong to an image: checked before memory is taken."""

from __future__ import annotations

import operator
from dataclasses import dataclass

from core.errors import RLEError
from core.rle._bytes import Stream, as_sequence, to_bytes

CHANNELS = 4
HEADER_BITS = 32 + 5 + 4 * 4
HEADER_BYTES = -(-HEADER_BITS // 8)
BLOCK_HEAD_BITS = 3
MAX_VALUES = (1 << 32) - 1
"""What the header's count can hold: images up to 2^30 pixels."""


@dataclass(frozen=True)
class Header:
    """The first 53 bits of a stream. `word_bits` is 1..32, each of the four `count_sizes` 1..16."""

    n_values: int
    word_bits: int
    count_sizes: tuple[int, int, int, int]

    def most_values(self, n_bits: int) -> int:
        """No fewer than the values that `n_bits` of blocks can hold."""
        per_bit = max((1 << size) / (BLOCK_HEAD_BITS + size + self.word_bits) for size in self.count_sizes)
        return int(n_bits * max(per_bit, 1 / self.word_bits)) + 1


def read_header(stream: Stream) -> Header:
    """Read what a stream says about itself, without reading on.

    Raises
    ------
    RLEError
        The stream is shorter than a header, or its first bytes are no integers 0..255.

    Examples
    --------
    >>> read_header([0, 0, 0, 140, 57, 27, 254, 139, 255])
    Header(n_values=140, word_bits=8, count_sizes=(3, 4, 8, 16))
    """
    head = to_bytes(as_sequence(stream)[:HEADER_BYTES])
    if len(head) < HEADER_BYTES:
        raise RLEError(f"a stream of {len(head)} bytes is shorter than its header of {HEADER_BYTES}")
    bits = int.from_bytes(head, "big") >> (HEADER_BYTES * 8 - HEADER_BITS)
    a, b, c, d = (((bits >> shift) & 0xF) + 1 for shift in (12, 8, 4, 0))
    return Header(bits >> 21, ((bits >> 16) & 0x1F) + 1, (a, b, c, d))


def check_header(stream: Stream, shape: tuple[int, int]) -> Header:
    """Check in no time and no memory that a stream can be one of an image of `shape` `(H, W)`.

    Raises
    ------
    RLEError
        The header announces another number of values, or more than a stream of this length can hold.

    Examples
    --------
    >>> check_header([0, 0, 0, 36, 57, 27, 254, 139, 255], (5, 7))
    Traceback (most recent call last):
    ...
    core.errors.RLEError: the stream announces 36 values, but 4 channels of 5 x 7 pixels are 140
    """
    height, width = map(operator.index, shape)
    if height < 0 or width < 0:
        raise ValueError(f"an image cannot be {height} x {width} pixels")
    stream = as_sequence(stream)
    header = read_header(stream)
    if header.n_values != CHANNELS * height * width:
        raise RLEError(_wrong_count(header.n_values, height, width))
    n_bits = len(stream) * 8 - HEADER_BITS
    if header.n_values > header.most_values(n_bits):
        raise RLEError(
            f"a stream of {len(stream)} bytes cannot hold the {header.n_values} values it announces"
        )
    return header


def _wrong_count(n_values: int, height: int, width: int) -> str:
    wanted = CHANNELS * height * width
    hint = " (one per pixel: is it the stream of a single channel?)" if n_values == height * width else ""
    announced = f"the stream announces {n_values} values{hint}"
    return f"{announced}, but {CHANNELS} channels of {height} x {width} pixels are {wanted}"
