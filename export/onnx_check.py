"""Write a model as ONNX, once ONNX Runtime is known to say of it what torch says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.network.checkpoint import Checkpoint
from core.network.device import EXACT
from core.network.mixture import FOREST, NETWORK, Share
from core.network.pixels import PixelStatistics
from core.network.predict import Predictor
from core.synthetic import make_image
from export.atomic_files import written_whole
from export.errors import ExportError, import_extra
from export.onnx_graph import IMAGE, PROBABILITIES, weights_of, write_onnx

TOGETHER = "together"
"""Name of what all learners say."""

TOLERANCE = 1e-4
"""Of a probability."""
NEARLY_ALL = 0.999
"""Share of pixels in which a model with a forest stays within the tolerance, at least."""

CHECKED_SHAPES = ((96, 128), (75, 101), (130, 50))
"""Rows and columns; no side of two of them is a multiple of anything that a network likes."""


@dataclass(frozen=True)
class Agreement:
    """How far apart the probabilities of torch and of ONNX Runtime are.

    Attributes
    ----------
    learner : its name, or TOGETHER
    largest : the largest difference of all pixels and classes
    nearly_all : what the difference of 999 in 1000 pixels stays below
    n_beyond, n_pixels : pixels that differ by more than TOLERANCE, and all that were compared
    """

    learner: str
    largest: float
    nearly_all: float
    n_beyond: int
    n_pixels: int

    @property
    def is_exact(self) -> bool:
        """Whether no pixel differs by more than rounding explains."""
        return self.largest <= TOLERANCE


def export_onnx(
    checkpoint: Checkpoint, path: Path, kind: str | None = None, n_looks: int = 1
) -> tuple[Agreement, ...]:
    """Write the graph of a model to `path` once it is known to say what torch says.

    Parameters
    ----------
    checkpoint : Checkpoint
    path : Path
        Nothing is there when something was raised.
    kind : str, optional
        numpy's name of the images' number type; by default that of most images of the project.
    n_looks : 1 to 4
        Mirrored samples of the network; `brushloop predict` takes 4.

    Returns
    -------
    tuple of Agreement
        One for each learner whose every pixel must agree, and one for all together, last. In the trees of a
        forest a feature may meet a threshold but for rounding, and such a pixel differs.

    Raises
    ------
    ExportError
        The graph says something else, the network is one of timm's, or a package is not installed.
    """
    kind = kind or first_kind(checkpoint.statistics)
    images = draw_images(checkpoint.statistics, kind)
    found = [_try_alone(checkpoint, name, kind, images) for name in weights_of(checkpoint) if name != FOREST]
    with written_whole(path) as scratch:
        write_onnx(checkpoint, scratch, kind, n_looks)
        found.append(compare(checkpoint, scratch, images, n_looks))
        _refuse_difference(found, has_forest=FOREST in weights_of(checkpoint))
    return tuple(found)


def _refuse_difference(found: Sequence[Agreement], *, has_forest: bool) -> None:
    for agreement in found:
        may_differ = has_forest and agreement.learner == TOGETHER
        difference = agreement.nearly_all if may_differ else agreement.largest
        if not difference <= TOLERANCE:
            raise ExportError(
                f"what ONNX Runtime says ({agreement.learner}) differs from torch by {difference:.1e}, more "
                f"than {TOLERANCE:g}, so nothing was written; another version of onnxruntime may do it right"
            )


def compare(
    checkpoint: Checkpoint, path: Path, images: Sequence[NDArray[Any]], n_looks: int = 1
) -> Agreement:
    """Ask a graph and torch, in float32, about images of any size."""
    ask, predictor = open_onnx(path), Predictor(checkpoint, 1, compute=EXACT)
    apart = []
    for image in images:
        torch_says = predictor.predict(
            image, n_augmentations=n_looks, keep_details=False, keep_probabilities=True, kept_as=np.float32
        ).probabilities
        apart.append(np.abs(ask(image) - torch_says).max(0).ravel())
    differences = np.concatenate(apart)
    return Agreement(
        TOGETHER,
        float(differences.max()),
        float(np.quantile(differences, NEARLY_ALL)),
        int((differences > TOLERANCE).sum()),
        len(differences),
    )


def open_onnx(path: Path) -> Any:
    """A function that asks a graph: `(H, W, C)` image to `(n_classes, H, W)` probabilities."""
    runtime = import_extra("onnxruntime", "export")
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def ask(image: NDArray[Any]) -> NDArray[np.float32]:
        (found,) = session.run([PROBABILITIES], {IMAGE: to_input(image)})
        return np.asarray(found[0])

    return ask


def to_input(image: NDArray[Any]) -> NDArray[np.float32]:
    """`(H, W, C)` to the graph's `(1, C, H, W)` float32, without scaling."""
    return np.ascontiguousarray(image.astype(np.float32).transpose(2, 0, 1)[None])


def first_kind(statistics: PixelStatistics) -> str:
    """The number type of most images that a model was trained on; 8 bit where that was not kept."""
    return statistics.ranges[0].kind if statistics.ranges else "uint8"


def draw_images(
    statistics: PixelStatistics, kind: str, shapes: Sequence[tuple[int, int]] = CHECKED_SHAPES
) -> list[NDArray[Any]]:
    """Images `(H, W, C)` of several sizes whose channels have a project's mean and deviation."""
    return [_draw(statistics.of(np.dtype(kind)), kind, shape) for shape in shapes]


def _draw(own: PixelStatistics, kind: str, shape: tuple[int, int]) -> NDArray[Any]:
    rng, dtype = np.random.default_rng(shape), np.dtype(kind)
    planes = np.stack([make_image("tissue", rng, shape)[0][..., 0] for _ in own.mean], axis=2).astype(float)
    standard = (planes - planes.mean((0, 1))) / planes.std((0, 1))
    return np.asarray((standard * own.std + own.mean).clip(0, np.iinfo(dtype).max), dtype)


def _try_alone(checkpoint: Checkpoint, name: str, kind: str, images: Sequence[NDArray[Any]]) -> Agreement:
    """What one learner says, without the others."""
    alone = _alone(checkpoint, name)
    with TemporaryDirectory() as folder:
        write_onnx(alone, path := Path(folder) / "alone.onnx", kind)
        return replace(compare(alone, path, images), learner=name)


def _alone(checkpoint: Checkpoint, name: str) -> Checkpoint:
    if name == NETWORK:
        return replace(checkpoint, learners={}, judged={}, shares={}, mixture_temperature=1.0)
    return replace(
        checkpoint,
        learners={name: checkpoint.learners[name]},
        judged={},
        shares={name: Share(1.0, checkpoint.shares[name].temperature)},
        mixture_temperature=1.0,
    )
