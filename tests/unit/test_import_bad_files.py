"""Some ninety kinds of bad files and masks: each is refused by name and reason, and all else comes in."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from kept_uploads import CONFIG, SHAPE, KeptUploads, bring_masks, coco, noise, plain_runs, two_objects
from PIL import Image

from ingest.masks import MaskRules
from ml_backend.label_studio.label_config import parse_label_config

TWO_CLASSES = parse_label_config(
    '<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image">'
    '<Label value="Background"/><Label value="Nucleus"/><Label value="Cell"/></BrushLabels></View>'
)

Write = Callable[[Path], Any]


def to_bytes(kind: str, pixels: np.ndarray | None = None) -> bytes:
    file = io.BytesIO()
    Image.fromarray(noise(*SHAPE, dtype=np.uint8) if pixels is None else pixels).save(file, kind)
    return file.getvalue()


def to_tiff(pixels: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **options)
    return file.getvalue()


def flip(content: bytes, start: int, n_bytes: int) -> bytes:
    return (
        content[:start]
        + bytes(255 - b for b in content[start : start + n_bytes])
        + content[start + n_bytes :]
    )


def with_tag(content: bytes, tag: int, value: int) -> bytes:
    """A little-endian TIFF whose first page says another value."""
    (offset,) = struct.unpack("<I", content[4:8])
    (count,) = struct.unpack("<H", content[offset : offset + 2])
    changed = bytearray(content)
    for index in range(count):
        place = offset + 2 + 12 * index
        code, kind = struct.unpack("<HH", content[place : place + 4])
        if code == tag:
            struct.pack_into("<H" if kind == 3 else "<I", changed, place + 8, value)
    return bytes(changed)


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.png", to_bytes("PNG"))
    return file.getvalue()


GREY = noise(*SHAPE)
TIFF = to_tiff(GREY)
DEFLATED = to_tiff(GREY, compression="deflate")
TILED = to_tiff(noise(100, 100), tile=(32, 32), compression="zstd")
FIRST_TILE = tifffile.TiffFile(io.BytesIO(TILED)).pages.first.dataoffsets[0]

BAD_FILES: dict[str, tuple[str, bytes]] = {
    "nothing in a PNG": ("a.png", b""),
    "nothing in a TIFF": ("a.tif", b""),
    "a PNG's start alone": ("a.png", to_bytes("PNG")[:20]),
    "a TIFF's start alone": ("a.tif", TIFF[:8]),
    "a TIFF cut in its pixels": ("a.tif", TIFF[: len(TIFF) // 2]),
    "a deflated TIFF cut": ("a.tif", DEFLATED[: len(DEFLATED) - 600]),
    "tiles that are cut off": ("a.tif", TILED[: len(TILED) - 1500]),
    "a deflated TIFF with damage": ("a.tif", flip(DEFLATED, len(DEFLATED) // 2, 60)),
    "zstd with damage": ("a.tif", flip(TILED, FIRST_TILE, 4)),
    "LZW with damage": ("a.tif", flip(to_tiff(GREY, compression="lzw"), 400, 90)),
    "a page of no size": ("a.tif", with_tag(TIFF, 256, 0)),
    "a page of no rows": ("a.tif", with_tag(TIFF, 257, 0)),
    "an unknown compression": ("a.tif", with_tag(TIFF, 259, 4242)),
    "an odd number of bits": ("a.tif", with_tag(TIFF, 258, 77)),
    "a directory that points outside": ("a.tif", TIFF[:4] + struct.pack("<I", 2**31) + TIFF[8:]),
    "a directory that points at itself": ("a.tif", TIFF[:4] + struct.pack("<I", 4) + TIFF[8:]),
    "complex numbers": ("a.tif", to_tiff(np.zeros(SHAPE, np.complex64))),
    "floats of which none is a number": ("a.tif", to_tiff(np.full(SHAPE, np.nan, np.float32))),
    "CMYK": ("a.tif", to_tiff(noise(*SHAPE, 4, dtype=np.uint8), photometric="separated")),
    "CIELAB": ("a.tif", to_tiff(noise(*SHAPE, 3, dtype=np.uint8), photometric="cielab")),
    "pages without axes": ("a.tif", to_tiff(noise(3, *SHAPE), photometric="minisblack", metadata=None)),
    "too many channels": (
        "a.tif",
        to_tiff(noise(70, 8, 8, dtype=np.uint8), photometric="minisblack", metadata={"axes": "CYX"}),
    ),
    "more pixels than allowed": ("a.tif", to_tiff(np.zeros((1200, 1200), np.uint8), compression="deflate")),
    "a PNG of more pixels than allowed": ("a.png", to_bytes("PNG", np.zeros((1200, 1200), np.uint8))),
    "HTML": ("a.png", b"<!doctype html><title>Sign in</title>"),
    "HTML in a TIFF": ("a.tif", b"<!doctype html><title>Sign in</title>"),
    "JSON": ("a.jpg", b'{"error": "no such file"}'),
    "PDF": ("a.jpg", b"%PDF-1.7\n"),
    "SVG": ("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
    "a ZIP archive": ("a.tif", zipped()),
    "text": ("a.bmp", b"hello"),
    "a pointer of Git LFS": ("a.tif", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
    "HEIC": ("a.heic", b"\0\0\0\x18ftypheic\0\0\0\0"),
    "JPEG 2000": ("a.jp2", b"\0\0\0\x0cjP  \r\n\x87\n"),
    "a NumPy file": ("a.tif", b"\x93NUMPY\x01\0"),
    "zeros": ("a.tif", bytes(5000)),
    "noise": ("a.jpg", noise(5000, dtype=np.uint8).tobytes()),
    "a broken BMP": ("a.bmp", to_bytes("BMP")[:30]),
    "a broken WebP": ("a.webp", to_bytes("WEBP")[:20]),
    "a broken AVIF": ("a.avif", to_bytes("AVIF")[:60]),
    "a broken GIF": ("a.gif", to_bytes("GIF")[:8]),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file_is_left_out_by_name_and_reason_and_the_rest_comes_in(tmp_path: Path, kind: str) -> None:
    name, content = BAD_FILES[kind]
    images, masks = tmp_path / "images", tmp_path / "masks"
    images.mkdir()
    masks.mkdir()
    (images / name).write_bytes(content)
    tifffile.imwrite(images / "good.tif", noise(*SHAPE))
    tifffile.imwrite(masks / "good.tif", ONE)
    kept = KeptUploads()
    done = bring_masks(images, masks, kept)
    assert [task["data"]["file"] for task in kept.tasks] == ["good.tif"]
    ((left_out, problem),) = done.left_out
    assert left_out == name
    assert len(problem) > 10
    assert str(tmp_path) not in problem


def put(name: str, content: bytes) -> Write:
    return lambda masks: (masks / name).write_bytes(content)


def put_json(document: Any) -> Write:
    return lambda masks: (masks / "a.json").write_text(json.dumps(document))


def put_mask(pixels: np.ndarray, name: str = "cells.tif", **options: Any) -> Write:
    return lambda masks: tifffile.imwrite(masks / name, pixels, **options)


def both(one: Write, other: Write) -> Write:
    return lambda masks: (one(masks), other(masks))


ONE = two_objects()
RING = [5, 5, 20, 5, 20, 20, 5, 20]
BRUSH = {"type": "brushlabels", "from_name": "brush", "to_name": "image", "id": "a"}


COCO_IMAGE = {"id": 7, "file_name": "cells.tif", "height": SHAPE[0], "width": SHAPE[1]}


def exported(label: str, rle: list[int], image: str = "cells.tif") -> list[dict[str, Any]]:
    region = {**BRUSH, "value": {"format": "rle", "rle": rle, "brushlabels": [label]}}
    data = {"image": f"/data/upload/1/0a1b2c3d-{image}"}
    return [{"data": data, "annotations": [{"result": [region]}]}]


BAD_MASKS: dict[str, tuple[Write, str]] = {
    "another size": (put_mask(ONE[:30]), "50 x 30 pixels"),
    "a picture in colours": (put_mask(noise(*SHAPE, 3, dtype=np.uint8), photometric="rgb"), "colours"),
    "a JPEG": (put("cells.jpg", to_bytes("JPEG")), "change its numbers"),
    "fractions": (put_mask(ONE / np.float32(3)), "fractions"),
    "no numbers": (put_mask(np.full(SHAPE, np.nan, np.float32)), "fractions"),
    "several slices": (put_mask(np.stack([ONE, ONE]), imagej=True, metadata={"axes": "ZYX"}), "one"),
    "pages without axes": (
        put_mask(np.stack([ONE, ONE]), photometric="minisblack", metadata=None),
        "--axes",
    ),
    "an empty file": (put("cells.png", b""), "PNG or a TIFF"),
    "a text": (put("cells.png", b"hello, I am no mask"), "PNG or a TIFF"),
    "a broken PNG": (put("cells.png", to_bytes("PNG")[:40]), "decoded"),
    "a broken TIFF": (put("cells.tif", TIFF[:200]), "early"),
    "a NumPy file under another name": (put("cells.png", b"\x93NUMPY" + bytes(40)), "NumPy"),
    "a NumPy file": (put("cells.npy", b"\x93NUMPY" + bytes(40)), "NumPy"),
    "several masks": (both(put_mask(ONE), put_mask(ONE, "cells_mask.tif")), "several masks"),
    "a mask without an image": (put_mask(ONE, "other.tif"), "no image"),
    "255 beside other values": (put_mask(np.where(ONE == 2, 255, ONE).astype(np.uint8)), "--ignore 255"),
    "a transparent PNG": (
        put("cells.png", to_bytes("PNG", np.dstack([ONE, ONE, ONE, ONE * 100]))),
        "transparent",
    ),
    "no JSON": (put("a.json", b"{"), "JSON"),
    "JSON of another kind": (put_json({"shapes": []}), "neither COCO"),
    "COCO without its lists": (put_json(coco([], images={})), "no list"),
    "COCO of an image without a size": (put_json(coco([], images=[{"id": 1, "file_name": "a"}])), "lacks"),
    "COCO of another size": (
        put_json(coco([], images=[{"id": 7, "file_name": "cells.tif", "height": 4, "width": 4}])),
        "4 x 4 pixels",
    ),
    "COCO of an image that it lacks": (put_json(coco([], annotations=[{"image_id": 99}])), "99"),
    "COCO of a class that the project lacks": (
        put_json(coco([[RING]], categories=[{"id": 3, "name": "Car"}])),
        "no class 'Car'",
    ),
    "COCO of a category that it lacks": (put_json(coco([[RING]], categories=[])), "category 3"),
    "a polygon of two points": (put_json(coco([[[1, 1, 2, 2]]])), "2 points"),
    "a polygon of an odd number": (put_json(coco([[[1, 1, 2]]])), "polygon"),
    "a polygon of words": (put_json(coco([[["a", "b"]]])), "polygon"),
    "a box alone": (put_json(coco([[]])), "no segmentation"),
    "COCO that names an image twice": (
        put_json(coco([], images=[COCO_IMAGE, {**COCO_IMAGE, "id": 8}])),
        "is in it twice",
    ),
    "COCO of other images": (
        put_json(coco([], images=[{**COCO_IMAGE, "file_name": "other.tif"}])),
        "no image here has the name of 1 in it: other.tif",
    ),
    "COCO of images that may be meant both": (
        put_json(coco([], images=[{**COCO_IMAGE, "file_name": f"{n}/cells.tif", "id": n} for n in (7, 8)])),
        "several images that may be this one",
    ),
    "two files of COCO": (
        both(put_json(coco([])), lambda masks: (masks / "b.json").write_text(json.dumps(coco([])))),
        "several masks of it: a.json, b.json",
    ),
    "COCO beside a PNG": (both(put_json(coco([])), put_mask(ONE)), "several masks of it: cells.tif, a.json"),
    "an export of another image": (put_json(exported("Nucleus", [0], "other.tif")), "no image here has"),
    "an export without an address": (put_json([{"data": {"image": None}}]), "one without an address"),
    "numbers below 0": (put_mask(ONE.astype(np.int16) - 1), "--ignore -1"),
    "a picture in colours, as PNG": (
        put("cells.png", to_bytes("PNG", np.dstack([ONE * 100, ONE * 50, ONE]))),
        "in colours",
    ),
    "a name in another case": (put_mask(ONE, "Cells.tif"), "no image has its name"),
    "no segmentation": (put_json(coco([None])), "no segmentation"),
    "run lengths that are too long": (put_json(coco([{"size": [40, 50], "counts": [3000]}])), "3000"),
    "run lengths below nothing": (put_json(coco([{"size": [40, 50], "counts": [-1, 2001]}])), "counts"),
    "packed run lengths of nonsense": (put_json(coco([{"size": [40, 50], "counts": "~~~~"}])), "unpacked"),
    "packed run lengths that end early": (put_json(coco([{"size": [40, 50], "counts": "o"}])), "early"),
    "run lengths of another size": (put_json(coco([plain_runs(ONE[:20] > 0)])), "50 x 40"),
    "an export with a broken stream": (put_json(exported("Nucleus", [1, 2])), "a.json: "),
    "an export with an unknown label": (put_json(exported("Car", [0])), "Car"),
}


@pytest.mark.parametrize("kind", BAD_MASKS)
def test_a_bad_mask_is_left_out_by_name_and_reason_and_its_image_comes_in(tmp_path: Path, kind: str) -> None:
    write, reason = BAD_MASKS[kind]
    images, masks = tmp_path / "images", tmp_path / "masks"
    images.mkdir()
    masks.mkdir()
    write(masks)
    tifffile.imwrite(images / "cells.tif", noise(*SHAPE))
    kept = KeptUploads()
    done = bring_masks(images, masks, kept)
    assert ["annotations" in task for task in kept.tasks] == [False]
    assert any(reason in problem for _, problem in done.left_out), done.left_out
    names = {path.name for path in masks.iterdir()}
    assert any(name in f"{left_out}: {problem}" for name in names for left_out, problem in done.left_out)


@pytest.mark.parametrize(
    ("rules", "reason"),
    [
        (MaskRules(), "--labels"),
        (MaskRules({1: "Nucleus"}), "does not name"),
        (MaskRules({0: "Background", 1: "Nucleus", 2: "Car"}), "no class 'Car'"),
        (MaskRules(instances_of="Car"), "no class 'Car'"),
    ],
)
def test_values_whose_meaning_would_have_to_be_guessed_are_asked_about(
    tmp_path: Path, rules: MaskRules, reason: str
) -> None:
    images, masks = tmp_path / "images", tmp_path / "masks"
    images.mkdir()
    masks.mkdir()
    tifffile.imwrite(images / "cells.tif", noise(*SHAPE))
    tifffile.imwrite(masks / "cells.tif", ONE)
    done = bring_masks(images, masks, KeptUploads(), rules, TWO_CLASSES)
    ((name, problem),) = done.left_out
    assert "cells.tif" in name
    assert reason in problem


def test_the_kinds_that_are_tried_are_fifty_and_more() -> None:
    assert len(BAD_FILES) + len(BAD_MASKS) >= 50
    assert CONFIG.review_tag
