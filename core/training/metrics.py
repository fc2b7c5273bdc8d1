"""How good a segmentation is, counted over annotated pixels, and how sure one may be of the number."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from core.distances import distance_inside
from core.schema import IGNORE_INDEX

Counts = NDArray[np.int64]
"""`(..., C, 3)`: true positive, false positive and false negative pixels per class."""

TRUE_POSITIVE, FALSE_POSITIVE, FALSE_NEGATIVE = 0, 1, 2


def count_pixels(predicted: NDArray[np.uint8], truth: NDArray[np.uint8], n_classes: int) -> Counts:
    """Count per class over the annotated pixels of `truth`.

    Returns
    -------
    (n_classes, 3) int64

    Examples
    --------
    >>> count_pixels(np.array([[0, 1, 1]], np.uint8), np.array([[0, 0, 255]], np.uint8), 2).tolist()
    [[1, 0, 1], [0, 1, 0]]
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"prediction {predicted.shape} and truth {truth.shape} differ in shape")
    annotated = truth != IGNORE_INDEX
    # Each pair of classes is one number, so a single histogram counts the confusions of all classes.
    pairs = truth[annotated].astype(np.int64) * n_classes + predicted[annotated]
    confusion = np.bincount(pairs, minlength=n_classes * n_classes).reshape(n_classes, n_classes)
    hit = confusion.diagonal()
    return np.stack([hit, confusion.sum(0) - hit, confusion.sum(1) - hit], axis=-1)


def dice(counts: Counts) -> NDArray[np.float64]:
    """`(..., C)` Dice = 2 TP / (2 TP + FP + FN); NaN for a class that is neither there nor predicted.

    >>> dice(np.array([[2, 1, 1], [0, 0, 0]])).tolist()
    [0.6666666666666666, nan]
    """
    hit, false, missed = np.moveaxis(counts, -1, 0)
    return _ratio(2 * hit, 2 * hit + false + missed)


def iou(counts: Counts) -> NDArray[np.float64]:
    """`(..., C)` intersection over union; NaN for a class that is neither there nor predicted.

    >>> iou(np.array([[2, 1, 1]])).tolist()
    [0.5]
    """
    hit, false, missed = np.moveaxis(counts, -1, 0)
    return _ratio(hit, hit + false + missed)


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def resample_units(
    counts: Counts, groups: NDArray[np.intp], rng: np.random.Generator, n_resamples: int = 1000
) -> Counts:
    """Bootstrap in two stages: groups with replacement, then units within each that was drawn.

    Blocks of one image are alike. Drawn as if each were an image of its own, they would be far too sure of
    what the next image says.

    Parameters
    ----------
    counts : (n_units, ...) int64
        E.g. of held-out blocks.
    groups : (n_units,) int
        E.g. the number of each block's image, from 0 on; with one group, only its units are drawn.

    Returns
    -------
    (n_resamples, ...) int64
        Sums over what was drawn.

    References: Davison & Hinkley 1997, "Bootstrap Methods and their Application", section 3.8.

    Examples
    --------
    >>> counts, rng = np.array([1, 1, 8, 8]), np.random.default_rng(0)
    >>> sorted(set(resample_units(counts, np.array([0, 0, 1, 1]), rng).tolist()))
    [4, 18, 32]
    """
    n_units = len(counts)
    n_groups = int(groups.max(initial=0)) + 1
    # Counts of draws instead of drawn indices: memory does not grow with the number of units drawn.
    times = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=n_resamples)
    draws = np.zeros((n_resamples, n_units), np.int64)
    for group in range(n_groups):
        units = np.flatnonzero(groups == group)
        draws[:, units] = rng.multinomial(times[:, group] * units.size, np.full(units.size, 1 / units.size))
    return np.asarray(np.tensordot(draws, counts, axes=1))


def bootstrap_interval(
    counts: Counts,
    groups: NDArray[np.intp],
    score: Callable[[Counts], NDArray[np.float64]],
    rng: np.random.Generator,
    level: float = 0.95,
) -> NDArray[np.float64]:
    """`(C, 2)` percentile interval of `score` (e.g. `dice`) over units `(n_units, C, 3)` in their groups.

    A class that is missing in every draw gets NaN.
    """
    scores = score(resample_units(counts, groups, rng))
    edges = np.full((scores.shape[1], 2), np.nan)
    for class_index, values in enumerate(scores.T):
        # A rare class is missing in some draws, which say nothing about it.
        measured = values[~np.isnan(values)]
        if len(measured):
            edges[class_index] = np.quantile(measured, [(1 - level) / 2, (1 + level) / 2])
    return edges


def boundary_f1(predicted: NDArray[np.bool_], truth: NDArray[np.bool_], tolerance_px: float = 2.0) -> float:
    """F1 of outlines: a boundary pixel counts when the other outline is within `tolerance_px`.

    References: Csurka et al. 2013, "What is a good evaluation measure for semantic segmentation?"

    Examples
    --------
    >>> square = np.zeros((9, 9), bool); square[3:6, 3:6] = True
    >>> boundary_f1(square, np.roll(square, 1, axis=1))
    1.0
    """
    outlines = [mask & ~_eroded(mask) for mask in (predicted, truth)]
    if not outlines[0].any() or not outlines[1].any():
        # Two images without an outline agree; with one outline there is nothing to be near to.
        return float(outlines[0].any() == outlines[1].any())
    distances = [distance_inside(~outline) for outline in outlines]
    precision = float((distances[1][outlines[0]] <= tolerance_px).mean())
    recall = float((distances[0][outlines[1]] <= tolerance_px).mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _eroded(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    return np.asarray(cv2.erode(mask.astype(np.uint8), cross, borderValue=1) > 0)


def average_precision(
    predicted: NDArray[np.int32], truth: NDArray[np.int32], threshold: float = 0.5
) -> float:
    """Objects found at an IoU above `threshold`: TP / (TP + FP + FN), as StarDist and Cellpose report it.

    Parameters
    ----------
    predicted, truth : (H, W) int32
        Instance numbers, 0 = background. From .5 on, every object has at most one partner.

    Examples
    --------
    >>> average_precision(np.array([[1, 1, 2]], np.int32), np.array([[5, 5, 0]], np.int32))
    0.5
    """
    if threshold < 0.5:
        raise ValueError(f"below .5 partners are not unique, got {threshold}")
    guess, real = _ranks(predicted), _ranks(truth)
    n_guess, n_real = int(guess.max()), int(real.max())
    shape = (n_real + 1, n_guess + 1)
    pairs = real * shape[1] + guess
    overlap = np.bincount(pairs, minlength=shape[0] * shape[1]).reshape(shape)
    union = overlap.sum(0, keepdims=True) + overlap.sum(1, keepdims=True) - overlap
    hits = int((overlap[1:, 1:] > threshold * union[1:, 1:]).sum())
    found = n_guess + n_real - hits
    return hits / found if found else 1.0


def _ranks(instances: NDArray[np.int32]) -> NDArray[np.int64]:
    """Instance numbers as `(n,)` ranks without gaps, in which 0 stays background even where there is none."""
    return np.asarray(np.unique(np.concatenate([[0], instances.ravel()]), return_inverse=True)[1][1:])


def expected_calibration_error(
    confidence: NDArray[np.floating], correct: NDArray[np.bool_], n_bins: int = 15
) -> float:
    """Mean gap between confidence and accuracy over bins of equal mass, in 0..1.

    References: Naeini et al. 2015, https://arxiv.org/abs/1411.0160; Nguyen & O'Connor 2015 for equal mass.

    Examples
    --------
    >>> expected_calibration_error(np.array([0.75] * 4), np.array([True, True, True, False]), 1)
    0.0
    """
    # Bins of equal width would put nearly all pixels into the last one: most answers are sure.
    order = np.argsort(confidence, axis=None, kind="stable")
    bins = zip(
        np.array_split(confidence.ravel()[order], n_bins),
        np.array_split(correct.ravel()[order], n_bins),
        strict=True,
    )
    gaps = [len(c) * abs(float(c.mean(dtype=np.float64)) - float(k.mean())) for c, k in bins if len(c)]
    return sum(gaps) / max(confidence.size, 1)
