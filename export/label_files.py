"""Label maps and instances as PNG and TIFF, with the names of the classes inside the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from core.schema import IGNORE_INDEX, LabelSchema
from export.atomic_files import written_whole
from export.colours import colour_of, palette
from export.errors import ExportError
from export.pixel_size import PixelSize

CLASSES = "brushloop.classes"
"""Key of the PNG's text that names the classes, as JSON."""

MOST_16_BIT = np.iinfo(np.uint16).max


def describe_classes(schema: LabelSchema) -> list[dict[str, Any]]:
    """Value, name, role and colour of each class, and of what nobody labelled.

    >>> describe_classes(LabelSchema.of("Background"))[0]
    {'value': 0, 'name': 'Background', 'role': 'background', 'colour': [70, 110, 180]}
    """
    classes = [
        {"value": index, "name": label.name, "role": label.role, "colour": list(colour_of(index))}
        for index, label in enumerate(schema.classes)
    ]
    unlabelled = {"value": IGNORE_INDEX, "name": "", "role": "unlabelled", "colour": [255, 255, 255]}
    return [*classes, unlabelled]


def save_label_png(path: Path, label_map: NDArray[np.uint8], schema: LabelSchema) -> None:
    """Write `(H, W)` class indices as a PNG whose palette people see and whose values programs read."""
    picture = Image.fromarray(label_map)
    picture.putpalette(palette())
    text = PngImagePlugin.PngInfo()
    text.add_itxt(CLASSES, json.dumps(describe_classes(schema), ensure_ascii=False))
    with written_whole(path) as scratch:
        picture.save(scratch, format="PNG", compress_level=3, pnginfo=text)


def read_label_png(path: Path) -> tuple[NDArray[np.uint8], list[dict[str, Any]]]:
    """The class indices of a PNG of ours, and what they mean."""
    with Image.open(path) as picture:
        picture.load()  # texts may stand behind the pixels
        told = picture.info.get(CLASSES)
        if picture.mode != "P" or not isinstance(told, str):
            raise ExportError(f"{path.name} is no label map that was written here")
        return np.asarray(picture), json.loads(told)


def save_label_tiff(
    path: Path, label_map: NDArray[np.uint8], schema: LabelSchema, pixel_size: PixelSize | None = None
) -> None:
    """Write `(H, W)` class indices as a TIFF with the same palette, names in the description."""
    colours = np.array(palette(), np.uint16).reshape(256, 3).T * 257
    with written_whole(path) as scratch:
        tifffile.imwrite(
            scratch,
            label_map,
            photometric="palette",
            colormap=colours,
            compression="zlib",
            description=json.dumps({CLASSES: describe_classes(schema)}),
            metadata=None,
            **(pixel_size.tiff_resolution() if pixel_size else {}),
        )


def save_instances(path: Path, objects: NDArray[np.int32], pixel_size: PixelSize | None = None) -> None:
    """Write `(H, W)` object numbers, 0 where there is none: 16 bits, or 32 for more than 65535."""
    deep = np.uint16 if objects.max(initial=0) <= MOST_16_BIT else np.uint32
    with written_whole(path) as scratch:
        tifffile.imwrite(
            scratch,
            objects.astype(deep),
            photometric="minisblack",
            compression="zlib",
            metadata=None,
            **(pixel_size.tiff_resolution() if pixel_size else {}),
        )
