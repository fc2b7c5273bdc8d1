"""Label maps in the forms that other tools train on and read: PNG, instances, COCO, YOLO, nnU-Net."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.schema import LabelSchema
from export.atomic_files import written_whole
from export.errors import ExportError, import_extra
from export.georeference import save_georeference
from export.label_files import save_instances, save_label_png
from export.pixel_edges import Part, Ring, outline_all
from export.result import Result, number_objects
from export.shape_files import write_geojson, write_imagej

TILE = re.compile(r"top (\d{1,9}) left (\d{1,9}) of ")
"""Where in its file a task of an import begins, as its data says it."""


class Writer(Protocol):
    """Writes all results below a folder; returns how many images that were."""

    def __call__(self, out: Path, results: Iterable[Result], schema: LabelSchema) -> int: ...


def write_pngs(out: Path, results: Iterable[Result], schema: LabelSchema) -> int:
    """One label map each; see `export.label_files`."""
    n_images = 0
    for n_images, result in enumerate(results, 1):  # noqa: B007 - the last number is the count
        save_label_png(out / f"{result.name}.png", result.label_map, schema)
        _place(out / f"{result.name}.png", result)
    return n_images


def write_instances(out: Path, results: Iterable[Result], schema: LabelSchema) -> int:
    """One TIFF each with the numbers of the objects."""
    n_images = 0
    for n_images, result in enumerate(results, 1):  # noqa: B007 - the last number is the count
        save_instances(out / f"{result.name}.tif", number_objects(result.label_map, schema)[0])
        _place(out / f"{result.name}.tif", result)
    return n_images


def _place(path: Path, result: Result) -> None:
    """Keep where on the earth an image lies, where its import knew that."""
    data = result.task.get("data", {})
    georeference, tile = data.get("georeference"), TILE.match(str(data.get("tile") or ""))
    if isinstance(georeference, str):
        top, left = map(int, tile.groups()) if tile else (0, 0)
        save_georeference(path, georeference, top, left)


def write_coco(out: Path, results: Iterable[Result], schema: LabelSchema) -> int:
    """`instances.json` with COCO's run lengths, and `polygons.json`, the same annotations as polygons.

    One annotation per object; categories count from 1. Both say the same pixels: a hole is reached along a
    cut, which has no width.
    """
    import_extra("pycocotools", "export")
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    polygons: list[list[list[int]]] = []
    for image_id, result in enumerate(results, 1):
        height, width = result.label_map.shape
        images.append({"id": image_id, "file_name": result.file_name, "width": width, "height": height})
        for annotation in _to_coco(result.label_map, schema):
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, **annotation})
        outlined = outline_all(result.label_map, schema)
        polygons += [[_cut_open(part).ravel().tolist() for part in one.parts] for one in outlined]
    categories = [{"id": index + 1, "name": schema.names[index]} for index in schema.object_indices]
    content = {"images": images, "annotations": annotations, "categories": categories}
    _save_json(out / "instances.json", content)
    same = zip(annotations, polygons, strict=True)
    _save_json(
        out / "polygons.json",
        content | {"annotations": [annotation | {"segmentation": found} for annotation, found in same]},
    )
    return len(images)


def _save_json(path: Path, content: Any) -> None:
    with written_whole(path) as scratch:
        scratch.write_text(json.dumps(content), encoding="utf-8")


def _cut_open(part: Part) -> Ring:
    """One ring `(N, 2)` around a part and its holes: from its first corner to each hole and back."""
    first = part[0][:1]
    ways = [ring for hole in part[1:] for ring in (first, hole, hole[:1])]
    return np.concatenate([part[0], *ways, *([first] if ways else [])])


def _to_coco(label_map: NDArray[np.uint8], schema: LabelSchema) -> list[dict[str, Any]]:
    from pycocotools import mask as coco

    objects, class_of = number_objects(label_map, schema)
    of_image = []
    for number, class_index in enumerate(class_of, 1):
        coco_rle = coco.encode(np.asfortranarray(objects == number, dtype=np.uint8))
        of_image.append(
            {
                "category_id": class_index + 1,
                "segmentation": {"size": list(coco_rle["size"]), "counts": coco_rle["counts"].decode()},
                "area": int(coco.area(coco_rle)),
                "bbox": [float(side) for side in coco.toBbox(coco_rle)],
                "iscrowd": 0,
            }
        )
    return of_image


def write_yolo(out: Path, results: Iterable[Result], schema: LabelSchema) -> int:
    """YOLO-seg: `labels/NAME.txt`, one outline per object in parts of the image's size, and `data.yaml`.

    Outlines run through the centres of the outermost pixels, as OpenCV finds and fills them. They have no
    holes, so holes are filled. Classes count from 0 without the background.
    """
    numbers = {index: number for number, index in enumerate(schema.object_indices)}
    n_images = 0
    for n_images, result in enumerate(results, 1):  # noqa: B007 - the last number is the count
        objects, class_of = number_objects(result.label_map, schema)
        lines = [
            " ".join([str(numbers[index]), *_outline(objects == number)])
            for number, index in enumerate(class_of, 1)
        ]
        with written_whole(out / "labels" / f"{result.name}.txt") as scratch:
            scratch.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    # JSON strings are YAML strings, whatever is in a name.
    names = [f"  {numbers[index]}: {json.dumps(schema.names[index])}\n" for index in schema.object_indices]
    with written_whole(out / "data.yaml") as scratch:
        scratch.write_text("path: .\nnames:\n" + "".join(names), encoding="utf-8")
    return n_images


def _outline(mask: NDArray[np.bool_]) -> list[str]:
    """x and y of each point, in parts of width and height; YOLO wants three points at least."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    points = contours[0].reshape(-1, 2)
    points = np.resize(points, (max(len(points), 3), 2))
    return [f"{part:.8f}" for part in (points / mask.shape[::-1]).ravel()]


def write_nnunet(out: Path, results: Iterable[Result], schema: LabelSchema) -> int:
    """A folder of nnU-Net v2 (imagesTr, labelsTr, dataset.json); what nobody labelled is its ignore label.

    nnU-Net's 0 is the background, whatever it is here, and its ignore label is the highest.
    """
    order = nnunet_order(schema)
    values = np.full(256, len(order), np.uint8)
    for value, index in enumerate(order):
        if index is not None:
            values[index] = value
    n_images, n_channels = 0, 0
    for result in results:
        image = result.load_image()
        if image.shape[2] not in (1, 3) or n_channels not in (0, image.shape[2]):
            raise ExportError(
                f"{result.file_name} has {image.shape[2]} channels: nnU-Net's PNGs are all grey or all colour"
            )
        n_channels, n_images = image.shape[2], n_images + 1
        _save_png(out / "imagesTr" / f"{result.name}_0000.png", image[:, :, 0] if n_channels == 1 else image)
        _save_png(out / "labelsTr" / f"{result.name}.png", values[result.label_map])
    names = ["background" if index is None or not value else schema.names[index]
             for value, index in enumerate(order)]  # fmt: skip
    channels = ("grey",) if n_channels <= 1 else ("red", "green", "blue")
    dataset = {
        "channel_names": {str(number): name for number, name in enumerate(channels)},
        "labels": {name: value for value, name in enumerate(names)} | {"ignore": len(order)},
        "numTraining": n_images,
        "file_ending": ".png",
    }
    with written_whole(out / "dataset.json") as scratch:
        scratch.write_text(json.dumps(dataset, indent=1), encoding="utf-8")
    return n_images


def nnunet_order(schema: LabelSchema) -> list[int | None]:
    """Class index of nnU-Net's label 0, 1, ...; None stands for a background that the project does not have.

    >>> nnunet_order(LabelSchema.of("Nucleus", "Background")), nnunet_order(LabelSchema.of("A", "B"))
    ([1, 0], [None, 0, 1])
    """
    return [schema.background_index, *schema.object_indices]


def _save_png(path: Path, pixels: NDArray[Any]) -> None:
    if pixels.ndim == 3 and pixels.dtype != np.uint8:
        raise ExportError(f"{path.name}: colour of 16 bits is no PNG that nnU-Net reads; save 8 bits")
    with written_whole(path) as scratch:
        Image.fromarray(pixels).save(scratch, format="PNG", compress_level=3)


WRITERS: dict[str, Writer] = {
    "png": write_pngs,
    "instances": write_instances,
    "coco": write_coco,
    "yolo": write_yolo,
    "nnunet": write_nnunet,
    "imagej": write_imagej,
    "geojson": write_geojson,
}
"""By the names that `brushloop export --form` takes."""
