"""A trained model for scripts and notebooks: a folder of weights in, arrays out.

It answers as the service does, with the same code, but without Label Studio, a database or a server.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from core.errors import ImageError

if TYPE_CHECKING:
    from core.network.predict import Predictor


def load_model(path: str | os.PathLike[str], *, device: str = "cpu", n_threads: int | None = None) -> Model:
    """Load a model that a round of Brushloop published.

    Parameters
    ----------
    path : path of a folder
        `DATA_DIR/projects/<id>-<created>/models/<version>`, or a copy of it.
    device : str
        `cpu`, `cuda`, `cuda:1`, or `auto` for the first GPU, else the processor.
    n_threads : int, optional
        Threads of torch during a prediction; None leaves torch's own choice.

    Returns
    -------
    Model

    Raises
    ------
    CheckpointError
        A file is missing or damaged.
    DeviceError
        There is no such device.

    Examples
    --------
    A model of two classes without training, saved and loaded again:

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> import brushloop
    >>> from core.network.checkpoint import Checkpoint, save_checkpoint
    >>> from core.network.pixels import PixelStatistics
    >>> from core.network.unet import build_architecture, initial_weights
    >>> from core.schema import LabelSchema
    >>> architecture = build_architecture(in_channels=1, n_classes=2, widths=(2, 4))
    >>> weights = initial_weights(architecture, np.random.default_rng(0))
    >>> schema = LabelSchema.of("Background", "Nucleus")
    >>> checkpoint = Checkpoint(schema, architecture, weights, PixelStatistics((100.0,), (50.0,)))
    >>> with TemporaryDirectory() as models:
    ...     folder = save_checkpoint(checkpoint, Path(models) / "r0001-0a1b2c3d")
    ...     model = brushloop.load_model(folder)
    >>> model.classes
    ('Background', 'Nucleus')
    >>> seen = model.predict(np.zeros((48, 64), np.uint8))
    >>> seen.label_map.shape, int(seen.objects.max()), float(seen.confidence.max())
    ((48, 64), 0, 0.5)
    >>> round(float(seen.uncertainty.max()), 2)  # the entropy of two halves, in nats
    0.69
    """
    # torch takes seconds to import; who only decodes brush streams does not wait for it.
    from core.network.checkpoint import load_checkpoint
    from core.network.device import choose_compute
    from core.network.predict import Predictor

    checkpoint = load_checkpoint(Path(path))
    return Model(Predictor(checkpoint, n_threads, compute=choose_compute(device)))


@dataclass(frozen=True)
class Segmentation:
    """What a model says about one image. All arrays are `(H, W)`, in the frame of the image.

    Attributes
    ----------
    label_map : uint8
        Index of the most probable class of each pixel, into `Model.classes`.
    objects : int32
        0 where there is no object, 1..n one object each: without specks and holes, and with touching objects
        apart where the model has a Background class.
    confidence : float32
        Calibrated probability of `label_map`, in 0..1.
    uncertainty : float32
        Entropy of the class probabilities in nats: 0 is sure, `log(len(Model.classes))` knows nothing.
    """

    label_map: NDArray[np.uint8]
    objects: NDArray[np.int32]
    confidence: NDArray[np.float32]
    uncertainty: NDArray[np.float32]


@dataclass(frozen=True)
class SegmentedTile:
    """What a model says about a part of an image: `image[rows, columns]`.

    Attributes
    ----------
    rows, columns : slice
        Where it lies in the image. Tiles do not overlap, and leave nothing out.
    label_map, confidence, uncertainty : (h, w) arrays
        As those of `Segmentation`.
    """

    rows: slice
    columns: slice
    label_map: NDArray[np.uint8]
    confidence: NDArray[np.float32]
    uncertainty: NDArray[np.float32]


class Model:
    """A model in memory, made by `load_model`. It never changes, and may be asked by several threads."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; their positions are the values of `Segmentation.label_map`."""
        return self._predictor.checkpoint.schema.names

    @property
    def is_draft(self) -> bool:
        """Whether there was too little truth for a hold-out, so that nothing checked this model."""
        return self._predictor.checkpoint.is_draft

    def predict(self, image: NDArray[Any]) -> Segmentation:
        """Segment an image of any size, tile by tile.

        Parameters
        ----------
        image : (H, W) or (H, W, C) uint8 or uint16
            As its file has it, without scaling.

        Raises
        ------
        ImageError
            The array has another number of axes or another type of numbers, or is empty.

        Examples
        --------
        See `load_model`.
        """
        from core.objects.of_prediction import separated_objects

        _refuse_other_arrays(image)
        checkpoint = self._predictor.checkpoint
        prediction = self._predictor.predict(np.atleast_3d(image), keep_details=False)
        return Segmentation(
            label_map=prediction.label_map,
            objects=separated_objects(prediction, checkpoint.schema, checkpoint.limits),
            confidence=prediction.confidence.astype(np.float32),
            uncertainty=prediction.predictive_entropy.astype(np.float32),
        )

    def predict_tiled(self, image: Any) -> Iterator[SegmentedTile]:
        """Segment an image tile by tile, however large: neither it nor the answer has to fit into memory.

        Each tile sees its surroundings, so every pixel gets the answer of `predict`. Objects are left out:
        they may lie in several tiles.

        Parameters
        ----------
        image : (H, W) or (H, W, C) uint8 or uint16
            An array of numpy, zarr or dask, a memory map, or anything else with `shape`, `dtype` and parts
            that numpy can read.

        Yields
        ------
        SegmentedTile
            Row by row, of 512 pixels a side at most.

        Raises
        ------
        ImageError
            The array has another number of axes or another type of numbers, is empty, or has more channels
            than the model reads.

        Examples
        --------
        >>> import brushloop
        >>> from core.network.checkpoint import Checkpoint
        >>> from core.network.pixels import PixelStatistics
        >>> from core.network.predict import Predictor
        >>> from core.network.unet import build_architecture, initial_weights
        >>> from core.schema import LabelSchema
        >>> architecture = build_architecture(in_channels=1, n_classes=2, widths=(2, 4))
        >>> weights = initial_weights(architecture, np.random.default_rng(0))
        >>> schema = LabelSchema.of("Background", "Nucleus")
        >>> checkpoint = Checkpoint(schema, architecture, weights, PixelStatistics((100.0,), (50.0,)))
        >>> model = brushloop.Model(Predictor(checkpoint))  # or load_model("models/r0007-0a1b2c3d")
        >>> whole = np.zeros((600, 64), np.uint8)
        >>> for tile in model.predict_tiled(whole):
        ...     print(tile.rows, tile.label_map.shape)
        slice(0, 512, None) (512, 64)
        slice(512, 600, None) (88, 64)
        """
        _refuse_other_arrays(image)
        parts = _Parts(image, self._predictor.checkpoint.statistics.n_channels)
        for (rows, columns), said in self._predictor.iter_tiles(parts):  # type: ignore[arg-type]  # read so
            yield SegmentedTile(
                rows,
                columns,
                said.label_map,
                said.confidence.astype(np.float32),
                said.predictive_entropy.astype(np.float32),
            )


class _Parts:
    """An array of any library whose parts are numpy's, with the channels that a model reads."""

    def __init__(self, source: Any, n_channels: int) -> None:
        from core.network.pixels import ONCE_CUT

        n_found = source.shape[2] if source.ndim == 3 else 1
        if n_found > max(n_channels, 1) and (n_found, n_channels) not in ONCE_CUT:
            raise ImageError(f"the model reads {n_channels} channels, the image has {n_found}")
        self.source = source
        self.shape = (*source.shape[:2], n_channels)
        self.ndim, self.dtype = 3, np.dtype(source.dtype)

    def __getitem__(self, part: Any) -> NDArray[Any]:
        from core.network.pixels import conform_channels

        return conform_channels(np.atleast_3d(np.asarray(self.source[part])), self.shape[2])


def _refuse_other_arrays(image: Any) -> None:
    if image.ndim not in (2, 3) or 0 in image.shape:
        raise ImageError(f"an image is (H, W) or (H, W, C) and not empty, got {image.shape}")
    if image.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"an image is uint8 or uint16, as its file has it, got {image.dtype}")
