"""Choose the places of an image where an answer would teach the model most."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from core.painting import Box
from core.prediction import Prediction
from core.schema import LabelSchema
from core.truth import Mask

QUESTION_DIAMETERS = 2.0
"""A question shows an object and its neighbourhood: this many typical diameters wide."""

MIN_SIDE_PX, MAX_SIDE_PX = 48, 256
"""Smaller boxes are hard to hit, larger ones take long to check."""

MIN_BOXES_ACROSS = 3
"""However small the image, a question is at most this part of it."""

BLOCKS_PER_SIDE = 4
"""Boxes move in steps of a quarter of their side: means of blocks are all that is kept of an image."""

EDGE_WEIGHT = 0.25
"""Models are unsure along every outline; counted in full, each outline would be a question (nnActive:
entropy alone selects borders)."""

EDGE_KERNEL = np.ones((5, 5), np.uint8)
"""Reaches two pixels to either side of an outline."""

MIN_SCORE = 1e-3
"""Below this the model is sure, and there is nothing to ask."""

MIN_SCORE_SHARE = 0.3
"""To let every pair of classes have its say, a question may be this much less uncertain than the worst."""

MAX_CANDIDATES = 1000
"""Enough to find a rare pair of classes behind a common one; bounds the time on very large images."""

ROWS_AT_ONCE = 512
"""Bounds the memory in 32-bit numbers on very large images."""


@dataclass(frozen=True)
class Region:
    """A question for a person.

    `acquisition_score` is the mean uncertainty in 0..1, higher = ask first. `confidence` is how sure the
    model is of `class_index` against `runner_up_index`, where it is unsure of them, in 0..1.
    """

    box: Box
    acquisition_score: float
    class_index: int
    runner_up_index: int
    confidence: float


def propose_regions(
    prediction: Prediction, annotated: Mask, schema: LabelSchema, object_size_px: float, n: int
) -> tuple[Region, ...]:
    """Choose up to `n` boxes where the model is least sure.

    Candidates are ranked by the mean predictive entropy in the box, chosen greedily without overlap
    (nnActive, Lüth et al. 2025) and spread over the pairs of classes that the model confuses.

    Parameters
    ----------
    prediction : Prediction
        Maps of one image; may be memory maps.
    annotated : (H, W) bool
        Where something is known already: no box covers any of it.
    object_size_px : float
        Typical diameter of an object.
    n : int
        How many questions at most.

    Returns
    -------
    tuple of Region
        Disjoint, inside the image, most uncertain first; the same input gives the same boxes.

    Raises
    ------
    ValueError
        `annotated` has another shape, or the entropy is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> zeros = np.zeros((96, 96), np.float16)
    >>> entropy = zeros.copy()
    >>> entropy[64:, 64:] = 0.69
    >>> labels = np.zeros((96, 96), np.uint8)
    >>> maps = Prediction(labels, labels + np.uint8(1), zeros + np.float16(0.5), entropy, zeros, zeros, zeros)
    >>> schema = LabelSchema.of("Background", "Nucleus")
    >>> question, = propose_regions(maps, np.zeros((96, 96), bool), schema, 8, 1)
    >>> question.box, reason(question, schema)
    (Box(top=64, left=64, height=32, width=32), 'Background or Nucleus? 50 %')
    """
    if annotated.shape != prediction.shape:
        raise ValueError(f"annotated is {annotated.shape}, the prediction {prediction.shape}")
    if n < 1 or len(schema) < 2 or min(prediction.shape) < 1:
        return ()
    grid = _Grid.of(prediction.shape, object_size_px)
    scores = _box_scores(prediction, annotated, grid) / math.log(len(schema))
    candidates = [
        _describe(prediction, grid.box(row, column), score) for row, column, score in _greedy(scores, grid)
    ]
    return tuple(sorted(_spread(candidates, n), key=lambda region: -region.acquisition_score))


def reason(region: Region, schema: LabelSchema) -> str:
    """Say in a few words why this place is asked about, as in `Nucleus or Background? 52 %`."""
    first, second = schema.names[region.class_index], schema.names[region.runner_up_index]
    return f"{first} or {second}? {100 * region.confidence:.0f} %"


@dataclass(frozen=True)
class _Grid:
    """Blocks of `step` pixels from `(top, left)` on; a box is `blocks` blocks high and wide."""

    top: int
    left: int
    step: int
    blocks: tuple[int, int]
    shape: tuple[int, int]

    @classmethod
    def of(cls, image_shape: tuple[int, int], object_size_px: float) -> _Grid:
        wanted = min(max(QUESTION_DIAMETERS * object_size_px, MIN_SIDE_PX), MAX_SIDE_PX)
        wanted = min(wanted, min(image_shape) / MIN_BOXES_ACROSS)
        step = max(1, round(wanted / BLOCKS_PER_SIDE))
        shape = (image_shape[0] // step, image_shape[1] // step)
        # What does not fill a block is left out evenly on both sides.
        top, left = (image_shape[0] % step) // 2, (image_shape[1] % step) // 2
        blocks = (min(BLOCKS_PER_SIDE, shape[0]), min(BLOCKS_PER_SIDE, shape[1]))
        return cls(top, left, step, blocks, shape)

    def box(self, row: int, column: int) -> Box:
        height, width = self.blocks[0] * self.step, self.blocks[1] * self.step
        return Box(self.top + row * self.step, self.left + column * self.step, height, width)


def _box_scores(prediction: Prediction, annotated: Mask, grid: _Grid) -> NDArray[np.float64]:
    """Mean uncertainty of the box at each position; minus infinity where it covers annotated pixels."""
    uncertainty = np.zeros(grid.shape, np.float32)
    known = np.zeros(grid.shape, np.float32)
    rows_per_stripe = max(1, ROWS_AT_ONCE // grid.step)
    for first in range(0, grid.shape[0], rows_per_stripe):
        last = min(first + rows_per_stripe, grid.shape[0])
        rows = slice(grid.top + first * grid.step, grid.top + last * grid.step)
        columns = slice(grid.left, grid.left + grid.shape[1] * grid.step)
        uncertainty[first:last] = _block_means(_damped_entropy(prediction, rows)[:, columns], grid.step)
        known[first:last] = _block_means(annotated[rows, columns], grid.step)
    if not np.isfinite(uncertainty).all():
        raise ValueError("the predictive entropy is not finite everywhere")
    scores = _sum_of_boxes(uncertainty, grid.blocks) / (grid.blocks[0] * grid.blocks[1])
    scores[_sum_of_boxes((known > 0).astype(np.float32), grid.blocks) > 0] = -np.inf
    return scores


def _damped_entropy(prediction: Prediction, rows: slice, columns: slice = slice(None)) -> NDArray[np.float32]:
    """Entropy of some rows, weakened along the outlines of what is predicted."""
    reach = EDGE_KERNEL.shape[0] // 2
    above = min(reach, rows.start)
    labels = np.ascontiguousarray(prediction.label_map[rows.start - above : rows.stop + reach])
    is_edge = (cv2.dilate(labels, EDGE_KERNEL) != cv2.erode(labels, EDGE_KERNEL))[
        above : above + rows.stop - rows.start, columns
    ]
    entropy = prediction.predictive_entropy[rows, columns].astype(np.float32)
    entropy[is_edge] *= EDGE_WEIGHT
    return entropy


def _block_means(values: NDArray[Any], step: int) -> NDArray[np.float32]:
    height, width = values.shape
    blocks = values.reshape(height // step, step, width // step, step)
    return np.asarray(blocks.mean(axis=(1, 3), dtype=np.float32))


def _sum_of_boxes(blocks: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float64]:
    total = cv2.integral(blocks, sdepth=cv2.CV_64F)
    rows, columns = size
    summed = (
        total[rows:, columns:] - total[:-rows, columns:] - total[rows:, :-columns] + total[:-rows, :-columns]
    )
    return np.asarray(summed, np.float64)


def _greedy(scores: NDArray[np.float64], grid: _Grid) -> Iterator[tuple[int, int, float]]:
    """Yield the best position again and again, without the ones that would overlap it."""
    left = scores.copy()
    rows, columns = grid.blocks
    least = max(MIN_SCORE, MIN_SCORE_SHARE * float(scores.max()))
    for _ in range(MAX_CANDIDATES):
        row, column = (int(i) for i in np.unravel_index(int(np.argmax(left)), left.shape))
        score = float(left[row, column])
        if score < least:
            return
        yield row, column, score
        left[max(0, row - rows + 1) : row + rows, max(0, column - columns + 1) : column + columns] = -np.inf


def _describe(prediction: Prediction, box: Box, score: float) -> Region:
    """Find the two classes that are confused most in a box, and how sure the model is there."""
    rows, columns = box.slices
    weights = _damped_entropy(prediction, rows, columns).ravel()
    first = prediction.label_map[rows, columns].astype(np.intp).ravel()
    pairs = first * 256 + prediction.runner_up[rows, columns].ravel()
    pair = int(np.argmax(np.bincount(pairs, weights)))
    of_pair = pairs == pair
    confidence = np.average(prediction.confidence[rows, columns].ravel()[of_pair], weights=weights[of_pair])
    return Region(box, min(1.0, score), pair // 256, pair % 256, float(np.clip(confidence, 0, 1)))


def _spread(candidates: Sequence[Region], n: int) -> list[Region]:
    """Take candidates in turn from each pair of confused classes, best first."""
    by_pair: dict[frozenset[int], list[Region]] = {}
    for region in candidates:
        by_pair.setdefault(frozenset((region.class_index, region.runner_up_index)), []).append(region)
    turns = [
        (turn, -region.acquisition_score, region)
        for regions in by_pair.values()
        for turn, region in enumerate(regions)
    ]
    return [region for *_, region in sorted(turns, key=lambda entry: entry[:2])[:n]]
