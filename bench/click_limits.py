"""What keeps a click below its goal where there is a model: which object it sees, how objects are kept apart,
or its probabilities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from bench import Figures
from bench.annotator import LabelledImage
from bench.click_prompts import deepest, overlap
from core.painting import Mask, fill_holes
from core.prompts.prompt import Known, pixel_of

AROUND_PX = 4
"""How far around an object pixels may be taken for it; no other object's."""

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)

COLUMNS = ("set", "with", "objects seen", "its object", "kept apart without error", "best threshold of each")


def limits_of(
    targets: Sequence[tuple[LabelledImage, int]], known: Mapping[str, Known]
) -> dict[str, float] | None:
    """Median IoU with the objects that were asked for; None where the model says nothing of the class.

    `seen` is the share of objects with one of the suggestion in their middle, and `suggested` that one's IoU,
    0 where there is none. `apart` takes the pixels that the model calls the class, near the object and in no
    other; `threshold` takes them from the probability that is best for that very object.
    """
    found = []
    for labelled, number in targets:
        about, truth = known[labelled.name], labelled.instances == number
        if about.probability is None or about.objects is None:
            return None
        here = about.objects[pixel_of(deepest(truth)[0], (truth.shape[0], truth.shape[1]))]
        own = overlap(fill_holes(about.objects == here), truth) if here else 0.0
        near = _near(truth, labelled.instances)
        by_threshold = {
            least: overlap(fill_holes((about.probability > least) & near), truth) for least in THRESHOLDS
        }
        found.append((bool(here), own, by_threshold[0.5], max(by_threshold.values())))
    seen, *others = zip(*found, strict=True)
    medians = (round(float(np.median(values)), 4) for values in others)
    return dict(
        zip(
            ("seen", "suggested", "apart", "threshold"),
            (round(float(np.mean(seen)), 4), *medians),
            strict=True,
        )
    )


def _near(truth: Mask, instances: NDArray[np.int32]) -> Mask:
    side = 2 * AROUND_PX + 1
    grown = cv2.dilate(truth.astype(np.uint8), np.ones((side, side), np.uint8)) > 0
    return np.asarray(grown & ((instances == 0) | truth))


def limits_table(measurements: Sequence[Mapping[str, Any]]) -> Figures:
    rows = [
        (
            one["set"],
            one["with"],
            *(one["limits"][name] for name in ("seen", "suggested", "apart", "threshold")),
        )
        for one in measurements
        if one.get("limits")
    ]
    return Figures("Median IoU of what the model itself would answer", COLUMNS, tuple(rows))
