"""A simulated person who points: the first click in the middle of an object, the next where most is wrong."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from core.painting import Box, Mask, fill_holes, filled_box
from core.prompts.prompt import Prompt

Answer = Callable[[Prompt], Mask]
"""A prompt to a mask `(H, W)` bool of the whole image."""

HAND = 0.05
"""Standard deviation of where the sides of a box are drawn, in lengths of the other side."""

Grey = NDArray[np.uint8]


def overlap(one: Mask, other: Mask) -> float:
    """Intersection over union."""
    union = np.count_nonzero(one | other)
    return np.count_nonzero(one & other) / union if union else 1.0


def click_and_correct(truth: Mask, answer: Answer, n_clicks: int) -> list[float]:
    """The IoU with `truth` after each click."""
    positive: tuple[tuple[float, float], ...] = ()
    negative: tuple[tuple[float, float], ...] = ()
    found, scores = np.zeros_like(truth), []
    for _ in range(n_clicks):
        missed, wrong = deepest(truth & ~found), deepest(found & ~truth)
        if missed[1] >= wrong[1]:
            positive += (missed[0],)
        else:
            negative += (wrong[0],)
        found = answer(Prompt(positive, negative))
        scores.append(overlap(found, truth))
    return scores


def deepest(mask: Mask) -> tuple[tuple[float, float], float]:
    """The point of a mask farthest from its border, and how far that is."""
    distance = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    row, column = np.unravel_index(int(distance.argmax()), distance.shape)
    return (float(row) - 0.5, float(column) - 0.5), float(distance.max())


def draw_box(truth: Mask, rng: np.random.Generator) -> Box:
    """The box around an object as a hand draws it."""
    box = filled_box(truth)
    sides = np.array([box.top, box.left, box.top + box.height, box.left + box.width], float)
    sides += rng.normal(0, HAND, 4) * np.array([box.height, box.width] * 2)
    limits = np.array([*truth.shape, *truth.shape])
    top, left, bottom, right = (int(x) for x in np.clip(sides.round(), 0, limits))
    return Box(top, left, max(bottom - top, 1), max(right - left, 1))


FLOOD_TOLERANCE = 20
"""Grey values by which a flood fill steps from pixel to pixel, of 255."""


def flood_fill(image: Grey, prompt: Prompt) -> Mask:
    """What the magic wand does: from each positive point, over pixels that differ little from it."""
    found = np.zeros(image.shape[:2], bool)
    for points, value in ((prompt.positive, True), (prompt.negative, False)):
        for row, column in points:
            canvas = np.zeros((image.shape[0] + 2, image.shape[1] + 2), np.uint8)
            step = (FLOOD_TOLERANCE,) * 3
            flags = 4 | cv2.FLOODFILL_MASK_ONLY | cv2.FLOODFILL_FIXED_RANGE | (1 << 8)
            cv2.floodFill(image, canvas, (int(column), int(row)), 0, step, step, flags)
            found[canvas[1:-1, 1:-1] > 0] = value
    return fill_holes(found)


SEED_PX = 4
GRABCUT_TURNS = 3
NO_RECTANGLE = (0, 0, 1, 1)
"""Not looked at: the labels say where the object may be."""


def grab_cut(image: Grey, prompt: Prompt) -> Mask:
    """OpenCV's GrabCut alone: a box, or points as discs in an image that is ground until shown otherwise."""
    if prompt.box is not None:
        labels = np.full(image.shape[:2], cv2.GC_BGD, np.uint8)
        labels[prompt.box.slices] = cv2.GC_PR_FGD
    else:
        labels = np.full(image.shape[:2], cv2.GC_PR_BGD, np.uint8)
    for points, value in ((prompt.positive, cv2.GC_FGD), (prompt.negative, cv2.GC_BGD)):
        for row, column in points:
            cv2.circle(labels, (int(column), int(row)), SEED_PX, value, -1)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)
    try:
        cv2.grabCut(image, labels, NO_RECTANGLE, *models, GRABCUT_TURNS, cv2.GC_INIT_WITH_MASK)
    except cv2.error:  # too few pixels of either kind to fit its colours to
        return np.zeros(labels.shape, bool)
    found = (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
    return _around_points(found, prompt)


def _around_points(mask: Mask, prompt: Prompt) -> Mask:
    """The components that hold a positive point, or all where there is none."""
    if not prompt.positive:
        return fill_holes(mask)
    _, parts = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    held = {int(parts[int(row), int(column)]) for row, column in prompt.positive} - {0}
    return fill_holes(np.isin(parts, list(held)))
