"""One row per object: what and where it is, how large, how bright, and how sure the model is.

Columns are named as `skimage.measure.regionprops_table` names them, so what reads those reads these.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.measure import regionprops_table

from core.schema import LabelSchema
from export.atomic_files import written_whole
from export.errors import import_extra
from export.pixel_size import PixelSize

MEASURED = ("label", "area", "centroid", "bbox", "intensity_mean")

Row = Mapping[str, Any]
ROWS_AT_ONCE = 65_536
"""Of a Parquet row group: bounded memory, and large enough to compress."""


def measure_objects(
    name: str,
    image: NDArray[Any],
    objects: NDArray[np.int32],
    class_of: Sequence[int],
    schema: LabelSchema,
    confidence: NDArray[np.floating[Any]] | None = None,
    pixel_size: PixelSize | None = None,
) -> list[dict[str, Any]]:
    """Measure the objects of one image.

    Parameters
    ----------
    name : str
        Of the image, for the first column.
    image : (H, W, C)
    objects : (H, W) int32
        0 where there is no object, 1..n one object each.
    class_of : n class indices, of object 1, 2, ...
    schema : LabelSchema
    confidence : (H, W), optional
        Probability of the class of each pixel, 0..1.
    pixel_size : PixelSize, optional
        Adds columns in micrometres.

    Returns
    -------
    list of dict
        By column: `image`, `label`, `class`, `area` in pixels, `centroid-0` and `centroid-1` (row, column),
        `bbox-0` to `bbox-3` (half open), `intensity_mean-0` ... per channel, `confidence_mean`,
        `touches_border`, and with a pixel size `area_um2`, `centroid_um-0`, `centroid_um-1`.

    Examples
    --------
    >>> objects = np.array([[0, 1, 1], [0, 0, 0]], np.int32)
    >>> image = np.full((2, 3, 1), 9, np.uint8)
    >>> row, = measure_objects("a.png", image, objects, [1], LabelSchema.of("Background", "Nucleus"))
    >>> row["class"], row["area"], row["centroid-1"], row["intensity_mean-0"], row["touches_border"]
    ('Nucleus', 2, 1.5, 9.0, True)
    """
    if not class_of:
        return []
    intensities = image if confidence is None else np.dstack([image, confidence.astype(np.float32)])
    table: dict[str, NDArray[Any]] = regionprops_table(  # type: ignore[no-untyped-call]
        objects, intensities, MEASURED
    )
    columns = {column: values.tolist() for column, values in table.items()}
    height, width = objects.shape
    rows: list[dict[str, Any]] = []
    for index, label in enumerate(columns["label"]):
        row: dict[str, Any] = {"image": name, "label": label, "class": schema.names[class_of[label - 1]]}
        row["area"] = round(columns["area"][index])
        for column in ("centroid-0", "centroid-1", "bbox-0", "bbox-1", "bbox-2", "bbox-3"):
            row[column] = columns[column][index]
        for channel in range(image.shape[2]):
            row[f"intensity_mean-{channel}"] = columns[f"intensity_mean-{channel}"][index]
        if confidence is not None:
            row["confidence_mean"] = columns[f"intensity_mean-{image.shape[2]}"][index]
        box = [row[f"bbox-{side}"] for side in range(4)]
        row["touches_border"] = box[0] == 0 or box[1] == 0 or box[2] == height or box[3] == width
        rows.append(row | _in_micrometres(row, pixel_size))
    return rows


def _in_micrometres(row: Row, pixel_size: PixelSize | None) -> dict[str, float]:
    if pixel_size is None:
        return {}
    return {
        "area_um2": row["area"] * pixel_size.area_um2,
        "centroid_um-0": row["centroid-0"] * pixel_size.height_um,
        "centroid_um-1": row["centroid-1"] * pixel_size.width_um,
    }


def save_csv(path: Path, rows: Iterable[Row], columns: Sequence[str]) -> None:
    """Write rows as they come; a value that a row does not have stays empty."""
    with written_whole(path) as scratch, scratch.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def save_parquet(path: Path, rows: Iterable[Row], columns: Sequence[str]) -> None:
    """Write rows in groups, with the types that their columns have."""
    pa = import_extra("pyarrow", "export")
    parquet = import_extra("pyarrow.parquet", "export")
    schema = pa.schema([(column, _type_of(column, pa)) for column in columns])
    with written_whole(path) as scratch, parquet.ParquetWriter(scratch, schema) as writer:
        group: list[Row] = []
        for row in rows:
            group.append(row)
            if len(group) == ROWS_AT_ONCE:
                writer.write_table(pa.Table.from_pylist(group, schema))
                group = []
        writer.write_table(pa.Table.from_pylist(group, schema))


def _type_of(column: str, pa: Any) -> Any:
    if column in ("image", "class"):
        return pa.string()
    if column == "touches_border":
        return pa.bool_()
    is_whole = column in ("label", "area") or column.startswith("bbox-")
    return pa.int64() if is_whole else pa.float64()
