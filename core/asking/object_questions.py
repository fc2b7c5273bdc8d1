"""Objects as questions: is this one nucleus, or two that touch?

A wrong answer to that is an error of kind, which a pixel's doubt does not show: between two touching objects
the model may be sure of every pixel, and still not whether a line belongs there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from core.asking.region_grid import MAX_SIDE_PX
from core.asking.regions import Region, clearance
from core.objects.split_blobs import Neck
from core.painting import Box, Mask

MOST_SURE = 0.7
"""Of whether there is one object or two; surer necks are no question."""

MARGIN_SHARE = 1 / 8
"""Of its longer side, what a box shows around the object, so that its rim can be judged."""


def object_questions(found: Iterable[tuple[int, Neck]], annotated: Mask) -> tuple[Region, ...]:
    """Ask whether it is one object or two, where that is doubtful.

    Parameters
    ----------
    found : class index and neck
        Of one image; see `core.objects.of_prediction.masks_and_necks`.
    annotated : (H, W) bool
        Where something is known already: no box covers any of it.

    Returns
    -------
    tuple of Region
        Around the objects themselves, most doubtful first, for `core.asking.regions.set_apart`. They may
        overlap. `n_objects` is what is more probable.

    Examples
    --------
    >>> import numpy as np
    >>> question, = object_questions([(1, Neck(Box(20, 20, 16, 32), 0.58))], np.zeros((96, 96), bool))
    >>> question.box, question.n_objects, question.confidence
    (Box(top=15, left=15, height=26, width=42), 2, 0.58)
    """
    height, width = annotated.shape
    questions = []
    for class_index, neck in found:
        sure = max(neck.p_two, 1 - neck.p_two)
        box = _with_margin(neck.box, (height, width))
        is_small = max(box.height, box.width) <= MAX_SIDE_PX
        if sure <= MOST_SURE and is_small and not annotated[box.slices].any():
            n_objects = 2 if neck.p_two >= 0.5 else 1
            doubt = 2 * (1 - sure)
            questions.append(
                Region(box, doubt, class_index, class_index, sure, 1 - sure, n_objects=n_objects)
            )
    return tuple(sorted(questions, key=lambda region: -region.acquisition_score))


def _with_margin(box: Box, shape: tuple[int, int]) -> Box:
    # What sets questions apart takes some of it away again.
    margin = math.ceil(MARGIN_SHARE * max(box.height, box.width)) + math.ceil(clearance(shape) / 2)
    top, left = max(box.top - margin, 0), max(box.left - margin, 0)
    bottom = min(box.top + box.height + margin, shape[0])
    right = min(box.left + box.width + margin, shape[1])
    return Box(top, left, bottom - top, right - left)
