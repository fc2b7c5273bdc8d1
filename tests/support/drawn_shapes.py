"""Shapes as Label Studio's editor drew them, kept as runs of pixels; and how far our drawing is from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.painting import PAINTED_ALPHA
from ml_backend.label_studio.shape_regions import draw_shape

TOLERANCE = {
    "brushlabels": 1e-9,
    "bitmasklabels": 1e-9,
    "polygonlabels": 0.005,
    "vectorlabels": 0.005,
    "ellipselabels": 0.005,
    "rectanglelabels": 0.005,
}
"""Share of a shape's pixels that may be another one than in the editor: its canvas smooths edges a little
differently. Painted masks come as pixels, so they are the same."""


def to_runs(mask: NDArray[np.bool_]) -> list[int]:
    """Lengths of the runs of a mask, row after row, in turns without and with it.

    >>> to_runs(np.array([[False, True], [True, False]]))
    [1, 2, 1]
    """
    flat = np.concatenate([[False], mask.ravel(), [not mask.ravel()[-1]]])
    return [int(length) for length in np.diff(np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1])]))]


def from_runs(runs: Sequence[int], shape: tuple[int, int]) -> NDArray[np.bool_]:
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(shape)


def differing_share(recorded: Mapping[str, Any], shape: tuple[int, int]) -> float:
    """Pixels that we and the editor fill differently, as a share of those that the editor fills."""
    top, left, alpha = draw_shape(recorded["value"], "recorded", shape)
    ours = np.zeros(shape, np.bool_)
    ours[top : top + alpha.shape[0], left : left + alpha.shape[1]] = alpha >= PAINTED_ALPHA
    theirs = from_runs(recorded["runs"], shape)
    return float(np.count_nonzero(ours != theirs) / np.count_nonzero(theirs))
