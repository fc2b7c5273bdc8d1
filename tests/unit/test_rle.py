"""The brush stream codec: what the browser paints, what others write, and what nobody may send."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from label_studio_sdk.converter.brush import decode_rle as sdk_decode
from label_studio_sdk.converter.brush import encode_rle as sdk_encode

from core import rle
from core.errors import RLEError

FIXTURES = Path(__file__).parents[1] / "fixtures" / "label_studio"
HEADER = [57, 27, 254]  # what the browser writes after the count, up to the first bits of the first block

unhurried = settings(deadline=None)  # a busy machine is not a wrong codec
SMALL_SHAPES = npst.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=12)


def load(name: str) -> Any:
    return json.loads((FIXTURES / f"{name}.json").read_text())


def brush_regions(node: Any) -> Iterator[dict[str, Any]]:
    """Every region with an RLE, anywhere in a recorded document."""
    if isinstance(node, dict):
        if isinstance(node.get("value"), dict) and "rle" in node["value"] and "original_width" in node:
            yield node
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from brush_regions(child)


def region_shape(region: dict[str, Any]) -> tuple[int, int]:
    return region["original_height"], region["original_width"]


def recorded_regions(pattern: str) -> list[Any]:
    return [
        pytest.param(region, id=f"{path.stem}-{k}")
        for path in sorted(FIXTURES.glob(f"{pattern}.json"))
        for k, region in enumerate(brush_regions(json.loads(path.read_text())))
    ]


@pytest.fixture(autouse=True, scope="module")
def compiled() -> None:
    """Compile before the clock of a test runs."""
    rle.warm_up()


class BitWriter:
    """A slow writer of any legal stream, to have something that shares no line with the codec."""

    def __init__(self, n_values: int, word_bits: int, sizes: tuple[int, ...]) -> None:
        self.word_bits, self.sizes = word_bits, sizes
        self.bits = f"{n_values:032b}{word_bits - 1:05b}" + "".join(f"{size - 1:04b}" for size in sizes)

    def block(self, kind: int, choice: int, values: list[int], count: int) -> None:
        self.bits += f"{kind}{choice:02b}{count - 1:0{self.sizes[choice]}b}"
        self.bits += "".join(f"{value:0{self.word_bits}b}" for value in values)

    def to_list(self) -> list[int]:
        padded = self.bits + "0" * (-len(self.bits) % 8)
        return [int(padded[at : at + 8], 2) for at in range(0, len(padded), 8)]


@st.composite
def legal_streams(draw: st.DrawFn) -> tuple[list[int], np.ndarray]:
    """A stream of any word and run sizes with an alpha in any block structure, and the alpha it holds."""
    word_bits = draw(st.integers(1, 32))
    sizes = tuple(draw(st.lists(st.integers(1, 16), min_size=4, max_size=4)))
    shape = draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    n_values = shape[0] * shape[1] * 4
    writer, values = BitWriter(n_values, word_bits, sizes), []
    any_alpha = st.integers(0, min(255, (1 << word_bits) - 1))
    while len(values) < n_values:
        choice = draw(st.integers(0, 3))
        count = draw(st.integers(1, min(1 << sizes[choice], n_values - len(values))))
        kind = draw(st.integers(0, 1))
        words = draw(st.lists(any_alpha, min_size=1 if kind else count, max_size=1 if kind else count))
        writer.block(kind, choice, words, count)
        values += words * count if kind else words
    return writer.to_list(), np.array(values, np.uint8).reshape(*shape, 4)[..., 3]


# What the browser writes


@pytest.mark.parametrize("name", load("browser_rle_expectations"))
def test_a_browser_stroke_decodes_to_the_pixels_that_were_painted(name: str) -> None:
    expected = load("browser_rle_expectations")[name]
    recording, region_id = name.split(":")
    regions = brush_regions(load(f"{recording}.annotation_response"))
    region = next(region for region in regions if region["id"] == region_id)
    alpha = rle.decode(region["value"]["rle"], region_shape(region))
    assert alpha.shape == tuple(expected["size"][::-1])
    assert np.count_nonzero(alpha) == expected["gt0"]
    assert np.count_nonzero(alpha >= 128) == expected["ge128"]
    assert np.count_nonzero(alpha == 255) == expected["eq255"]
    assert len(np.unique(alpha)) == expected["distinct_alpha"]


@pytest.mark.parametrize("region", recorded_regions("browser_*"))
def test_encoding_a_browser_mask_again_gives_the_browsers_bytes(region: dict[str, Any]) -> None:
    stream = region["value"]["rle"]
    assert rle.encode(rle.decode(stream, region_shape(region))) == stream


@pytest.mark.parametrize("region", recorded_regions("[!b]*"))
def test_streams_that_the_sdk_wrote_differ_by_a_last_zero_at_most(region: dict[str, Any]) -> None:
    stream = region["value"]["rle"]
    ours = rle.encode(rle.decode(stream, region_shape(region)))
    assert stream in (ours, [*ours, 0])


@pytest.mark.parametrize("name", load("rle_masks"))
def test_the_recorded_small_masks_decode_to_their_alpha_rows(name: str) -> None:
    mask = load("rle_masks")[name]
    alpha = rle.decode(mask["rle"], (mask["height"], mask["width"]))
    if mask["alpha_rows"] is not None:  # left out of the large ones
        assert alpha.tolist() == mask["alpha_rows"]
    assert np.count_nonzero(alpha >= 128) == mask["painted_ge_128"]


def test_a_run_of_more_than_16384_pixels_is_split_like_the_browser_does() -> None:
    stream = rle.encode(np.ones((1, 2 * 16384 + 1), bool))
    writer = BitWriter(4 * (2 * 16384 + 1), 8, (3, 4, 8, 16))
    for count in (65536, 65536):
        writer.block(1, 3, [255], count)
    writer.block(1, 0, [255], 4)
    assert stream == writer.to_list()


def test_a_stream_that_ends_on_a_byte_gets_no_padding_byte() -> None:
    assert rle.encode(np.ones((5, 7), bool)) == [0, 0, 0, 140, *HEADER, 139, 255]


# Round trips


@unhurried
@given(npst.arrays(np.bool_, SMALL_SHAPES))
def test_a_bool_mask_comes_back_as_0_and_255(mask: np.ndarray) -> None:
    assert np.array_equal(rle.decode(rle.encode(mask), mask.shape), mask * np.uint8(255))


@unhurried
@given(npst.arrays(np.uint8, SMALL_SHAPES))
def test_alpha_comes_back_as_it_was(alpha: np.ndarray) -> None:
    assert np.array_equal(rle.decode(rle.encode(alpha), alpha.shape), alpha)


@unhurried
@given(npst.arrays(np.uint8, SMALL_SHAPES, elements=st.sampled_from([0, 0, 0, 9, 255])))
def test_a_box_is_the_smallest_rectangle_with_all_painted_pixels(alpha: np.ndarray) -> None:
    top, left, crop = rle.decode_box(rle.encode(alpha), alpha.shape)
    whole = np.zeros_like(alpha)
    whole[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
    assert np.array_equal(whole, alpha)
    rows, columns = np.nonzero(alpha)
    expected = (np.ptp(rows) + 1, np.ptp(columns) + 1) if rows.size else (0, 0)
    assert crop.shape == expected


@unhurried
@given(legal_streams())
def test_any_word_size_run_sizes_and_block_structure_decode(example: tuple[list[int], np.ndarray]) -> None:
    stream, alpha = example
    assert np.array_equal(rle.decode(stream, alpha.shape), alpha)
    top, left, crop = rle.decode_box(stream, alpha.shape)
    assert np.array_equal(alpha[top : top + crop.shape[0], left : left + crop.shape[1]], crop)
    assert np.count_nonzero(crop) == np.count_nonzero(alpha)


@unhurried
@given(npst.arrays(np.uint8, npst.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)))
def test_label_studios_own_codec_reads_and_writes_the_same(alpha: np.ndarray) -> None:
    stream = rle.encode(alpha)
    assert np.array_equal(sdk_decode(stream).reshape(*alpha.shape, 4)[..., 3], alpha)
    theirs = sdk_encode(np.repeat(alpha.ravel(), 4))
    assert theirs[: len(stream)] == stream
    assert theirs[len(stream) :] in ([], [0])  # the SDK pads a stream that ends on a byte
    assert np.array_equal(rle.decode(theirs, alpha.shape), alpha)


@pytest.mark.parametrize("order", ["C", "F"])
def test_slices_and_column_order_do_not_matter(order: Any) -> None:
    alpha = np.asarray(np.arange(120, dtype=np.uint8).reshape(10, 12), order=order)
    for view in (alpha, alpha[::2, ::3], alpha[1:, 5:], alpha.T):
        assert np.array_equal(rle.decode(rle.encode(view), view.shape), view)


@pytest.mark.parametrize("convert", [tuple, bytes, bytearray, memoryview, np.array, np.uint8, np.int64])
def test_a_stream_may_come_as_any_sequence_of_bytes(convert: Any) -> None:
    mask = np.eye(5, dtype=bool)
    stream = bytes(rle.encode(mask)) if convert is memoryview else rle.encode(mask)
    assert np.array_equal(rle.decode(convert(stream), mask.shape) > 0, mask)


# What nobody may send

EYE = np.eye(6, dtype=bool)
STREAM = rle.encode(EYE)


def test_every_shortened_stream_is_refused() -> None:
    for length in range(len(STREAM)):
        with pytest.raises(RLEError, match=r"shorter than its header|ends too early|cannot hold"):
            rle.decode(STREAM[:length], EYE.shape)
        with pytest.raises(RLEError):
            rle.decode_box(STREAM[:length], EYE.shape)


def test_what_follows_the_last_value_is_ignored() -> None:
    assert np.array_equal(rle.decode([*STREAM, 255, 7, 0], EYE.shape) > 0, EYE)


@pytest.mark.parametrize("shape", [(6, 7), (5, 6), (0, 6), (1, 1), (60000, 60000)])
def test_a_stream_of_another_size_is_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(RLEError, match=f"announces 144 values, but 4 channels of {shape[0]} x {shape[1]}"):
        rle.decode(STREAM, shape)


def test_a_stream_with_one_channel_is_refused_with_a_hint() -> None:
    with pytest.raises(RLEError, match=r"announces 36 values [(]one per pixel"):
        rle.decode(sdk_encode(EYE.ravel() * np.uint8(255)), EYE.shape)


def test_a_stream_holds_as_many_values_as_its_bits_and_no_more() -> None:
    """Its 43 bits after the header hold 104,373 values at most: 65,536 for each 27 bits."""
    for shape, message in (((100, 260), "ends too early"), ((100, 261), "cannot hold")):
        claimed = (4 * shape[0] * shape[1]).to_bytes(4, "big")
        with pytest.raises(RLEError, match=message):
            rle.decode([*claimed, *HEADER, 255, 255, 0, 0, 0], shape)


@pytest.mark.parametrize("decode", [rle.decode, rle.decode_box])
def test_a_short_stream_cannot_claim_a_huge_image(decode: Any) -> None:
    huge = (30_000, 30_000)
    stream = [*(4 * huge[0] * huge[1]).to_bytes(4, "big"), *HEADER, 255, 255, 0, 0, 0]
    tracemalloc.start()
    try:
        with pytest.raises(RLEError, match="12 bytes cannot hold the 3600000000 values"):
            decode(stream, huge)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("decode", [rle.decode, rle.decode_box])
@pytest.mark.parametrize("kind", [0, 1])
def test_a_block_with_more_values_than_are_left_is_refused(decode: Any, kind: int) -> None:
    writer = BitWriter(8, 8, (3, 4, 8, 16))
    writer.block(1, 0, [255], 4)
    writer.block(kind, 0, [255] * (1 if kind else 5), 5)
    with pytest.raises(RLEError, match="more values than are left after 4 of 8 values"):
        decode(writer.to_list(), (1, 2))


@pytest.mark.parametrize("decode", [rle.decode, rle.decode_box])
def test_alpha_above_255_is_refused_and_colour_above_255_is_not(decode: Any) -> None:
    for values, legal in (([300, 70000, 256, 255], True), ([0, 0, 0, 256], False)):
        writer = BitWriter(4, 17, (3, 4, 8, 16))
        writer.block(0, 0, values, 4)
        if legal:
            assert np.max(decode(writer.to_list(), (1, 1))[-1]) == 255
        else:
            with pytest.raises(RLEError, match="alpha above 255"):
                decode(writer.to_list(), (1, 1))


@pytest.mark.parametrize(
    ("element", "shown"),
    [
        (256, "is 256"),
        (-1, "is -1"),
        (3.0, r"is 3\.0"),
        ("7", "is '7'"),
        (None, "is None"),
        ([1] * 9999, r"is \[1, 1, "),
        (10**9999, "33216 bits"),
        (1e999, "is inf"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
@pytest.mark.parametrize("at", [2, 9])
def test_an_element_that_is_no_byte_is_named_with_its_place(element: Any, shown: str, at: int) -> None:
    stream: list[Any] = list(STREAM)
    stream[at] = element
    with pytest.raises(RLEError, match=f"^element {at} of the stream .*{shown}") as caught:
        rle.decode(stream, EYE.shape)
    assert len(str(caught.value)) < 150


@pytest.mark.parametrize(
    "stream",
    [
        None,
        10**12,
        3.5,
        "0123456789",
        {0: 1},
        set(STREAM),
        iter(STREAM),
        np.zeros((4, 4), int),
        np.zeros(20),
        np.ones(20, bool),
    ],
    ids=lambda value: type(value).__name__,
)
def test_something_else_than_a_list_of_integers_is_refused(stream: Any) -> None:
    with pytest.raises(RLEError, match="a brush stream is"):
        rle.decode(stream, EYE.shape)


@pytest.mark.parametrize("wrong", [256, -1])
@pytest.mark.parametrize("convert", [np.array, list])
def test_a_value_that_is_no_byte_is_named_though_all_bytes_came_before_it(convert: Any, wrong: int) -> None:
    stream = convert([*STREAM, *range(256), wrong])
    with pytest.raises(RLEError, match=f"element {len(STREAM) + 256} of the stream is {wrong},"):
        rle.decode(stream, EYE.shape)


@pytest.mark.parametrize(("n_bits", "shown"), [(64, str(2**63)), (65, "an integer of 65 bits")])
def test_only_an_integer_that_no_machine_word_holds_is_described_by_its_length(
    n_bits: int, shown: str
) -> None:
    with pytest.raises(RLEError, match=f"element 9 of the stream is {shown}, not"):
        rle.decode([*STREAM[:9], 1 << (n_bits - 1)], EYE.shape)


def test_a_stream_that_changes_while_it_is_read_is_refused() -> None:
    class Changing(list[int]):
        n_read = 0

        def __iter__(self) -> Iterator[int]:
            self.n_read += 1
            return iter([256] if self.n_read == 1 else list(range(7)))

    class Other(Sequence[int]):
        def __init__(self) -> None:
            self.values = Changing(STREAM)

        def __len__(self) -> int:
            return len(STREAM)

        def __getitem__(self, at: Any) -> Any:
            return STREAM[at]

        def __iter__(self) -> Iterator[int]:
            return iter(self.values)

    with pytest.raises(RLEError, match="changed while it was read"):
        rle.decode(Other(), EYE.shape)


@pytest.mark.parametrize("decode", [rle.decode, rle.decode_box])
def test_what_is_wrong_with_a_block_is_said_with_its_place(decode: Any) -> None:
    writer = BitWriter(8, 8, (3, 4, 8, 16))
    writer.block(1, 0, [255], 4)
    stream = writer.to_list()
    with pytest.raises(RLEError, match="9 bytes hold no whole block after 4 of 8 values"):
        decode(stream, (1, 2))
    writer.block(1, 0, [255], 5)
    with pytest.raises(RLEError, match="block that ends at byte 10 holds more values than are left after 4"):
        decode(writer.to_list(), (1, 2))
    too_opaque = BitWriter(8, 9, (3, 4, 8, 16))
    too_opaque.block(1, 0, [1], 4)
    too_opaque.block(1, 0, [256], 4)
    with pytest.raises(RLEError, match="block that ends at byte 10 has an alpha above 255 after 8 of"):
        decode(too_opaque.to_list(), (1, 2))


def test_a_memoryview_of_wider_integers_is_read_by_value_and_not_by_memory() -> None:
    assert np.array_equal(rle.decode(memoryview(np.array(STREAM)), EYE.shape) > 0, EYE)


@pytest.mark.parametrize(
    "mask", [np.zeros(4, bool), np.zeros((2, 2, 4), np.uint8), np.zeros((2, 2)), np.ones((2, 2), int)]
)
def test_only_a_bool_or_uint8_mask_can_be_encoded(mask: Any) -> None:
    with pytest.raises(ValueError, match="a mask is"):
        rle.encode(mask)


@pytest.mark.parametrize("shape", [(-1, 4), (4, -1)])
def test_a_negative_image_size_is_wrong_use(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"{shape[0]} x {shape[1]} pixels"):
        rle.decode(STREAM, shape)


def test_a_mask_of_more_pixels_than_the_format_counts_is_refused() -> None:
    huge = np.broadcast_to(np.zeros((1, 1), bool), (1 << 15, (1 << 15) + 1))  # takes no memory
    with pytest.raises(ValueError, match="the format counts up to 4294967295"):
        rle.encode(huge)


def test_an_image_without_pixels_has_a_stream_that_is_a_header() -> None:
    stream = rle.encode(np.zeros((0, 3), bool))
    assert stream == [0, 0, 0, 0, 57, 27, 248]
    assert rle.decode(stream, (0, 3)).shape == (0, 3)
    assert rle.decode_box(stream, (0, 3))[2].shape == (0, 0)


# The compiled part


def run_python(code: str, **environment: str) -> str:
    command = [sys.executable, "-c", code]
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=root, env={**os.environ, **environment}
    )
    return done.stdout


def test_importing_the_codec_does_not_import_the_compiler() -> None:
    assert run_python("import sys, core.rle; print('numba' in sys.modules)") == "False\n"


def test_what_was_compiled_once_is_read_from_disk_the_next_time(tmp_path: Path) -> None:
    code = (
        "import numpy, core.rle as rle; rle.encode(numpy.ones((1, 1), bool)); import core.rle._kernels as k;"
        "print(sum(k.write_blocks.stats.cache_misses.values()))"
    )
    assert run_python(code, NUMBA_CACHE_DIR=str(tmp_path)) == "1\n"
    assert run_python(code, NUMBA_CACHE_DIR=str(tmp_path)) == "0\n"


def test_a_kernel_is_compiled_in_memory_where_nothing_can_be_cached() -> None:
    from core.rle._kernels import _compiled

    without_source_file = eval("lambda x: x + 1")
    assert _compiled(without_source_file)(2) == 3


def test_warming_up_needs_nothing_and_changes_nothing() -> None:
    rle.warm_up()
    assert rle.encode(EYE) == STREAM


def test_no_kind_of_stream_or_mask_waits_for_the_compiler_after_the_warm_up() -> None:
    from core.rle import _kernels

    closed = EYE.copy()
    closed.flags.writeable = False
    streams = [STREAM, bytes(STREAM), bytearray(STREAM), np.array(STREAM), memoryview(bytes(STREAM))]
    for stream in streams:
        assert np.array_equal(rle.decode(stream, EYE.shape) > 0, EYE)
        rle.decode_box(stream, EYE.shape)
    for mask in (EYE, closed, closed.astype(np.uint8), EYE.T):
        rle.encode(mask)
    kernels = (_kernels.fill, _kernels.scan, _kernels.count_bits, _kernels.write_blocks)
    assert [len(kernel.signatures) for kernel in kernels] == [1, 1, 1, 1]
