"""From the ways a brush stream comes along (integers of JSON, arrays, bytes) to bytes."""

from __future__ import annotations

import operator
import reprlib
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from core.errors import RLEError

Stream: TypeAlias = "Sequence[int] | NDArray[Any] | bytes | bytearray | memoryview"

_MOST_SHOWN_BITS = 64
"""Larger integers are not printed: Python refuses to print those of thousands of digits."""


def as_sequence(stream: Any) -> Sequence[int] | NDArray[Any]:
    """The stream as something with a length and slices whose elements are bytes, or `RLEError`."""
    if isinstance(stream, memoryview):
        stream = np.asarray(stream)
    if isinstance(stream, np.ndarray):
        if stream.ndim != 1 or stream.dtype.kind not in "iu":
            raise RLEError(f"a brush stream is one row of integers, not {stream.shape} {stream.dtype}")
        return stream
    if isinstance(stream, str) or not isinstance(stream, Sequence):
        raise RLEError(f"a brush stream is a list of integers 0..255, not {type(stream).__name__}")
    return stream


def to_bytes(stream: Sequence[int] | NDArray[Any]) -> bytes | bytearray:
    """The bytes of a sequence; `RLEError` names the first element that is none.

    JSON's `true` and `false` pass as 1 and 0, as everywhere in Python: asking for each element's type
    would take ten times as long as the conversion.
    """
    if isinstance(stream, (bytes, bytearray)):
        return stream
    if isinstance(stream, np.ndarray):
        wrong = np.flatnonzero((stream < 0) | (stream > 255))
        if wrong.size:
            raise _wrong_element(int(wrong[0]), int(stream[wrong[0]]))
        return stream.astype(np.uint8).tobytes()
    try:
        # `bytearray(list)` takes less than half of the time of `bytes(list)`.
        return bytearray(stream if isinstance(stream, list) else list(stream))
    except (TypeError, ValueError, OverflowError):
        raise _first_wrong(stream) from None


def _first_wrong(stream: Sequence[Any]) -> RLEError:
    for at, value in enumerate(stream):
        if not _is_byte(value):
            return _wrong_element(at, value)
    return RLEError("the stream changed while it was read")


def _is_byte(value: object) -> bool:
    try:
        return 0 <= operator.index(value) <= 255  # type: ignore[arg-type]
    except TypeError:
        return False


def _wrong_element(at: int, value: object) -> RLEError:
    if isinstance(value, int) and value.bit_length() > _MOST_SHOWN_BITS:
        shown = f"an integer of {value.bit_length()} bits"
    else:
        shown = reprlib.repr(value)
    return RLEError(f"element {at} of the stream is {shown}, not an integer 0..255")
