"""The ground around a point: what a click with Background fills."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from core.painting import Box, filled_box, slices_within
from core.prompts.evidence import smoothed
from core.prompts.lab_colours import Colours
from core.prompts.prompt import Known, Point, PromptedMask, pixel_of

REACH_PX = 40.0
"""How far from the point ground is filled, unless the caller says otherwise."""

SURE_GROUND = 0.7
"""Probability of Background from which a pixel is filled where there is a model."""

UNLIKE = 3.0
"""Standard deviations from the colours at the point beyond which a pixel is something else."""
LEAST_DEVIATION = 3.0
"""Of those colours, in units of lightness."""
SAMPLE_PX = 3
"""Around the point, the colours are looked at as far as this."""

_NEXT_TO = np.ones((3, 3), np.uint8)


def fill_ground(
    colours: Colours, point: Point, known: Known | None = None, reach_px: float = REACH_PX
) -> PromptedMask | None:
    """Fill the ground around a point, a pixel away from every object.

    Parameters
    ----------
    colours : (H, W, C) float32
        From `core.prompts.lab_colours.to_colours`.
    point : (row, column)
    known : Known, optional
        `probability` is that of Background, `objects` are those of all other classes. Without a probability,
        ground is what has the colours of the point and hangs together with it.
    reach_px : float

    Returns
    -------
    PromptedMask or None
        None where the point is no ground: in or beside an object, painted already, or unlike its model.

    Examples
    --------
    >>> image = np.zeros((9, 9, 1), np.float32)
    >>> image[:, 5:] = 90
    >>> fill_ground(image, (4, 1)).box
    Box(top=0, left=0, height=9, width=4)
    """
    known = known or Known()
    shape = (colours.shape[0], colours.shape[1])
    window, pixel = _window(pixel_of(point, shape), reach_px, shape)
    here = window.slices
    if known.probability is not None:
        sure = np.asarray(known.probability[here], np.float32)
        ground = sure >= SURE_GROUND
    else:
        sure = _likeness(colours[here], pixel)
        ground = sure > 0
    objects = ~ground if known.objects is None else ~ground | (known.objects[here] > 0)
    ground &= ~(cv2.dilate(objects.astype(np.uint8), _NEXT_TO) > 0)
    rows, columns = np.ogrid[: window.height, : window.width]
    ground &= (rows - pixel[0]) ** 2 + (columns - pixel[1]) ** 2 <= reach_px**2
    if known.taken is not None:
        ground &= ~known.taken[here]
    if not ground[pixel]:
        return None
    _, parts = cv2.connectedComponents(ground.astype(np.uint8), connectivity=4)
    kept = parts == parts[pixel]
    inner = filled_box(kept)
    box = Box(window.top + inner.top, window.left + inner.left, inner.height, inner.width)
    return PromptedMask(kept[slices_within(box, window)], box.top, box.left, float(sure[kept].mean()))


def _window(pixel: tuple[int, int], reach_px: float, shape: tuple[int, int]) -> tuple[Box, tuple[int, int]]:
    """The part of the image that is within reach, and the pixel in it."""
    reach = int(np.ceil(reach_px)) + 1
    top, left = (max(at - reach, 0) for at in pixel)
    bottom, right = (min(at + reach + 1, size) for at, size in zip(pixel, shape, strict=True))
    return Box(top, left, bottom - top, right - left), (pixel[0] - top, pixel[1] - left)


def _likeness(colours: Colours, pixel: tuple[int, int]) -> NDArray[np.float32]:
    """How like the colours at a pixel all others are, 1 for alike, 0 for something else."""
    smooth = smoothed(colours)
    around = tuple(slice(max(at - SAMPLE_PX, 0), at + SAMPLE_PX + 1) for at in pixel)
    sample = smooth[around].reshape(-1, colours.shape[2])
    deviation = np.maximum(sample.std(axis=0), LEAST_DEVIATION)
    away = np.sqrt((((smooth - np.median(sample, axis=0)) / deviation) ** 2).mean(axis=2))
    return np.asarray(np.clip(1 - away / UNLIKE, 0, 1), np.float32)
