"""A trained model for scripts and notebooks: a folder of weights in, arrays out.

It answers as the service does, with the same code, but without Label Studio, a database or a server.
"""

from __future__ import annotations

import os
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

        if image.ndim not in (2, 3):
            raise ImageError(f"an image is (H, W) or (H, W, C), got {image.shape}")
        if image.dtype not in (np.uint8, np.uint16):
            raise ImageError(f"an image is uint8 or uint16, as its file has it, got {image.dtype}")
        checkpoint = self._predictor.checkpoint
        prediction = self._predictor.predict(np.atleast_3d(image), keep_details=False)
        return Segmentation(
            label_map=prediction.label_map,
            objects=separated_objects(prediction, checkpoint.schema, checkpoint.limits),
            confidence=prediction.confidence.astype(np.float32),
            uncertainty=prediction.predictive_entropy.astype(np.float32),
        )
