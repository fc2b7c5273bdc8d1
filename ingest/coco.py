"""COCO's instances as masks: polygons, and run lengths plain or packed.

Lengths are checked before anything is painted, so a broken file costs an error and no memory.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.errors import ImageError
from core.painting import PAINTED_ALPHA, Mask
from core.polygons import fill_polygon
from core.schema import LabelSchema
from ingest.masks import MaskContent, cut_out, find_class

MOST_SHIFT = 60


@dataclass(frozen=True)
class CocoFile:
    """Annotations by the name of their image; `sizes` are `(H, W)`."""

    sizes: Mapping[str, tuple[int, int]]
    annotations: Mapping[str, Sequence[Mapping[str, Any]]]
    categories: Mapping[int, str]

    @cached_property
    def _keys(self) -> Mapping[str, list[str]]:
        """Names by what may be known of them: the whole, without folders, and without its ending."""
        keys: dict[str, list[str]] = defaultdict(list)
        for key in self.sizes:
            path = PurePosixPath(key.replace("\\", "/"))
            for word in {str(path), path.name, path.stem}:
                keys[word].append(key)
        return keys

    def find(self, relative: str, *, is_only: bool) -> str | None:
        """The name here of an image; `is_only` one of its name may be told without its folder and ending.

        Raises `ImageError` where several could be meant.
        """
        path = PurePosixPath(relative)
        for word in (relative, path.name, path.stem) if is_only else (relative,):
            keys = self._keys.get(word, [])
            if len(keys) > 1 and relative in keys:
                return relative
            if len(keys) > 1:
                raise ImageError(f"it names several images that may be this one: {', '.join(keys[:5])}")
            if keys:
                return keys[0]
        return None

    def read(self, name: str, schema: LabelSchema, *, partial: bool) -> MaskContent:
        """The objects of one image; what is no object is Background, unless the file is `partial`.

        Crowds (`iscrowd`) are many objects in one mask: nothing is known there.
        """
        height, width = shape = self.sizes[name]
        objects, unknown = [], np.zeros(shape, bool)
        taken = np.zeros(shape, bool)
        for number, row in enumerate(self.annotations.get(name, ())):
            mask = _draw(row, shape, number)
            if row.get("iscrowd") and not isinstance(row.get("segmentation"), list):
                unknown |= mask
                continue
            class_index = find_class(self._category(row, number), schema)
            if mask.any():
                objects.append(cut_out(mask, class_index))
                taken |= mask
        ground = np.zeros(shape, bool) if partial else ~taken & ~unknown
        return MaskContent((height, width), tuple(objects), ground)

    def _category(self, row: Mapping[str, Any], number: int) -> str:
        category = row.get("category_id")
        if not isinstance(category, int) or category not in self.categories:
            raise ImageError(
                f"annotation {number} has the category {category!r}, which the file does not name"
            )
        return self.categories[category]


def is_coco(document: object) -> bool:
    """Whether parsed JSON looks like COCO's instances."""
    return isinstance(document, dict) and {"images", "annotations", "categories"} <= set(document)


def load_json(path: Path) -> Any:
    """Parse a file of JSON; raises `ImageError`."""
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ImageError(f"it is no JSON: {str(error)[:120]}") from None


def parse_coco(document: Mapping[str, Any]) -> CocoFile:
    """Read COCO's instances; raises `ImageError` that names the broken entry."""
    sizes: dict[str, tuple[int, int]] = {}
    names: dict[int, str] = {}
    for number, row in enumerate(_rows(document, "images")):
        name, height, width, key = row.get("file_name"), row.get("height"), row.get("width"), row.get("id")
        if not (isinstance(name, str) and isinstance(key, int)) or not (
            isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0
        ):
            raise ImageError(f"image {number} of the COCO file lacks file_name, id, height or width")
        if name in sizes or key in names:
            raise ImageError(f"image {number} of the COCO file, {name} with id {key}, is in it twice")
        names[key], sizes[name] = name, (height, width)
    annotations: dict[str, list[Mapping[str, Any]]] = {name: [] for name in sizes}
    for number, row in enumerate(_rows(document, "annotations")):
        key = row.get("image_id")
        if not isinstance(key, int) or key not in names:
            raise ImageError(
                f"annotation {number} of the COCO file is of image {key!r}, which it does not have"
            )
        annotations[names[key]].append(row)
    return CocoFile(sizes, annotations, _categories(document))


def _categories(document: Mapping[str, Any]) -> dict[int, str]:
    categories: dict[int, str] = {}
    for row in _rows(document, "categories"):
        key, name = row.get("id"), row.get("name")
        if not (isinstance(key, int) and isinstance(name, str)):
            raise ImageError("a category of the COCO file lacks its id or name")
        if categories.setdefault(key, name) != name:
            raise ImageError(
                f"the COCO file gives the category {key} two names, {categories[key]!r} and {name!r}"
            )
    return categories


def _rows(document: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    rows = document.get(key)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ImageError(f"{key!r} of the COCO file is no list of entries")
    return rows


def _draw(row: Mapping[str, Any], shape: tuple[int, int], number: int) -> Mask:
    drawn = row.get("segmentation")
    if isinstance(drawn, list) and not drawn:
        raise ImageError(
            f"annotation {number} has a box at most and no segmentation: its pixels are not known"
        )
    if isinstance(drawn, list):
        return _draw_polygons(drawn, shape, number)
    if not isinstance(drawn, dict) or list(drawn.get("size", ())) != list(shape):
        raise ImageError(f"annotation {number} has no segmentation of {shape[1]} x {shape[0]} pixels")
    counts = drawn.get("counts")
    runs = _unpack(counts, number) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(isinstance(run, int) and run >= 0 for run in runs):
        raise ImageError(f"annotation {number} has run lengths that are no counts")
    if sum(runs) != shape[0] * shape[1]:
        raise ImageError(
            f"annotation {number} has run lengths of {sum(runs)} pixels, its image {shape[0] * shape[1]}"
        )
    flags = np.arange(len(runs)) % 2 == 1
    mask: NDArray[np.bool_] = np.repeat(flags, runs).reshape(shape[1], shape[0]).T  # column after column
    return mask


def _draw_polygons(rings: Sequence[Any], shape: tuple[int, int], number: int) -> Mask:
    """All rings filled, one over the other, as COCO's own tools do."""
    mask = np.zeros(shape, bool)
    for ring in rings:
        try:
            points = np.asarray(ring, np.float64).reshape(-1, 2)
            top, left, alpha = fill_polygon(points, shape)
        except (ValueError, TypeError):
            raise ImageError(f"annotation {number} has a polygon that is no list of x, y") from None
        if len(points) < 3:
            raise ImageError(f"annotation {number} has a polygon of {len(points)} points")
        mask[top : top + alpha.shape[0], left : left + alpha.shape[1]] |= alpha >= PAINTED_ALPHA
    return mask


def _unpack(text: str, number: int) -> list[int]:
    """COCO's packed run lengths: five bits a character, from the third on differences to the one before last.

    Examples
    --------
    >>> _unpack("52203", 0)
    [5, 2, 2, 2, 5]
    """
    runs: list[int] = []
    value = shift = 0
    for character in text.encode():
        bits = character - 48
        if not 0 <= bits < 64 or shift > MOST_SHIFT:
            raise ImageError(f"annotation {number} has run lengths that cannot be unpacked")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise ImageError(f"annotation {number} has run lengths that end early")
    return runs
