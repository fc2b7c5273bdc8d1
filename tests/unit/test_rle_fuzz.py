"""A hundred thousand streams that nobody should send: always a mask of the right size or an `RLEError`."""

from __future__ import annotations

import random
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice

import numpy as np
import pytest

from core import rle
from core.errors import RLEError

N_STREAMS = 100_000
SEED = 20_260
MOST_BYTES = 400
SHAPES = [(1, 1), (3, 5), (16, 16), (64, 33), (200, 300)]
BYTES_BESIDE_THE_IMAGE = 100_000
"""What one call may take besides its mask: copies of the stream, the message of an error."""
MOST_SECONDS_OF_ONE = 2.0
"""A legal call here takes some 10 µs; the rest is for a machine that does other things as well."""


def header(n_values: int, word_bits: int, sizes: list[int]) -> bytes:
    bits = (n_values << 5) | (word_bits - 1)
    for size in sizes:
        bits = (bits << 4) | (size - 1)
    return (bits << 3).to_bytes(7, "big")


def legal_streams(chance: random.Random) -> dict[tuple[int, int], list[bytes]]:
    rng = np.random.default_rng(chance.randrange(1 << 32))
    streams = {}
    for shape in SHAPES:
        sparse = [
            (rng.random(shape) < share).astype(np.uint8) * rng.integers(1, 256) for share in (0.01, 0.1)
        ]
        stripes = np.broadcast_to(np.arange(shape[0])[:, None] // 3 % 2 == 1, shape)
        streams[shape] = [bytes(rle.encode(mask.astype(np.uint8))) for mask in (*sparse, stripes * 255)]
    return streams


def mutate(stream: bytes, chance: random.Random) -> bytes:
    """Flip bits, overwrite, cut, double and exchange parts of a legal stream."""
    data = bytearray(stream[: chance.randrange(8, MOST_BYTES)])
    for _ in range(chance.randrange(1, 5)):
        at = chance.randrange(len(data))
        what = chance.randrange(6)
        if what == 0:
            data[at] ^= 1 << chance.randrange(8)
        elif what == 1:
            data[at] = chance.choice((0, 1, 127, 128, 254, 255))
        elif what == 2:
            del data[at : at + chance.randrange(1, 9)]
        elif what == 3:
            data[at:at] = chance.randbytes(chance.randrange(1, 9))
        elif what == 4:
            data[at:at] = data[chance.randrange(len(data)) :][:50]
        else:
            data[4:7] = chance.randbytes(3)  # word and run sizes
        data = data or bytearray(1)
    return bytes(data)


def hostile_streams(chance: random.Random) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """Random bytes, random blocks behind a header that fits, and mutated streams, in turn."""
    legal = legal_streams(chance)
    for k in range(N_STREAMS):
        shape = chance.choice(SHAPES)
        if k % 4 == 0:
            stream = chance.randbytes(chance.randrange(MOST_BYTES))
        elif k % 4 == 1:
            sizes = [chance.randrange(1, 17) for _ in range(4)]
            head = header(shape[0] * shape[1] * 4, chance.randrange(1, 33), sizes)
            stream = head + chance.randbytes(chance.randrange(MOST_BYTES))
        else:
            stream = mutate(chance.choice(legal[shape]), chance)
        yield stream, shape


def decode_both_ways(stream: bytes | list[int], shape: tuple[int, int]) -> bool:
    """Whether the stream is legal; both decoders have to agree, and to keep their promises if it is."""
    try:
        alpha = rle.decode(stream, shape)
    except RLEError:
        with pytest.raises(RLEError, match=r"^.{10,200}$"):
            rle.decode_box(stream, shape)
        return False
    assert alpha.shape == shape
    assert alpha.dtype == np.uint8
    top, left, crop = rle.decode_box(stream, shape)
    assert np.array_equal(alpha[top : top + crop.shape[0], left : left + crop.shape[1]], crop)
    assert np.count_nonzero(alpha) == np.count_nonzero(crop)
    return True


def test_a_hundred_thousand_hostile_streams_give_a_mask_or_an_rle_error() -> None:
    rle.warm_up()
    chance = random.Random(SEED)
    n_legal, longest_s = 0, 0.0
    for k, (stream, shape) in enumerate(hostile_streams(chance)):
        began = time.process_time()
        n_legal += decode_both_ways(list(stream) if k % 3 else stream, shape)
        longest_s = max(longest_s, time.process_time() - began)
    assert longest_s < MOST_SECONDS_OF_ONE
    # Neither all refused nor all let through: the streams reach the block reader, and its end.
    assert N_STREAMS // 100 < n_legal < N_STREAMS // 2


@pytest.mark.parametrize("n_streams", [N_STREAMS // 10, pytest.param(N_STREAMS, marks=pytest.mark.thorough)])
def test_a_hostile_stream_takes_no_more_memory_than_its_image(n_streams: int) -> None:
    rle.warm_up()
    for stream, shape in islice(hostile_streams(random.Random(SEED)), 500):
        with suppress(RLEError):  # what is made at a first call, is not made for a stream
            rle.decode(stream, shape)
    chance = random.Random(SEED + 1)
    tracemalloc.start()
    try:
        for stream, shape in islice(hostile_streams(chance), n_streams):
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            with suppress(RLEError):
                rle.decode(stream, shape)
            taken = tracemalloc.get_traced_memory()[1] - before
            assert taken < shape[0] * shape[1] + BYTES_BESIDE_THE_IMAGE
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("n_values", [2**32 - 1, 2**32 - 4, 2**31, 2**31 - 1])
def test_a_count_near_the_end_of_its_field_is_only_a_number(n_values: int) -> None:
    stream = header(n_values, 32, [16, 16, 16, 16]) + bytes(MOST_BYTES)
    for shape in [(1, 1), (1 << 15, 1 << 15), (1 << 16, 1 << 16), (n_values // 4, 1)]:
        with pytest.raises(RLEError, match="announces"):
            rle.decode(stream, shape)


def test_the_longest_work_for_a_short_stream_is_that_of_its_image() -> None:
    rle.warm_up()
    shape = (4096, 4096)
    n_runs = shape[0] * shape[1] * 4 // 65536
    block = f"111{65535:016b}{255:08b}" * n_runs
    bits = f"{int.from_bytes(header(4 * shape[0] * shape[1], 8, [3, 4, 8, 16]), 'big') >> 3:053b}" + block
    bits += "0" * (-len(bits) % 8)
    began = time.process_time()
    assert rle.decode(int(bits, 2).to_bytes(len(bits) // 8, "big"), shape).min() == 255
    assert time.process_time() - began < MOST_SECONDS_OF_ONE
