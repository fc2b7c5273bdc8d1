"""How much speaks for each pixel of a window being the object: its colours, its place, and the model.

Two Gaussians of colour, inside and outside, are fitted in turns with the answer that they give (expectation
and maximisation). Where the object should be, the shape prior, holds them in place; GrabCut does the same
with a graph cut and no prior of shape (Rother et al. 2004, https://doi.org/10.1145/1015706.1015720).
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from core.painting import Mask
from core.prompts.lab_colours import Colours

Evidence = NDArray[np.float32]
"""`(h, w)` log-odds of being the object."""

N_TURNS = 2
MOST_BY_COLOUR = 6.0
"""Log-odds that the colour of one pixel counts at most: no pixel decides alone."""
SOFTENING_PX = 1.0
"""Neighbours agree: standard deviation of the blur of colours and of what they say."""
LEAST_DEVIATION = 3.0
"""Of a colour, in units of lightness: a flat area is no proof against a pixel that differs by a hair."""
REACH = 1.9
"""How far around the object its surroundings are looked at, where 1 is its expected border."""
INNER, OUTER = 0.7, 1.15
"""Distances from the middle up to which, and from which, the first fit takes colours."""


def weigh(
    colours: Colours,
    distance: NDArray[np.float32],
    possible: Mask,
    trust: float,
    hint: Evidence | None = None,
) -> Evidence:
    """Weigh the pixels of a window.

    Parameters
    ----------
    colours : (h, w, C) float32
    distance : (h, w) float32
        From the middle of the object, where 1 is its expected border.
    possible : (h, w) bool
        Where the object can be; around it are its surroundings.
    trust : float
        Log-odds that the shape prior says in the middle.
    hint : (h, w) float32, optional
        What else speaks for a pixel, such as a model, in log-odds.

    Returns
    -------
    (h, w) float32
        Log-odds; -inf where the object cannot be.
    """
    prior = (trust * (1 - distance)).astype(np.float32)
    if hint is not None:
        prior = prior + hint
    pixels = smoothed(colours).reshape(-1, colours.shape[2])
    seen = np.asarray((distance < REACH).ravel(), np.float32)
    odds = np.where(possible, prior, -np.inf)
    inside = np.asarray((distance < INNER) & possible, np.float32).ravel() * seen
    outside = np.asarray((distance > OUTER) | ~possible, np.float32).ravel() * seen
    for turn in range(N_TURNS):
        if turn:
            share = _sigmoid(odds).ravel()
            inside, outside = share * seen, (1 - share) * seen
        if min(inside.sum(), outside.sum()) < colours.shape[2] + 2:
            break
        by_colour = _log_density(pixels, inside) - _log_density(pixels, outside)
        by_colour = np.clip(by_colour, -MOST_BY_COLOUR, MOST_BY_COLOUR).reshape(distance.shape)
        odds = smoothed(by_colour + prior)
        odds[~possible] = -np.inf
    return np.asarray(odds, np.float32)


def smoothed(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Blur `(h, w)` or `(h, w, C)` by `SOFTENING_PX`."""
    blurred = cv2.GaussianBlur(values, (0, 0), SOFTENING_PX)
    return np.asarray(blurred, np.float32).reshape(values.shape)


def to_odds(probability: NDArray[np.floating], most: float) -> Evidence:
    """Probabilities as log-odds, at most `most` either way."""
    kept = np.clip(probability.astype(np.float32), 1e-4, 1 - 1e-4)
    return np.asarray(np.clip(np.log(kept / (1 - kept)), -most, most), np.float32)


def _sigmoid(odds: NDArray[np.floating]) -> NDArray[np.float32]:
    return np.asarray(1 / (1 + np.exp(-np.clip(odds, -30, 30))), np.float32)


def _log_density(pixels: NDArray[np.float32], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of the Gaussian that is fitted to weighted colours `(N, C)`, up to a constant."""
    total = weights.sum()
    apart = pixels - (weights @ pixels) / total
    spread = (apart * weights[:, None]).T @ apart / total + LEAST_DEVIATION**2 * np.eye(pixels.shape[1])
    far = np.einsum("nc,cd,nd->n", apart, np.linalg.inv(spread).astype(np.float32), apart)
    return np.asarray(-0.5 * (far + np.linalg.slogdet(spread)[1]), np.float32)
