"""How good answers for fully known multi-class images are, and how good the doubts about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.domain_sets import MappedImage
from bench.scores import RELIABILITY_BINS, auroc
from core.schema import IGNORE_INDEX, LabelSchema
from core.training.metrics import (
    FALSE_NEGATIVE,
    TRUE_POSITIVE,
    count_pixels,
    dice,
    expected_calibration_error,
)


@dataclass(frozen=True)
class Guess:
    """What a learner says about one image, all `(H, W)`; `doubt` is larger where it is less sure."""

    label_map: NDArray[np.uint8]
    confidence: NDArray[np.floating[Any]]
    doubt: NDArray[np.floating[Any]]


def score_guesses(
    guesses: Sequence[Guess], test: Sequence[MappedImage], schema: LabelSchema
) -> dict[str, Any]:
    """Dice per class over the pixels of all images together and its mean, ECE and AUROC, as plain JSON.

    The mean is over the classes that the truth holds; one that nobody answers counts as 0.
    """
    pairs = list(zip(guesses, test, strict=True))
    counts = np.sum([count_pixels(g.label_map, t.label_map, len(schema)) for g, t in pairs], axis=0)
    held = counts[:, TRUE_POSITIVE] + counts[:, FALSE_NEGATIVE] > 0
    per_class = dice(counts)
    known = [t.label_map != IGNORE_INDEX for t in test]
    right = np.concatenate([(g.label_map == t.label_map)[k] for (g, t), k in zip(pairs, known, strict=True)])
    confidence = np.concatenate(
        [np.asarray(g.confidence[k], float) for g, k in zip(guesses, known, strict=True)]
    )
    doubt = np.concatenate([np.asarray(g.doubt[k], np.float32) for g, k in zip(guesses, known, strict=True)])
    return {
        "dice": float(np.nan_to_num(per_class[held]).mean()),
        "class_dice": {
            name: float(np.nan_to_num(value))
            for name, value, there in zip(schema.names, per_class, held, strict=True)
            if there
        },
        "ece": expected_calibration_error(confidence, right, RELIABILITY_BINS),
        "auroc": auroc(doubt, ~right),
        "wrong_share": float(1 - right.mean()),
    }
