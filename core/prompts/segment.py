"""One prompt to one object: the suggestion's own where the point is in it, else grown from the pixels.

A box says how large the object is. A point or a stroke does not: several sizes are tried, and the one wins
whose border follows the strongest edges and still looks like the shape that was expected. Every further
point corrects the answer to those before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from core.painting import Box, Mask, bounding_box, fill_holes, filled_box, slices_within
from core.prompts.evidence import Evidence, smoothed, to_odds, weigh
from core.prompts.lab_colours import Colours
from core.prompts.prompt import Known, Prompt, PromptedMask, pixel_of
from core.prompts.windows import (
    SMALLEST_RADIUS_PX,
    TRUST_IN_BOX,
    Window,
    around,
    distance_to,
    draw_seeds,
    windows,
)

MOST_BY_MODEL = 4.0
"""Log-odds that the model counts at most: it may be wrong, which is why a person points."""

WINDOW_PX = 128
"""Larger windows are looked at smaller, so that an answer takes equally long for objects of all sizes."""

SIZES_IN_VAIN = 4
"""So many larger sizes are tried after the best one."""

PUSH = 2.0
"""A correcting point lies in the middle of what is wrong, so the border is as far again behind it."""
SPREAD = 1.5
"""How far along the border a correction reaches, in distances from the point to the border."""
LEFT_OF_THE_WAY = 0.35
"""The same for a negative point, in distances to the nearest seed: half way to it the push has faded."""
STILL_NEAR = 0.3
"""Share of the push down to which a correction may change pixels."""

LEAST_AT_SEEDS = 1.5
"""Log-odds that a model says at least where a person pointed: the person knows, and what it says of the
neighbourhood counts from there."""

FARTHEST_MOVED = 1.3
"""The same from a border that a point has moved."""


@dataclass(frozen=True)
class _Candidate:
    mask: Mask
    box: Box
    odds: Evidence
    quality: float


def segment(colours: Colours, prompt: Prompt, known: Known | None = None) -> PromptedMask | None:
    """Find the object that a prompt points at.

    Parameters
    ----------
    colours : (H, W, C) float32
        From `core.prompts.lab_colours.to_colours`.
    prompt : Prompt
    known : Known, optional
        Without it the pixels alone decide.

    Returns
    -------
    PromptedMask or None
        One connected object without holes, clear of what is painted and of the suggestion's other objects;
        None where nothing is left, or nothing was pointed at.

    Examples
    --------
    >>> image = np.zeros((40, 40, 1), np.float32)
    >>> _ = cv2.circle(image[..., 0], (20, 20), 8, 90.0, -1)
    >>> found = segment(image, Prompt(box=Box(11, 11, 19, 19)))
    >>> found.box
    Box(top=12, left=12, height=17, width=17)
    """
    known = known or Known()
    shape = (colours.shape[0], colours.shape[1])
    is_alone = prompt.box is None and prompt.stroke is None
    first, further = (prompt.positive[:1], prompt.positive[1:]) if is_alone else ((), prompt.positive)
    seeds = draw_seeds(replace(prompt, positive=first), shape)
    if not seeds.any():
        return None
    best = _suggested_object(seeds, known) if is_alone else None
    if best is None:
        best = _best_of(colours, windows(prompt, seeds, known, shape), seeds, known)
    for point, is_positive in [(p, True) for p in further] + [(p, False) for p in prompt.negative]:
        best = _correct(colours, best, pixel_of(point, shape), is_positive, seeds, known) if best else None
    if best is None:
        return None
    return _to_answer(best.mask, best.box, 1 / (1 + np.exp(-best.odds[best.mask].mean())))


def _best_of(colours: Colours, tried: Iterator[Window], seeds: Mask, known: Known) -> _Candidate | None:
    """Try ever larger sizes until several in a row were no better: large ones cost most."""
    best, n_worse = None, 0
    for window in tried:
        found = _grow(colours, window, seeds, known)
        if found is not None and (best is None or found.quality > best.quality):
            best, n_worse = found, 0
        else:
            n_worse += 1
        if best is not None and n_worse == SIZES_IN_VAIN:
            break
    return best


def _suggested_object(seeds: Mask, known: Known) -> _Candidate | None:
    """The one object of the suggestion that a point is in."""
    number = 0 if known.objects is None else int(known.objects[seeds][0])
    if known.objects is None or number == 0:
        return None
    box = filled_box(known.objects == number)
    mask = fill_holes(known.objects[box.slices] == number)
    if known.taken is not None:
        mask &= ~known.taken[box.slices]
    if not mask.any():
        return None
    sure = np.ones(mask.shape) if known.probability is None else known.probability[box.slices]
    return _Candidate(mask, box, to_odds(sure, MOST_BY_MODEL), 1.0)


def _correct(
    colours: Colours, before: _Candidate, pixel: tuple[int, int], is_positive: bool, seeds: Mask, known: Known
) -> _Candidate | None:
    """Move the border that was found past a point, and let the pixels decide again near it."""
    shape = (colours.shape[0], colours.shape[1])
    held = np.zeros(shape, bool)
    held[before.box.slices] = before.mask
    radius = max(float(np.sqrt(before.mask.sum() / np.pi)), SMALLEST_RADIUS_PX)
    window = around(bounding_box(filled_box(held), Box(*pixel, 1, 1)), int(radius) + 2, shape)
    mask, here = held[window.slices], (pixel[0] - window.top, pixel[1] - window.left)
    depth = distance_to(~mask) - distance_to(mask)
    wrong_px = -depth[here] if is_positive else depth[here]
    if wrong_px <= 0:
        return before
    at = np.zeros(mask.shape, bool)
    at[here] = True
    spread_px = SPREAD * wrong_px
    if not is_positive:
        spread_px = min(spread_px, LEFT_OF_THE_WAY * float(distance_to(seeds[window.slices])[here]))
    near = np.exp(-0.5 * (distance_to(at) / max(spread_px, 0.5)) ** 2)
    depth += (PUSH if is_positive else -PUSH) * wrong_px * near
    distance = np.asarray(1 - depth / radius, np.float32)
    seeds[pixel] = is_positive
    moved = Window(window, distance, distance < FARTHEST_MOVED, TRUST_IN_BOX)
    after = _grow(colours, moved, seeds, known)
    if after is None:
        return None
    # Far from the point nobody said that anything was wrong.
    mask = _holding(np.where(near > STILL_NEAR, after.mask, mask), seeds[window.slices])
    return replace(after, mask=fill_holes(mask) & ~_forbidden(seeds, known, window))


def _grow(colours: Colours, window: Window, seeds: Mask, known: Known) -> _Candidate | None:
    here = window.box.slices
    seen, seeded = colours[here], seeds[here]
    if seen.size == 0:
        return None
    hint = None if known.probability is None else to_odds(known.probability[here], MOST_BY_MODEL)
    if hint is not None and seeded.any():
        hint += max(0.0, LEAST_AT_SEEDS - float(hint[seeded].mean()))
    odds = _weigh_small(seen, window, hint)
    forbidden = _forbidden(seeds, known, window.box)
    mask = _holding(((odds > 0) | seeded) & ~forbidden, seeded)
    mask = fill_holes(mask) & ~forbidden
    if not mask.any():
        return None
    if known.probability is not None:
        # Where the model sees a border is an edge too, as strong as one between black and white.
        as_lightness = 100 * known.probability[here].astype(np.float32)
        seen = np.concatenate([seen, as_lightness[..., None]], axis=2)
    return _Candidate(mask, window.box, np.clip(odds, -30, 30), _quality(mask, seen, window.distance <= 1))


def _weigh_small(colours: Colours, window: Window, hint: Evidence | None) -> Evidence:
    """Weigh at a size that takes no longer than the usual object does."""
    height, width = window.distance.shape
    shrink = WINDOW_PX / max(height, width)
    if shrink >= 1:
        return weigh(colours, window.distance, window.possible, window.trust, hint)
    size = (max(1, round(width * shrink)), max(1, round(height * shrink)))

    def small(values: NDArray[np.float32]) -> NDArray[np.float32]:
        resized = cv2.resize(values, size, interpolation=cv2.INTER_AREA)
        return np.asarray(resized, np.float32).reshape(size[1], size[0], *values.shape[2:])

    possible = small(window.possible.astype(np.float32)) > 0.5
    hint = None if hint is None else small(hint)
    odds = np.clip(weigh(small(colours), small(window.distance), possible, window.trust, hint), -30, 30)
    large = cv2.resize(odds, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(np.where(window.possible, large, -np.inf), np.float32)


def _edges(colours: Colours) -> NDArray[np.float32]:
    """How strongly the colours change at each pixel."""
    smooth = smoothed(colours)
    change = np.zeros(colours.shape[:2], np.float32)
    for channel in np.moveaxis(smooth, 2, 0):
        down, right = (cv2.Sobel(channel, cv2.CV_32F, *axis) for axis in ((0, 1), (1, 0)))
        change += down * down + right * right
    return np.asarray(np.sqrt(change), np.float32)


def _forbidden(seeds: Mask, known: Known, window: Box) -> Mask:
    """Where the answer must not be: what is painted, and the suggestion's objects that nobody points at."""
    forbidden = np.zeros((window.height, window.width), bool)
    if known.objects is not None:
        pointed_at = np.unique(known.objects[seeds])
        objects = known.objects[window.slices]
        forbidden |= (objects > 0) & ~np.isin(objects, pointed_at)
    if known.taken is not None:
        forbidden |= known.taken[window.slices]
    return forbidden


def _holding(mask: Mask, seeds: Mask) -> Mask:
    """The component of a mask that holds most of the seeds; the largest one where none does."""
    n_parts, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    if n_parts < 2:
        return mask
    held = np.bincount(parts[seeds & mask], minlength=n_parts)
    by = held if held.any() else stats[:, cv2.CC_STAT_AREA].copy()
    by[0] = -1
    return np.asarray(parts == int(np.argmax(by)))


def _quality(mask: Mask, colours: Colours, expected: Mask) -> float:
    """Mean strength of the edges along the border, times how much the mask is like the expected shape."""
    core = np.ones((3, 3), np.uint8)
    as_bytes = mask.astype(np.uint8)
    border = cv2.dilate(as_bytes, core) != cv2.erode(as_bytes, core)
    shared = np.count_nonzero(mask & expected) / np.count_nonzero(mask | expected)
    return float(_edges(colours)[border].mean() * shared) if border.any() else 0.0


def _to_answer(mask: Mask, box: Box, score: float) -> PromptedMask | None:
    inner = filled_box(mask)
    if inner.height == 0:
        return None
    cut = mask[slices_within(Box(box.top + inner.top, box.left + inner.left, inner.height, inner.width), box)]
    return PromptedMask(cut, box.top + inner.top, box.left + inner.left, float(score))
