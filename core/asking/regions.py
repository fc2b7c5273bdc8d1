"""Choose the places of an image where an answer would teach the model most."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from core.asking.acquisition import (
    EDGE_KERNEL,
    UncertaintyMap,
    entropy,
    expected_error,
    rank_in_turns,
    weaken_outlines,
)
from core.asking.region_grid import MAX_SIDE_PX, MIN_SIDE_PX, Grid
from core.painting import Box, Mask
from core.prediction import Prediction
from core.schema import LabelSchema

__all__ = [
    "MAX_SIDE_PX",
    "MIN_SIDE_PX",
    "Region",
    "choose_regions",
    "find_candidates",
    "propose_regions",
    "set_apart",
]

MIN_SCORE = 1e-4
"""Below this there is no uncertainty that could be compared."""

MIN_EXPECTED_ERROR = 0.02
"""Where fewer than one pixel in fifty is probably wrong, outlines counted less, the model is sure:
checking the box would cost more than it teaches."""

MIN_SCORE_SHARE = 0.3
"""To let every pair of classes have its say, a question may be this much less uncertain than the worst."""

CLEAR_PX = 6
"""Screen pixels between two questions, which are drawn with lines of 2: 4 of them stay free."""

SHOWN_PX = 600
"""An image is fitted to an editor in which its longer side takes at least so many screen pixels."""

INSET_SHARE = 1 / 8
"""Of its side, a question gives at most so much on each side to be apart."""

MAX_CANDIDATES = 1000
"""Enough to find a rare pair of classes behind a common one; bounds the time on very large images."""

SMALLEST_WEIGHT = 1e-9
"""A box of which the model is sure everywhere still has a most frequent pair of classes."""

MAPS = (
    "label_map",
    "runner_up",
    "confidence",
    "predictive_entropy",
    "expected_entropy",
    "mutual_information",
    "margin",
)

Window = Callable[[slice, slice], NDArray[np.float32]]
"""Uncertainty of some rows and columns."""


@dataclass(frozen=True)
class Region:
    """A question for a person.

    `acquisition_score` is the mean uncertainty in 0..1, higher = ask first. `confidence` is how sure the
    model is of `class_index` against `runner_up_index`, where it is unsure of them, in 0..1.
    `expected_error` is the share of the box's pixels that are probably wrong, outlines counted less;
    `has_object` says that an object is predicted in the box, `is_disputed` that people differ there.
    `n_objects` is set where the question is about objects of `class_index` and not about pixels: one or two,
    whichever is more probable in the box, and `confidence` is how sure that is.
    """

    box: Box
    acquisition_score: float
    class_index: int
    runner_up_index: int
    confidence: float
    expected_error: float = 1.0
    has_object: bool = True
    is_disputed: bool = False
    n_objects: int = 0


def propose_regions(
    prediction: Prediction,
    annotated: Mask,
    schema: LabelSchema,
    object_size_px: float,
    n: int,
) -> tuple[Region, ...]:
    """Choose up to `n` boxes of one image where an answer would teach most.

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
        Apart from each other and from the edge; where the model is least sure, spread over the pairs of
        classes that it confuses, most uncertain first. None where the model is sure.

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
    >>> question, = propose_regions(maps, np.zeros((96, 96), bool), schema, 16, 1)
    >>> question.box, question.class_index, question.runner_up_index, question.confidence
    (Box(top=65, left=65, height=30, width=30), 0, 1, 0.5)
    """
    candidates = find_candidates(prediction, annotated, schema, object_size_px)
    return set_apart(candidates, n, prediction.shape)


def set_apart(
    candidates: Sequence[Region], n: int, shape: tuple[int, int], taken: Sequence[Box] = ()
) -> tuple[Region, ...]:
    """Choose up to `n` candidates of one image of `shape`, most uncertain first, and draw them apart.

    Each gets a little smaller, so that none touches the edge of the image. One that would still lie within
    `CLEAR_PX` on the screen of a better one, or of a box that is `taken`, is left out.
    """
    clear_px = clearance(shape)
    chosen: list[Region] = []
    for index in choose_regions(candidates, len(candidates)):
        region = replace(candidates[index], box=_inset(candidates[index].box, clear_px))
        others = [*taken, *(one.box for one in chosen)]
        if len(chosen) < n and all(_distance(region.box, other) >= clear_px for other in others):
            chosen.append(region)
    return tuple(sorted(chosen, key=lambda region: -region.acquisition_score))


def clearance(shape: tuple[int, int]) -> int:
    """Pixels of an image that are at least `CLEAR_PX` on a screen that shows all of it.

    >>> clearance((96, 96)), clearance((1024, 768))
    (1, 11)
    """
    return math.ceil(CLEAR_PX * max(shape) / SHOWN_PX)


def _inset(box: Box, clear_px: int) -> Box:
    gap = min(math.ceil(clear_px / 2), int(INSET_SHARE * min(box.height, box.width)))
    return Box(box.top + gap, box.left + gap, box.height - 2 * gap, box.width - 2 * gap)


def _distance(one: Box, other: Box) -> int:
    """Pixels between boxes on the axis on which they are further apart; below 0 where they overlap."""
    down = max(other.top - one.top - one.height, one.top - other.top - other.height)
    along = max(other.left - one.left - one.width, one.left - other.left - other.width)
    return max(down, along)


def find_candidates(
    prediction: Prediction,
    annotated: Mask,
    schema: LabelSchema,
    object_size_px: float,
    *,
    uncertainty: UncertaintyMap = entropy,
    by_chance: np.random.Generator | None = None,
    even_sure: bool = False,
) -> tuple[Region, ...]:
    """Find the boxes of one image that could be asked about, for `choose_regions`.

    They are taken greedily without overlap (nnActive, Lüth et al. 2025) by the mean uncertainty in the box,
    or drawn `by_chance`. Arguments and errors are those of `propose_regions`; `even_sure` also gives boxes
    that are no question, because the model is sure in them, so that images can still be compared.
    """
    if annotated.shape != prediction.shape:
        raise ValueError(f"annotated is {annotated.shape}, the prediction {prediction.shape}")
    if len(schema) < 2 or min(prediction.shape) < 1:
        return ()
    grid = Grid.of(prediction.shape, object_size_px)
    scores = _box_scores(prediction, annotated, grid, uncertainty, len(schema))
    keys, least = scores, max(MIN_SCORE, MIN_SCORE_SHARE * float(scores.max()))
    if by_chance is not None:
        keys, least = np.where(np.isfinite(scores), by_chance.random(scores.shape), -np.inf), 0
    places = itertools.islice(grid.pick_apart(keys, least), MAX_CANDIDATES)
    weights = functools.partial(_weakened, prediction, uncertainty, len(schema))
    questions = [
        _describe(prediction, grid.box(*place), float(scores[place]), weights, schema) for place in places
    ]
    return tuple(r for r in questions if even_sure or by_chance is not None or is_question(r))


def is_question(region: Region) -> bool:
    """Whether the model is unsure enough of a box to ask a person."""
    return region.expected_error >= MIN_EXPECTED_ERROR


def choose_regions(candidates: Sequence[Region], n: int) -> list[int]:
    """Choose up to `n` candidates, of one image or of many; returns positions in the order to ask."""
    scores = [region.acquisition_score for region in candidates]
    pairs = [frozenset((region.class_index, region.runner_up_index)) for region in candidates]
    return rank_in_turns(scores, pairs)[: max(n, 0)]


def _box_scores(
    prediction: Prediction, annotated: Mask, grid: Grid, uncertainty_of: UncertaintyMap, n_classes: int
) -> NDArray[np.float64]:
    """Mean uncertainty of the box at each position; minus infinity where it covers annotated pixels."""
    uncertainty = np.zeros(grid.shape, np.float32)
    annotated_share = np.zeros(grid.shape, np.float32)
    for blocks, rows, columns in grid.stripes():
        values = _weakened(prediction, uncertainty_of, n_classes, rows, columns)
        uncertainty[blocks] = grid.block_means(values)
        annotated_share[blocks] = grid.block_means(annotated[rows, columns])
    if not np.isfinite(uncertainty).all():
        raise ValueError("the map of uncertainty is not finite everywhere")
    scores = grid.box_means(uncertainty)
    scores[grid.box_means((annotated_share > 0).astype(np.float32)) > 0] = -np.inf
    return scores


def _weakened(
    prediction: Prediction, uncertainty_of: UncertaintyMap, n_classes: int, rows: slice, columns: slice
) -> NDArray[np.float32]:
    """The uncertainty of a window, counted less along the outlines of what is predicted."""
    window, inside = _window(prediction, rows, columns)
    values = uncertainty_of(window, n_classes)
    return weaken_outlines(values, window.label_map)[inside]


def _window(prediction: Prediction, rows: slice, columns: slice) -> tuple[Prediction, tuple[slice, slice]]:
    """Cut a prediction with the surroundings that outlines need; and where the wanted part is in it."""
    reach = EDGE_KERNEL.shape[0] // 2
    above, before = min(reach, rows.start), min(reach, columns.start)
    cut = (slice(rows.start - above, rows.stop + reach), slice(columns.start - before, columns.stop + reach))
    inside = (
        slice(above, above + rows.stop - rows.start),
        slice(before, before + columns.stop - columns.start),
    )
    return Prediction(*(getattr(prediction, name)[cut] for name in MAPS)), inside


def _describe(
    prediction: Prediction, box: Box, score: float, weights_of: Window, schema: LabelSchema
) -> Region:
    """Find the two classes that are confused most in a box, and how sure the model is there."""
    rows, columns = box.slices
    weights = weights_of(rows, columns).ravel() + SMALLEST_WEIGHT
    labels = prediction.label_map[rows, columns]
    pairs = labels.astype(np.intp).ravel() * 256 + prediction.runner_up[rows, columns].ravel()
    pair = int(np.argmax(np.bincount(pairs, weights)))
    of_pair = pairs == pair
    confidence = np.average(prediction.confidence[rows, columns].ravel()[of_pair], weights=weights[of_pair])
    window, inside = _window(prediction, rows, columns)
    wrong = weaken_outlines(expected_error(window), window.label_map)[inside].mean(dtype=np.float64)
    return Region(
        box,
        min(1.0, score),
        pair // 256,
        pair % 256,
        float(np.clip(confidence, 0, 1)),
        float(np.clip(wrong, 0, 1)),
        bool(np.isin(labels, schema.object_indices).any()),
    )
