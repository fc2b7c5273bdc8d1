"""How large a pixel is, where the file of an image says so: OME, ImageJ, or TIFF's resolution."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

import tifffile
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

MICROMETRES = {
    "pm": 1e-6, "å": 1e-4, "nm": 1e-3, "µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0, "microns": 1.0,
    "mm": 1e3, "cm": 1e4, "m": 1e6, "inch": 25_400.0, "in": 25_400.0,
}  # fmt: skip
"""Of one unit, as programs of microscopy name it."""

CENTIMETRE = 3
"""TIFF's ResolutionUnit. Inches, its default, are what scanners and picture programs write: how large
a print is, and nothing of the specimen, so they count for nothing here."""


@dataclass(frozen=True)
class PixelSize:
    """Height and width of one pixel in micrometres."""

    height_um: float
    width_um: float

    @property
    def area_um2(self) -> float:
        return self.height_um * self.width_um

    def tiff_resolution(self) -> dict[str, Any]:
        """Arguments of `tifffile.imwrite` that say the same."""
        return {"resolution": (1e4 / self.width_um, 1e4 / self.height_um), "resolutionunit": "CENTIMETER"}


def find_pixel_size(path: Path) -> PixelSize | None:
    """Read the size of a pixel from a TIFF; None for other files, and where it does not say.

    Examples
    --------
    >>> find_pixel_size(Path("a photograph.jpg")) is None
    True
    """
    if path.suffix.lower() not in (".tif", ".tiff"):
        return None
    try:
        with tifffile.TiffFile(path) as tiff:
            return _from_ome(tiff) or _from_imagej(tiff) or _from_tags(tiff)
    except (OSError, ValueError, KeyError, TypeError, IndexError, ParseError, DefusedXmlException):
        return None  # a broken remark about the size is none


def _of(height: float, width: float, unit: str) -> PixelSize | None:
    factor = MICROMETRES.get(unit.strip().lower(), 0.0)
    size = PixelSize(height * factor, width * factor)
    is_size = all(math.isfinite(side) and side > 0 for side in (size.height_um, size.width_um))
    return size if is_size else None


def _from_ome(tiff: tifffile.TiffFile) -> PixelSize | None:
    if not tiff.is_ome or not tiff.ome_metadata:
        return None
    for element in fromstring(tiff.ome_metadata.encode()).iter():
        if element.tag.rpartition("}")[2] == "Pixels" and "PhysicalSizeX" in element.attrib:
            told = element.attrib
            width = float(told["PhysicalSizeX"])
            height = float(told.get("PhysicalSizeY", width))
            return _of(height, width, told.get("PhysicalSizeXUnit", "µm"))
    return None


def _from_imagej(tiff: tifffile.TiffFile) -> PixelSize | None:
    told = tiff.imagej_metadata if tiff.is_imagej else None
    if not told or "unit" not in told:
        return None
    # ImageJ writes the micro sign as an escape.
    unit = re.sub(r"\\u00[bB]5", "µ", str(told["unit"]))
    return _from_resolution(tiff, unit)


def _from_tags(tiff: tifffile.TiffFile) -> PixelSize | None:
    unit = tiff.pages[0].tags.valueof("ResolutionUnit", 0)  # type: ignore[union-attr]
    return _from_resolution(tiff, "cm") if int(unit) == CENTIMETRE else None


def _from_resolution(tiff: tifffile.TiffFile, unit: str) -> PixelSize | None:
    tags = tiff.pages[0].tags  # type: ignore[union-attr]
    sides = [tags.valueof(name, (0, 1)) for name in ("YResolution", "XResolution")]
    if any(not pixels or not units for pixels, units in sides):
        return None
    height, width = (units / pixels for pixels, units in sides)
    return _of(height, width, unit)
