"""Objects as the outlines that ImageJ and QuPath open: every pixel of a mask, holes, class and colour."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.schema import LabelSchema
from export.atomic_files import written_whole
from export.colours import colour_of
from export.errors import import_extra
from export.pixel_edges import Outlined, Part, outline_all
from export.result import Result

MOVE_TO, LINE_TO, CLOSE = 0.0, 1.0, 4.0
"""Steps of a path in ImageJ's composite selections."""


def write_imagej(out: Path, results: Iterable[Result], schema: LabelSchema) -> int:
    """`NAME.zip` for ImageJ's ROI Manager: one selection per object, named after its class and number."""
    roifile = import_extra("roifile", "export")
    n_images = 0
    for n_images, result in enumerate(results, 1):  # noqa: B007 - the last number is the count
        rois = list(_to_rois(result.label_map, schema))
        # The file name inside the archive is what ImageJ shows, and a slash would be a folder.
        names = [re.sub(r"[/\\:]", "_", roi.name) for roi in rois]
        with written_whole(out / f"{result.name}.zip") as scratch:
            roifile.roiwrite(scratch, rois, name=names, mode="w")
    return n_images


def _to_rois(label_map: NDArray[np.uint8], schema: LabelSchema) -> Iterator[Any]:
    for number, found in enumerate(outline_all(label_map, schema), 1):
        roi = _composite(found.parts) if len(found.parts) > 1 or len(found.parts[0]) > 1 else _traced(found)
        roi.name = f"{schema.names[found.class_index]}-{number:04d}"
        roi.stroke_color = bytes((255, *colour_of(found.class_index)))
        yield roi


def _traced(found: Outlined) -> Any:
    """What ImageJ's wand makes: one ring along the edges of pixels."""
    import roifile

    roi = roifile.ImagejRoi.frompoints(found.parts[0][0])
    roi.roitype = roifile.ROI_TYPE.TRACED
    return roi


def _composite(parts: list[Part]) -> Any:
    """Several rings as one path; a ring inside another is a hole."""
    import roifile

    rings = [ring for part in parts for ring in part]
    path = [step for ring in rings for step in _path_of(ring)]
    corners = np.concatenate(rings)
    (left, top), (right, bottom) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    return roifile.ImagejRoi(
        roitype=roifile.ROI_TYPE.RECT,
        left=left,
        top=top,
        right=right,
        bottom=bottom,
        shape_roi_size=len(path),
        multi_coordinates=np.array(path, np.float32),
    )


def _path_of(ring: NDArray[np.int64]) -> list[float]:
    steps = [MOVE_TO] + [LINE_TO] * (len(ring) - 1)
    return [value for step, (x, y) in zip(steps, ring.tolist(), strict=True) for value in (step, x, y)] + [
        CLOSE
    ]


def write_geojson(out: Path, results: Iterable[Result], schema: LabelSchema) -> int:
    """`NAME.geojson` for QuPath: one annotation per object, with the name and colour of its class.

    Corners are in pixels. Holes are inner rings, and pixels that meet at a corner alone are polygons of
    their own in one MultiPolygon, so every geometry is valid.
    """
    n_images = 0
    for n_images, result in enumerate(results, 1):  # noqa: B007 - the last number is the count
        features = [_to_feature(found, schema) for found in outline_all(result.label_map, schema)]
        with written_whole(out / f"{result.name}.geojson") as scratch:
            content = {"type": "FeatureCollection", "features": features}
            scratch.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return n_images


def _to_feature(found: Outlined, schema: LabelSchema) -> dict[str, Any]:
    polygons = [[[*ring.tolist(), ring[0].tolist()] for ring in part] for part in found.parts]
    geometry = (
        {"type": "Polygon", "coordinates": polygons[0]}
        if len(polygons) == 1
        else {"type": "MultiPolygon", "coordinates": polygons}
    )
    named = {"name": schema.names[found.class_index], "color": list(colour_of(found.class_index))}
    properties = {"objectType": "annotation", "classification": named}
    return {"type": "Feature", "geometry": geometry, "properties": properties}
