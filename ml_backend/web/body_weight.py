"""What a body of JSON would take as Python's objects, counted before it is read.

`1,` takes 2 bytes on the wire and 8 in a list; `.5,` takes 3 and 32. So a limit on the bytes of a body does
not bound the memory. The count goes over the body once, keeps nothing, and knows no other state than
whether it is inside a string.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

POINTER, NUMBER, TEXT, ARRAY, OBJECT = 9, 32, 56, 72, 184
"""Bytes of CPython 3.10 to 3.13 on 64 bits: an entry of a list with the room that lists keep, a number that
is not one of the shared small ones, a text's head, an empty list, a small dictionary."""

LARGEST_SHARED = 256
"""Python makes no new object for the numbers from 0 to this."""

_QUOTE, _BACKSLASH, _COMMA, _SPACE = ord('"'), ord("\\"), ord(","), ord(" ")
_BRACKET, _BRACKET_END, _BRACE, _BRACE_END = ord("["), ord("]"), ord("{"), ord("}")
_ZERO, _NINE, _MINUS, _A, _Z = ord("0"), ord("9"), ord("-"), ord("a"), ord("z")
_MOST_DIGITS = 3
_WIDE, _WIDEST = 0xC4, 0xF0
"""First bytes of characters that make each character of a text take two bytes, or four."""


def count_bytes(body: bytes | bytearray) -> int:
    """Bytes of memory that the parsed body takes at most, roughly.

    Examples
    --------
    >>> count_bytes(b"[1, 2, 3]") - count_bytes(b"[1, 2]")
    9
    >>> count_bytes(b"[1, 2, 0.3]") - count_bytes(b"[1, 2]")
    41
    """
    view = np.frombuffer(body, np.uint8)
    view.flags.writeable = False  # to numba a writable array is another type, to be compiled again
    return int(_count(view))


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile at first call and keep the result on disk, or in memory where no folder can be written."""
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:
        return njit(nogil=True)(function)


@_compiled
def _pass_number(body, at):  # type: ignore[no-untyped-def]
    """Whether Python shares the number that begins at `at`, and where it ends."""
    value, first = 0, at
    is_plain = True
    while at < body.size and not (
        body[at] <= _SPACE or body[at] == _COMMA or body[at] == _BRACKET_END or body[at] == _BRACE_END
    ):
        is_plain = is_plain and _ZERO <= body[at] <= _NINE and at - first < _MOST_DIGITS
        value = 10 * value + int(body[at]) - _ZERO if is_plain else value
        at += 1
    return is_plain and value <= LARGEST_SHARED, at


@_compiled
def _pass_text(body, at):  # type: ignore[no-untyped-def]
    """Bytes of the text whose opening quote is before `at`, and what follows its closing quote."""
    first, width = at, 1
    while at < body.size and body[at] != _QUOTE:
        if body[at] >= _WIDEST or body[at] == _BACKSLASH:  # an escape may be half of anything
            width = 4
        elif body[at] >= _WIDE and width == 1:
            width = 2
        at += 2 if body[at] == _BACKSLASH else 1
    return width * (at - first), at + 1


@_compiled
def _count(body):  # type: ignore[no-untyped-def]
    total, at, size = 0, 0, body.size
    while at < size:
        byte = body[at]
        at += 1
        if byte == _QUOTE:
            length, at = _pass_text(body, at)
            total += POINTER + TEXT + length
        elif byte == _BRACKET:
            total += POINTER + ARRAY
        elif byte == _BRACE:
            total += POINTER + OBJECT
        elif _ZERO <= byte <= _NINE or byte == _MINUS:
            is_shared, at = _pass_number(body, at - 1)
            total += POINTER if is_shared else POINTER + NUMBER
        elif _A <= byte <= _Z:  # true, false, null
            total += POINTER
            while at < size and _A <= body[at] <= _Z:
                at += 1
    return total
