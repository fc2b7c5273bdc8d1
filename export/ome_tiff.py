"""Probabilities and uncertainty as OME-TIFF: one named channel each, with the size of a pixel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from export.atomic_files import written_whole
from export.pixel_size import PixelSize


def save_channels(
    path: Path, channels: NDArray[Any], names: Sequence[str], pixel_size: PixelSize | None = None
) -> None:
    """Write `(C, H, W)` as float32 channels of an OME-TIFF; half precision is no type of OME's."""
    if len(channels) != len(names):
        raise ValueError(f"{len(names)} names for {len(channels)} channels")
    metadata: dict[str, Any] = {"axes": "CYX", "Channel": {"Name": list(names)}}
    if pixel_size is not None:
        metadata |= {"PhysicalSizeX": pixel_size.width_um, "PhysicalSizeXUnit": "µm"}
        metadata |= {"PhysicalSizeY": pixel_size.height_um, "PhysicalSizeYUnit": "µm"}
    with written_whole(path) as scratch:
        tifffile.imwrite(
            scratch,
            channels.astype(np.float32),
            photometric="minisblack",
            compression="zlib",
            ome=True,
            metadata=metadata,
        )
