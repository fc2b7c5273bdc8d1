"""What somebody does at a place of a label map: what it leaves there, and what it takes.

A swath is one stroke. A question that is reviewed is answered as `simulation.annotator.review_place` does:
what is wrong in the box is painted or erased off the outlines, and the box is true as it then looks. Who
paints everything covers each area from the inside. All of it goes through the rules of partial annotation.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.swath_arms import Place
from bench.swaths import LENGTH_PX, choose_start, swath_from
from core.painting import Box
from core.prediction import Prediction
from core.schema import IGNORE_INDEX, LabelSchema
from simulation.annotator import ShownMask, Work, paint_place, review_place
from simulation.brush import Effort
from simulation.perception import DenseTruth
from simulation.visits import Place as Visited
from simulation.visits import Visit, to_label_map

Done = tuple[NDArray[np.uint8], Effort]
"""A partial label map `(H, W)`, and what it took."""


def paint_swath(truth: NDArray[np.uint8], place: Place, is_asked: bool, rng: np.random.Generator) -> Done:
    """One stroke that begins in the place; a question is looked at first."""
    painted = np.full_like(truth, IGNORE_INDEX)
    inside = truth if place.box is None else truth[place.box.slices]
    looking = Effort(places=1, questions=int(is_asked))
    if (inside == IGNORE_INDEX).all():
        return painted, looking  # nobody knows what is there, and leaves it
    row, column = choose_start(inside, rng)
    if place.box is not None:
        row, column = row + place.box.top, column + place.box.left
    under = swath_from((row, column), truth.shape, rng)
    np.copyto(painted, truth, where=under)
    return painted, looking + Effort(strokes=1, painted_px=LENGTH_PX)


def review(truth: NDArray[np.uint8], shown: Prediction, box: Box, schema: LabelSchema) -> Done:
    """Correct what the model says inside a box, and call the box reviewed."""
    masks = tuple(
        ShownMask(f"m{index}", index, shown.label_map == index)
        for index in schema.object_indices
        if (shown.label_map == index).any()
    )
    work = review_place(see(truth, schema), schema, box, masks)
    return _leave(truth, Visited("", box, masks), work, schema)


def paint_everything(truth: NDArray[np.uint8], schema: LabelSchema) -> Done:
    """Paint a whole image, area by area."""
    box = Box(0, 0, *truth.shape)
    return _leave(truth, Visited("", box), paint_place(see(truth, schema), schema, box), schema)


def see(truth: NDArray[np.uint8], schema: LabelSchema) -> DenseTruth:
    """Each connected area of an object class is one object."""
    instances, class_of = np.zeros(truth.shape, np.int32), dict[int, int]()
    for class_index in schema.object_indices:
        n_areas, areas = cv2.connectedComponents((truth == class_index).astype(np.uint8), connectivity=8)
        first = len(class_of)
        instances[areas > 0] = areas[areas > 0] + first
        class_of.update({first + number: class_index for number in range(1, n_areas)})
    return DenseTruth(instances, class_of)


def _leave(truth: NDArray[np.uint8], place: Visited, work: Work, schema: LabelSchema) -> Done:
    height, width = truth.shape
    left = to_label_map([Visit.of(place, work)], (height, width), schema)
    return np.where(truth == IGNORE_INDEX, np.uint8(IGNORE_INDEX), left), work.effort
