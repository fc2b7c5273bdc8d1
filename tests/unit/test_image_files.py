"""Image files: every layout to `(H, W, C)`, sizes checked before decoding, damage always an `ImageError`."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps, PngImagePlugin

from core.errors import ImageError
from ingest.turning import turn
from ml_backend.label_studio.image_files import read_image, read_size
from ml_backend.label_studio.image_frame import ImageLimits

LIMITS = ImageLimits(max_bytes=10_000_000, max_pixels=1_000_000)
RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (20, 30, 3), np.uint8)
DEEP = RNG.integers(0, 65536, (20, 30, 3), np.uint16)


def save(path: Path, pixels: Any, **options: Any) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.webp"])
def test_colour_comes_back_as_it_was(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / name, COLOUR, **({"lossless": True} if name.endswith("webp") else {}))
    assert np.array_equal(read_image(path, LIMITS), COLOUR)


def test_a_jpeg_is_colour_of_its_size(tmp_path: Path) -> None:
    pixels = read_image(save(tmp_path / "a.jpg", COLOUR), LIMITS)
    assert (pixels.shape, pixels.dtype) == ((20, 30, 3), np.uint8)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.tif"])
def test_grey_has_one_channel(tmp_path: Path, name: str) -> None:
    assert read_image(save(tmp_path / name, COLOUR[:, :, 0]), LIMITS).shape == (20, 30, 1)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bits_of_grey_are_kept(tmp_path: Path, name: str) -> None:
    pixels = read_image(save(tmp_path / name, DEEP[:, :, 0]), LIMITS)
    assert pixels.dtype == np.uint16
    assert np.array_equal(pixels, DEEP[:, :, :1])


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bits_of_colour_are_kept(tmp_path: Path, name: str) -> None:
    cv2.imwrite(str(tmp_path / name), DEEP[:, :, ::-1])  # OpenCV writes blue first
    assert np.array_equal(read_image(tmp_path / name, LIMITS), DEEP)


def test_alpha_is_dropped_without_blending(tmp_path: Path) -> None:
    alpha = RNG.integers(0, 256, (20, 30, 1), np.uint8)
    path = save(tmp_path / "a.png", np.concatenate([COLOUR, alpha], axis=2))
    assert np.array_equal(read_image(path, LIMITS), COLOUR)
    grey = save(tmp_path / "g.png", np.concatenate([COLOUR[:, :, :1], alpha], axis=2))
    assert np.array_equal(read_image(grey, LIMITS), COLOUR[:, :, :1])
    deep_alpha = np.full((20, 30, 1), 40_000, np.uint16)
    cv2.imwrite(str(tmp_path / "d.png"), np.concatenate([DEEP[:, :, ::-1], deep_alpha], axis=2))
    assert np.array_equal(read_image(tmp_path / "d.png", LIMITS), DEEP)
    tifffile.imwrite(
        tmp_path / "a.tif",
        np.concatenate([COLOUR, alpha], axis=2),
        photometric="rgb",
        extrasamples=["unassalpha"],
    )
    assert np.array_equal(read_image(tmp_path / "a.tif", LIMITS), COLOUR)


EXTRA = "unspecified"
ALPHA = ["assocalpha", "unassalpha"]


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("n_channels", [2, 3, 4, 5])
@pytest.mark.parametrize("is_planar", [False, True])
def test_every_channel_of_a_tiff_is_kept_as_stored(
    tmp_path: Path, n_channels: int, kind: Any, compression: str | None, is_planar: bool
) -> None:
    pixels = RNG.integers(0, np.iinfo(kind).max, (20, 30, n_channels), kind)
    tifffile.imwrite(
        tmp_path / "a.tif",
        pixels.transpose(2, 0, 1) if is_planar else pixels,
        photometric="minisblack",
        planarconfig="separate" if is_planar else "contig",
        compression=compression,
    )
    assert np.array_equal(read_image(tmp_path / "a.tif", LIMITS), pixels)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    ("photometric", "extra", "kept"),
    [
        ("minisblack", ["unassalpha"], [0]),
        ("minisblack", [EXTRA, "unassalpha"], [0, 1]),
        ("minisblack", ["assocalpha", EXTRA], [0, 2]),
        ("rgb", [EXTRA], [0, 1, 2, 3]),
        ("rgb", ["unassalpha"], [0, 1, 2]),
        ("rgb", ["assocalpha"], [0, 1, 2]),
        ("rgb", ["unassalpha", EXTRA], [0, 1, 2, 4]),
        ("rgb", [EXTRA, EXTRA], [0, 1, 2, 3, 4]),
    ],
)
def test_only_what_a_tiff_calls_alpha_is_dropped(
    tmp_path: Path, photometric: str, extra: list[str], kept: list[int], kind: Any, compression: str | None
) -> None:
    n_channels = len(extra) + (3 if photometric == "rgb" else 1)
    pixels = RNG.integers(0, np.iinfo(kind).max, (20, 30, n_channels), kind)
    options = {"photometric": photometric, "planarconfig": "contig", "extrasamples": extra}
    tifffile.imwrite(tmp_path / "a.tif", pixels, compression=compression, **options)
    assert np.array_equal(read_image(tmp_path / "a.tif", LIMITS), pixels[:, :, kept])


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_adobe_deflate"])
@pytest.mark.parametrize(("mode", "n_kept"), [("LA", 1), ("RGBA", 3), ("RGBX", 4), ("CMYK", 4)])
def test_channels_of_a_compressed_tiff_of_pillow_are_neither_lost_nor_blended(
    tmp_path: Path, mode: str, n_kept: int, compression: str
) -> None:
    pixels = RNG.integers(0, 256, (20, 30, len(mode)), np.uint8)
    image = Image.frombytes(mode, (30, 20), pixels.tobytes())
    image.save(tmp_path / "a.tif", compression=compression)
    assert np.array_equal(read_image(tmp_path / "a.tif", LIMITS), pixels[:, :, :n_kept])


def test_sixteen_bits_with_alpha_of_opencv_keep_their_colours(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 65536, (20, 30, 4), np.uint16)
    cv2.imwrite(str(tmp_path / "a.tif"), pixels[:, :, [2, 1, 0, 3]])
    assert np.array_equal(read_image(tmp_path / "a.tif", LIMITS)[:, :, :3], pixels[:, :, :3])


def test_channels_that_cannot_be_read_are_refused_and_not_left_out(tmp_path: Path) -> None:
    """LZW of two 16-bit channels: what is at hand would give one of them, and in silence."""
    pixels = RNG.integers(0, 256, (20, 30, 2), np.uint8)
    Image.frombytes("LA", (30, 20), pixels.tobytes()).save(tmp_path / "a.tif", compression="tiff_lzw")
    raw = (tmp_path / "a.tif").read_bytes()
    bits = struct.pack("<HHIHH", 258, 3, 2, 8, 8)
    assert bits in raw
    (tmp_path / "a.tif").write_bytes(raw.replace(bits, struct.pack("<HHIHH", 258, 3, 2, 16, 16)))
    with pytest.raises(ImageError):
        read_image(tmp_path / "a.tif", LIMITS)


@pytest.mark.parametrize("name", ["a.png", "a.webp"])
def test_alpha_of_what_browsers_show_is_alpha(tmp_path: Path, name: str) -> None:
    pixels = np.concatenate([COLOUR, np.full((20, 30, 1), 200, np.uint8)], axis=2)
    Image.fromarray(pixels).save(tmp_path / name, lossless=True, exact=True)
    assert np.array_equal(read_image(tmp_path / name, LIMITS), COLOUR)


@pytest.mark.parametrize("name", ["p.png", "p.gif", "p.bmp", "p.tif"])
def test_a_palette_becomes_colour(tmp_path: Path, name: str) -> None:
    image = Image.fromarray(COLOUR).quantize(16)
    image.save(tmp_path / name)
    assert np.array_equal(read_image(tmp_path / name, LIMITS), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize(("name", "options"), [("b.png", {}), ("b.tif", {"compression": "group4"})])
def test_single_bits_are_black_and_white(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    bits = COLOUR[:, :, 0] > 100
    pixels = read_image(save(tmp_path / name, bits, **options), LIMITS)
    assert np.array_equal(pixels[:, :, 0], bits * np.uint8(255))


def test_cmyk_becomes_colour(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).convert("CMYK").save(tmp_path / "c.jpg")
    assert read_image(tmp_path / "c.jpg", LIMITS).shape == (20, 30, 3)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"])
def test_compressed_tiffs_of_other_programs_are_read(tmp_path: Path, compression: str) -> None:
    pixels = read_image(save(tmp_path / "a.tif", COLOUR, compression=compression), LIMITS)
    assert pixels.shape == (20, 30, 3)
    if compression != "jpeg":
        assert np.array_equal(pixels, COLOUR)


@pytest.mark.parametrize(
    "options", [{"imagej": True}, {}, {"compression": "zlib"}, {"planarconfig": "contig"}]
)
def test_a_tiff_may_have_any_number_of_channels(tmp_path: Path, options: dict[str, Any]) -> None:
    pixels = RNG.integers(0, 65536, (20, 30, 7), np.uint16)
    if "planarconfig" in options:
        tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", **options)
    else:
        tifffile.imwrite(tmp_path / "a.tif", pixels.transpose(2, 0, 1), metadata={"axes": "CYX"}, **options)
    assert np.array_equal(read_image(tmp_path / "a.tif", LIMITS), pixels)


def test_pages_that_nobody_named_are_channels(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (20, 30, 5), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels.transpose(2, 0, 1))
    assert np.array_equal(read_image(tmp_path / "a.tif", LIMITS), pixels)


def test_a_stack_is_no_picture(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif", np.zeros((4, 20, 30), np.uint8), imagej=True, metadata={"axes": "ZYX"}
    )
    with pytest.raises(ImageError, match="axes are ZYX"):
        read_image(tmp_path / "a.tif", LIMITS)


@pytest.mark.parametrize("kind", [np.float32, np.int16, np.uint32])
def test_numbers_that_are_neither_8_nor_16_bits_are_refused(tmp_path: Path, kind: Any) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((20, 30), kind))
    with pytest.raises(ImageError, match="not supported"):
        read_image(tmp_path / "a.tif", LIMITS)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turning_follows_the_exif_standard(orientation: int) -> None:
    image = Image.fromarray(COLOUR)
    image.getexif()[0x0112] = orientation
    assert np.array_equal(turn(COLOUR, orientation), np.asarray(ImageOps.exif_transpose(image)))


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


@pytest.mark.parametrize(("name", "is_turned"), [("a.jpg", True), ("a.png", True), ("a.webp", False)])
def test_exif_orientation_is_applied_where_the_browser_does(
    tmp_path: Path, name: str, is_turned: bool
) -> None:
    path = save(tmp_path / name, COLOUR, exif=exif(6))
    expected = (30, 20) if is_turned else (20, 30)
    assert read_image(path, LIMITS).shape[:2] == expected
    assert read_size(path, LIMITS) == expected


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_size_of_a_tiff_is_read_from_its_header(tmp_path: Path, orientation: int) -> None:
    tags = [(274, "H", 1, orientation, True)]
    tifffile.imwrite(tmp_path / "a.tif", COLOUR, photometric="rgb", extratags=tags)
    size = read_size(tmp_path / "a.tif", LIMITS)
    assert size == read_image(tmp_path / "a.tif", LIMITS).shape[:2]
    assert size == ((30, 20) if orientation > 4 else (20, 30))


def test_a_turned_png_has_the_pixels_in_the_turned_frame(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", COLOUR, exif=exif(6))
    assert np.array_equal(read_image(path, LIMITS), np.rot90(COLOUR, k=-1))


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.webp", "a.gif", "a.tif"])
def test_too_many_pixels_are_refused_by_the_header(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / name, COLOUR)
    small = ImageLimits(max_bytes=10_000_000, max_pixels=599)
    for read in (read_image, read_size):
        with pytest.raises(ImageError, match="30 x 20 pixels"):
            read(path, small)


def test_too_many_bytes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="MB"):
        read_image(save(tmp_path / "a.bmp", COLOUR), ImageLimits(max_bytes=1000, max_pixels=10_000))


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def bomb_png(width: int, height: int, depth: int = 8, colour: int = 0) -> bytes:
    """A few kB that would decode to gigabytes."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    rows = zlib.compress(bytes(10_000_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def bomb_webp(width: int, height: int) -> bytes:
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes([2, 0, 0, 0]) + canvas
    return b"RIFF" + struct.pack("<I", len(body)) + body


def bomb_tiff(width: int, height: int) -> bytes:
    tags = [
        (256, 4, width),
        (257, 4, height),
        (258, 3, 8),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 8),
        (278, 4, height),
    ]
    tags += [(279, 4, 8)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<I", 16) + bytes(8) + struct.pack("<H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize(
    "bomb",
    [
        bomb_png(40_000, 40_000),
        bomb_png(40_000, 40_000, depth=16, colour=2),
        bomb_webp(16_383, 16_383),
        bomb_webp(1 << 24, 1 << 24),
        bomb_tiff(60_000, 60_000),
        b"BM" + struct.pack("<IIIIiiHH", 100, 0, 54, 40, 50_000, 50_000, 1, 24) + bytes(60),
        b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + bytes(20),
    ],
    ids=["png", "png16", "webp", "webp-huge", "tiff", "bmp", "gif"],
)
def test_a_decompression_bomb_is_refused_before_it_takes_memory(tmp_path: Path, bomb: bytes) -> None:
    path = tmp_path / "bomb"
    path.write_bytes(bomb)
    tracemalloc.start()
    with pytest.raises(ImageError):
        read_image(path, ImageLimits(max_bytes=10_000_000, max_pixels=120_000_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50_000_000


def test_a_tiff_segment_is_not_inflated_beyond_its_size(tmp_path: Path) -> None:
    pixels = np.zeros((5, 20, 30), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, metadata={"axes": "CYX"}, compression="zlib")
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        page = tiff.pages[0]
        offset, count = page.dataoffsets[0], page.tags["StripByteCounts"].valueoffset
    content = bytearray((tmp_path / "a.tif").read_bytes())
    bomb = zlib.compress(bytes(1_000_000))
    content[count : count + 4] = struct.pack("<I", len(bomb))
    content += bytes(max(0, offset + len(bomb) - len(content)))
    content[offset : offset + len(bomb)] = bomb
    (tmp_path / "b.tif").write_bytes(content)
    with pytest.raises(ImageError):
        read_image(tmp_path / "b.tif", LIMITS)


@pytest.mark.parametrize(
    "content", [b"", b"<html>401</html>", b"\x89PNG\r\n\x1a\n", b"II*\0", b"\xff\xd8\xff", b"BM"]
)
def test_what_is_no_image_is_an_image_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    for read in (read_image, read_size):
        with pytest.raises(ImageError):
            read(tmp_path / "a", LIMITS)


def test_a_png_that_ends_early_keeps_the_rows_that_are_there(tmp_path: Path) -> None:
    whole = save(tmp_path / "a.png", COLOUR).read_bytes()
    (tmp_path / "b.png").write_bytes(whole[: len(whole) // 2])
    pixels = read_image(tmp_path / "b.png", LIMITS)
    assert pixels.shape == COLOUR.shape
    assert np.array_equal(pixels[:8], COLOUR[:8])


@pytest.mark.parametrize("missing", [2, 40])
def test_a_jpeg_without_its_end_is_read(tmp_path: Path, missing: int) -> None:
    whole = save(tmp_path / "a.jpg", COLOUR, quality=95).read_bytes()
    (tmp_path / "b.jpg").write_bytes(whole[:-missing])
    pixels, expected = read_image(tmp_path / "b.jpg", LIMITS), read_image(tmp_path / "a.jpg", LIMITS)
    assert np.array_equal(pixels[:8], expected[:8])


def test_what_is_beside_the_pixels_of_a_png_may_be_large_or_damaged(tmp_path: Path) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_itxt("ImageJ", "x" * 2_000_000, zip=True)
    save(tmp_path / "text.png", COLOUR, pnginfo=text)
    save(tmp_path / "profile.png", COLOUR, icc_profile=RNG.bytes(1_500_000))
    plain = save(tmp_path / "plain.png", COLOUR).read_bytes()
    gamma = struct.pack(">I", 4) + b"gAMA" + struct.pack(">I", 45455) + b"\0\0\0\1"  # a wrong checksum
    (tmp_path / "gamma.png").write_bytes(plain[:33] + gamma + plain[33:])
    for name in ("text.png", "profile.png", "gamma.png"):
        assert np.array_equal(read_image(tmp_path / name, LIMITS), COLOUR), name
        assert read_size(tmp_path / name, LIMITS) == (20, 30)


def test_avif_is_read(tmp_path: Path) -> None:
    smooth = np.full((20, 30, 3), (40, 120, 200), np.uint8)
    pixels = read_image(save(tmp_path / "a.avif", smooth, quality=95), LIMITS)
    assert pixels.shape == smooth.shape
    assert np.abs(pixels.astype(int) - smooth).max() <= 4


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"<!doctype html><title>Sign in</title>", "HTML"),
        (b"\xef\xbb\xbf<html>", "HTML"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b'<?xml version="1.0"?>\n<!-- made by hand -->\n<svg/>', "SVG"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "storage's error"),
        (b'{"detail": "no"}', "JSON"),
        (b"%PDF-1.4", "PDF"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        (b"\0" * 128 + b"DICM", "DICOM"),
        (b"ZISRAWFILE\0\0", "CZI"),
        (b"\x93NUMPY\1\0", "NumPy"),
        (b"PK\3\4", "ZIP"),
        (b"version https://git-lfs.github.com/spec/v1", "LFS"),
        (b"just some words", "no format"),
    ],
)
def test_what_is_no_image_is_named_by_what_it_is_and_not_by_its_place(
    tmp_path: Path, content: bytes, kind: str
) -> None:
    (tmp_path / "scratch").write_bytes(content)
    for read in (read_image, read_size):
        with pytest.raises(ImageError, match=kind) as caught:
            read(tmp_path / "scratch", LIMITS)
        assert "scratch" not in str(caught.value)


@pytest.mark.parametrize("size", [(1, 70_000), (70_000, 1)])
def test_a_strip_longer_than_browsers_draw_is_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    path = save(tmp_path / "a.png", np.zeros(size, np.uint8))
    for read in (read_image, read_size):
        with pytest.raises(ImageError, match="no side may be longer"):
            read(path, LIMITS)


def test_the_bytes_after_decoding_count_too(tmp_path: Path) -> None:
    deep = np.zeros((300, 300, 4), np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), deep)
    limits = ImageLimits(max_bytes=10_000_000, max_pixels=90_000)
    assert read_image(tmp_path / "a.png", limits).shape[:2] == (300, 300)
    with pytest.raises(ImageError, match="MAX_IMAGE_MEGAPIXELS"):
        read_image(tmp_path / "a.png", ImageLimits(max_bytes=10_000_000, max_pixels=89_000))


@pytest.mark.filterwarnings("ignore")  # decoders warn about damage in their own ways
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["a.png", "d.png", "a.jpg", "a.webp", "a.bmp", "a.gif", "a.tif", "c.tif", "z.tif"]),
    edits=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=6),
    keep=st.floats(0.1, 1),
)
@example(name="c.tif", edits=[(0.5, 0)], keep=0.875)  # cut inside a later page's tags
def test_a_damaged_file_is_read_or_refused_but_never_crashes(
    tmp_path: Path, name: str, edits: list[tuple[float, int]], keep: float
) -> None:
    path = tmp_path / name
    if not path.exists():
        if name == "d.png":
            cv2.imwrite(str(path), DEEP)
        elif name in ("c.tif", "z.tif"):
            compression = "zlib" if name == "z.tif" else None
            tifffile.imwrite(
                path, np.zeros((5, 20, 30), np.uint8), metadata={"axes": "CYX"}, compression=compression
            )
        else:
            save(path, COLOUR)
    content = bytearray(path.read_bytes())
    for place, value in edits:
        content[int(place * min(len(content), 400))] = value
    (tmp_path / "damaged").write_bytes(content[: max(1, int(keep * len(content)))])
    with suppress(ImageError):
        pixels = read_image(tmp_path / "damaged", LIMITS)
        assert pixels.ndim == 3
        assert pixels.dtype in (np.uint8, np.uint16)
