"""The public Python face of Brushloop: what is exported here is stable between minor versions.

>>> import numpy as np
>>> import brushloop
>>> stream = brushloop.encode_rle(np.eye(3, dtype=bool))
>>> (brushloop.decode_rle(stream, (3, 3)) > 0).astype(int).tolist()
[[1, 0, 0], [0, 1, 0], [0, 0, 1]]

Everything else, in `core` and `ml_backend` too, may change with any release.
"""

from brushloop.model import Model, Segmentation, SegmentedTile, load_model
from core.errors import BrushloopError, CheckpointError, DeviceError, ImageError, RLEError
from core.rle import decode as decode_rle
from core.rle import encode as encode_rle
from core.schema import IGNORE_INDEX

__all__ = [
    "IGNORE_INDEX",
    "BrushloopError",
    "CheckpointError",
    "DeviceError",
    "ImageError",
    "Model",
    "RLEError",
    "Segmentation",
    "SegmentedTile",
    "decode_rle",
    "encode_rle",
    "load_model",
]
