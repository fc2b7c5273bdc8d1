"""What a model says about one image, pixel by pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Prediction:
    """Maps of one image, all `(H, W)` and in the frame of the image, and what it looks like as a whole.

    Attributes
    ----------
    label_map : uint8
        Index of the most probable class; every pixel has one.
    runner_up : uint8
        Index of the second most probable class.
    confidence : float16
        Calibrated probability of `label_map`, in 0..1.
    predictive_entropy, expected_entropy, mutual_information : float16
        In nats. `mutual_information = predictive_entropy - expected_entropy`, never below 0 (BALD,
        Houlsby et al. 2011, arXiv:1112.5745).
    margin : float16
        Probability of the first class minus that of the second, in 0..1.
    outline : float16 or None
        How probable it is, in 0..1, that a pixel lies at the rim of an object; see `core.training.outlines`.
    probabilities : float16, or what was asked for, or None
        `(C, H, W)`, kept only when the caller asked for it.
    embedding : float16 or None
        `(D,)`, of length 1: what the network saw in the image as a whole; see `core.network.embedding`.

    Raises
    ------
    ValueError
        The maps differ in shape.
    """

    label_map: NDArray[np.uint8]
    runner_up: NDArray[np.uint8]
    confidence: NDArray[np.float16]
    predictive_entropy: NDArray[np.float16]
    expected_entropy: NDArray[np.float16]
    mutual_information: NDArray[np.float16]
    margin: NDArray[np.float16]
    outline: NDArray[np.float16] | None = None
    probabilities: NDArray[np.floating[Any]] | None = None
    embedding: NDArray[np.float16] | None = None

    def __post_init__(self) -> None:
        maps = (
            self.label_map,
            self.runner_up,
            self.confidence,
            self.predictive_entropy,
            self.expected_entropy,
            self.mutual_information,
            self.margin,
        )
        shapes = {values.shape for values in maps}
        if self.outline is not None:
            shapes.add(self.outline.shape)
        if self.probabilities is not None:
            shapes.add(self.probabilities.shape[1:])
        if len(shapes) != 1 or len(self.label_map.shape) != 2:
            raise ValueError(f"the maps of a prediction must share one (H, W), got {sorted(shapes)}")

    @property
    def shape(self) -> tuple[int, int]:
        height, width = self.label_map.shape
        return height, width


def empty_prediction(
    shape: tuple[int, int], keep_details: bool, kept: NDArray[Any] | None, has_outline: bool
) -> Prediction:
    """Maps to be filled; those of the details hold NaN and take no memory where they are not kept."""

    def detail() -> NDArray[np.float16]:
        return np.empty(shape, np.float16) if keep_details else np.broadcast_to(np.float16(np.nan), shape)

    return Prediction(
        label_map=np.empty(shape, np.uint8),
        runner_up=np.empty(shape, np.uint8),
        confidence=np.empty(shape, np.float16),
        predictive_entropy=np.empty(shape, np.float16),
        expected_entropy=detail(),
        mutual_information=detail(),
        margin=detail(),
        outline=np.empty(shape, np.float16) if has_outline else None,
        probabilities=kept,
    )
