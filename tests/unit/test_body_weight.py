"""A body's weight is counted before it is parsed: small on the wire is not small in memory."""

from __future__ import annotations

import tracemalloc

import pytest
from pydantic_core import from_json

from ml_backend.errors import TooLargeError
from ml_backend.web import bodies, body_weight
from ml_backend.web.body_weight import count_bytes

ENTRIES = [b"1", b"255", b"300", b"1e5", b"-9", b"0.5", b"null", b"[]", b"[1]", b'"ab"', b"{}", b'{"a": 1}']
N = 20_000


@pytest.mark.parametrize("entry", ENTRIES)
def test_the_count_is_no_less_than_what_python_takes(entry: bytes) -> None:
    body = b"[" + b",".join([entry] * N) + b"]"
    tracemalloc.start()
    parsed = from_json(body)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(parsed) == N
    assert taken - 2000 <= count_bytes(body) <= 10 * max(taken, len(body))


def test_what_is_inside_a_text_is_text() -> None:
    assert count_bytes(b'["[1, 2, 0.5]"]') == count_bytes(b'["abcdefghijk"]')
    assert count_bytes(rb'["a\"b", 1]') < count_bytes(rb'["a\"b", 1, 1]')


@pytest.mark.parametrize("entry", [b"1", b"0.5", b"[]", b"{}"])
def test_many_small_values_are_refused_before_they_are_parsed(entry: bytes) -> None:
    n = bodies.MAX_PARSED_BYTES // 9 + 1 if entry == b"1" else bodies.MAX_PARSED_BYTES // 40
    body = bytearray(b'{"a": [' + (entry + b",") * n + b"1]}")  # as it comes from the network
    tracemalloc.start()
    with pytest.raises(TooLargeError, match="send fewer annotations at once"):
        bodies.parse_object(body)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 * 2**20


def test_an_annotation_of_a_large_image_is_read() -> None:
    stream = b", ".join([b"255"] * 1_000_000)
    assert len(bodies.parse_object(b'{"rle": [' + stream + b"]}")["rle"]) == 1_000_000


def test_a_body_is_counted_by_the_same_machine_code_whatever_holds_it() -> None:
    body = b"[1, 2, 0.5]"
    assert count_bytes(body) == count_bytes(bytearray(body))
    assert len(body_weight._count.signatures) == 1
