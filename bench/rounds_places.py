"""Where each arm annotates next, in the order to go there.

======================  ==============================================================================
arm                     places
======================  ==============================================================================
`random`                boxes anywhere in the pool
`foreground`            boxes, two thirds of them where an object is predicted (nnActive's 66 %)
`image-uncertainty`     all of the image with the highest mean uncertainty, then the next image
`ours`                  the service's own questions, most uncertain first; painted from nothing
`ours-spread`           the same, the first question of each image before the second of any
`reviewed`              as `ours`; the pre-annotation is corrected and the box called `Reviewed`
`oracle`                boxes with the most wrong pixels, which nobody could know
`everything`            all of an image, images by chance
======================  ==============================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from bench.rounds_answers import Answer, wrong_pixels
from core.asking.acquisition import rank_in_turns
from core.asking.region_grid import Grid
from core.painting import Box, Mask
from simulation.acquisitions import FOREGROUND_SHARES, rank_by_chance
from simulation.perception import DenseTruth
from simulation.visits import Place

ARMS = (
    "random",
    "foreground",
    "image-uncertainty",
    "ours",
    "ours-spread",
    "reviewed",
    "oracle",
    "everything",
)

BLIND_ARMS = ("random", "everything")
"""Those that need no prediction."""

OBJECT_SIZE_PX = 24.0
"""Boxes of arms without questions are as large as the service's before it knows the objects."""


def choose_places(
    arm: str,
    answers: Mapping[str, Answer],
    known: Mapping[str, Mask],
    truth: Mapping[str, DenseTruth],
    uncertainty_of: Callable[[str], float],
    rng: np.random.Generator,
) -> list[Place]:
    """The places of one round, more than any budget needs."""
    names = sorted(known)
    if arm in ("ours", "ours-spread", "reviewed"):
        asked = [(score, name, box) for name in names for box, score in answers[name].questions]
        asked.sort(key=lambda entry: -entry[0])
        if arm == "ours-spread":
            order = rank_in_turns([score for score, *_ in asked], [name for _, name, _ in asked])
            asked = [asked[index] for index in order]
        return [
            Place(name, box, answers[name].shown if arm == "reviewed" else None) for _, name, box in asked
        ]
    if arm == "oracle":
        return _most_errors(answers, known, truth)
    if arm == "image-uncertainty":
        return _whole_images(sorted(names, key=lambda name: -uncertainty_of(name)), known)
    if arm == "everything":
        return _whole_images([names[index] for index in rng.permutation(len(names))], known)
    boxes = [Place(name, box) for name in names for box in _boxes(known[name], rng)]
    if arm == "random":
        return [boxes[int(index)] for index in rng.permutation(len(boxes))]
    has_object = [bool(answers[place.image].objects[place.box.slices].any()) for place in boxes]
    ranked = rank_by_chance(has_object, len(boxes), rng, FOREGROUND_SHARES["foreground-66"])
    return [boxes[index] for index in ranked]


def _boxes(known: Mask, rng: np.random.Generator) -> list[Box]:
    """Boxes by chance that do not overlap one another or what is annotated."""
    return _apart(known, lambda shape: rng.random(shape), 0.0)


def _apart(known: Mask, keys_of: Callable[[tuple[int, int]], np.ndarray], least: float) -> list[Box]:  # type: ignore[type-arg]
    grid = Grid.of((known.shape[0], known.shape[1]), OBJECT_SIZE_PX)
    covered = _box_means(grid, known)
    keys = np.where(covered > 0, -np.inf, keys_of((covered.shape[0], covered.shape[1])))
    return [grid.box(*place) for place in grid.pick_apart(keys, least)]


def _box_means(grid: Grid, mask: Mask) -> np.ndarray:  # type: ignore[type-arg]
    blocks = np.zeros(grid.shape, np.float32)
    for where, rows, columns in grid.stripes():
        blocks[where] = grid.block_means(mask[rows, columns])
    return grid.box_means(blocks)


def _most_errors(
    answers: Mapping[str, Answer], known: Mapping[str, Mask], truth: Mapping[str, DenseTruth]
) -> list[Place]:
    found: list[tuple[float, str, Box]] = []
    for name, answer in sorted(answers.items()):
        wrong = wrong_pixels(answer.objects, truth[name].instances)
        grid = Grid.of(answer.shape, OBJECT_SIZE_PX)
        errors = _box_means(grid, wrong)
        boxes = _apart(known[name], lambda shape, errors=errors: errors, 1e-9)  # type: ignore[misc]
        found += [(float(wrong[box.slices].mean()), name, box) for box in boxes]
    return [Place(name, box) for _, name, box in sorted(found, key=lambda entry: -entry[0])]


def _whole_images(names: Sequence[str], known: Mapping[str, Mask]) -> list[Place]:
    """Image after image, box after box from the top, as somebody who paints everything goes."""
    places: list[Place] = []
    for name in names:
        grid = Grid.of((known[name].shape[0], known[name].shape[1]), OBJECT_SIZE_PX)
        for row in range(0, grid.shape[0], grid.blocks[0]):
            for column in range(0, grid.shape[1], grid.blocks[1]):
                box = grid.box(
                    min(row, grid.shape[0] - grid.blocks[0]), min(column, grid.shape[1] - grid.blocks[1])
                )
                if not known[name][box.slices].all():
                    places.append(Place(name, box))
    return places
