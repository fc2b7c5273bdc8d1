"""Where on the earth a picture lies, in a file beside it that GDAL, QGIS and rasterio read with it."""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

from export.atomic_files import written_whole
from export.errors import ExportError

BESIDE = ".aux.xml"
"""What GDAL adds to the whole name of a file for what it knows about it."""


def save_georeference(path: Path, georeference: str, top: int = 0, left: int = 0) -> None:
    """Write beside `path` where its pixels lie; nothing where `georeference` is empty.

    `georeference` names a reference system and the six numbers of a transform, as rasterio writes them:
    `EPSG:32633, 10 0 500000 0 -10 5400000`. `top` and `left` are where in that picture this one begins.
    """
    if not georeference:
        return
    with written_whole(path.with_name(f"{path.name}{BESIDE}")) as scratch:
        scratch.write_text(_to_xml(georeference, top, left), encoding="utf-8")


def _to_xml(georeference: str, top: int, left: int) -> str:
    """GDAL's own form; it counts the numbers of a transform from the corner on.

    Examples
    --------
    >>> _to_xml("EPSG:32633, 2 0 5 0 -2 7", 2, 1)
    '<PAMDataset><SRS>EPSG:32633</SRS><GeoTransform>7, 2, 0, 3, 0, -2</GeoTransform></PAMDataset>'
    """
    system, _, numbers = georeference.rpartition(", ")
    try:
        a, b, x, d, e, y = map(float, numbers.split())
    except ValueError:
        raise ExportError(f"{georeference!r} is no georeference of an import") from None
    corner_x, corner_y = x + a * left + b * top, y + d * left + e * top
    told = ", ".join(f"{value:.15g}" for value in (corner_x, a, b, corner_y, d, e))
    return f"<PAMDataset><SRS>{escape(system)}</SRS><GeoTransform>{told}</GeoTransform></PAMDataset>"
