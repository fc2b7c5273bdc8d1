"""How good the answers for fully known images are: pixels, outlines, objects, and the doubts about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from bench.annotator import OBJECT, SCHEMA, LabelledImage
from core.distances import distance_inside
from core.training.metrics import (
    average_precision,
    boundary_f1,
    count_pixels,
    dice,
    expected_calibration_error,
)

EDGE_BAND_PX = 2.0
"""Outlines are drawn no better than this, so every outline holds errors, and every map doubts it there."""

RELIABILITY_BINS = 15


@dataclass(frozen=True)
class Answer:
    """What a learner says about one image; all maps are `(H, W)`.

    `instances` numbers the objects, 0 = none. `confidence` is the probability of `label_map`; each of
    `doubts` is larger where the learner is less sure.
    """

    label_map: NDArray[np.uint8]
    instances: NDArray[np.int32]
    confidence: NDArray[np.floating[Any]]
    doubts: Mapping[str, NDArray[np.floating[Any]]]


def score_answers(answers: Sequence[Answer], test: Sequence[LabelledImage]) -> dict[str, Any]:
    """Everything that is measured of one learner on one set, as plain JSON values.

    Dice, boundary F1 at 2 px and object AP at IoU .5 are means over the images; calibration and AUROC are
    over the pixels of all images.
    """
    objects = [answer.label_map == OBJECT for answer in answers]
    truth = [labelled.instances > 0 for labelled in test]
    pairs = list(zip(objects, truth, strict=True))
    confidence = np.concatenate([np.asarray(a.confidence, np.float64).ravel() for a in answers])
    right = np.concatenate([(ours == real).ravel() for ours, real in pairs])
    mean_dice, pooled_dice = object_dice([answer.label_map for answer in answers], test)
    return {
        "dice": mean_dice,
        "pooled_dice": pooled_dice,
        "boundary_f1": float(np.mean([boundary_f1(ours, real) for ours, real in pairs])),
        "ap50": float(
            np.mean([average_precision(a.instances, t.instances) for a, t in zip(answers, test, strict=True)])
        ),
        "ece": expected_calibration_error(confidence, right, RELIABILITY_BINS),
        "wrong_share": float(1 - right.mean()),
        "auroc": _aurocs(answers, pairs, ~right),
        "reliability": reliability(confidence, right),
    }


def object_dice(answers: Sequence[NDArray[np.uint8]], test: Sequence[LabelledImage]) -> tuple[float, float]:
    """Dice of the object class: mean over images, and from the pixels of all images together."""
    counts = np.stack(
        [
            count_pixels(answer, (labelled.instances > 0).astype(np.uint8), len(SCHEMA))
            for answer, labelled in zip(answers, test, strict=True)
        ]
    )
    return float(np.nanmean(dice(counts)[:, OBJECT])), float(dice(counts.sum(0))[OBJECT])


def auroc(doubt: NDArray[np.floating[Any]], is_wrong: NDArray[np.bool_]) -> float | None:
    """Probability that a wrong pixel is doubted more than a right one, ties half; None without either.

    >>> auroc(np.array([0.1, 0.9, 0.5, 0.5]), np.array([False, True, True, False]))
    0.875
    """
    n_wrong = int(is_wrong.sum())
    n_right = is_wrong.size - n_wrong
    if not n_wrong or not n_right:
        return None
    ranks = rankdata(doubt)
    return float((ranks[is_wrong].sum() - n_wrong * (n_wrong + 1) / 2) / n_wrong / n_right)


def edge_band(mask: NDArray[np.bool_], width_px: float = EDGE_BAND_PX) -> NDArray[np.bool_]:
    """Pixels within `width_px` of the outline of `mask`, on either side of it.

    >>> edge_band(np.array([[0, 0, 0, 0, 1, 1, 1, 1]], bool)).astype(int).tolist()
    [[0, 0, 1, 1, 1, 1, 0, 0]]
    """
    if mask.all() or not mask.any():
        return np.zeros(mask.shape, bool)
    return np.asarray(np.maximum(distance_inside(mask), distance_inside(~mask)) <= width_px)


def reliability(
    confidence: NDArray[np.float64], right: NDArray[np.bool_], n_bins: int = RELIABILITY_BINS
) -> list[list[float]]:
    """Mean confidence and accuracy of each of `n_bins` bins of equal mass, least sure first."""
    order = np.argsort(confidence, kind="stable")
    parts = zip(np.array_split(confidence[order], n_bins), np.array_split(right[order], n_bins), strict=True)
    return [[float(c.mean()), float(r.mean())] for c, r in parts if len(c)]


def _aurocs(
    answers: Sequence[Answer],
    pairs: Sequence[tuple[NDArray[np.bool_], NDArray[np.bool_]]],
    is_wrong: NDArray[np.bool_],
) -> dict[str, dict[str, float | None]]:
    """Per doubt, with no band left out, without the one around the answer's outlines, and the truth's."""
    kept = {
        "all": np.ones(is_wrong.size, bool),
        "without_answer_band": np.concatenate([~edge_band(ours).ravel() for ours, _ in pairs]),
        "without_truth_band": np.concatenate([~edge_band(real).ravel() for _, real in pairs]),
    }
    found: dict[str, dict[str, float | None]] = {}
    for name in answers[0].doubts:
        doubt = np.concatenate([np.asarray(a.doubts[name], np.float32).ravel() for a in answers])
        found[name] = {band: auroc(doubt[where], is_wrong[where]) for band, where in kept.items()}
    return found
