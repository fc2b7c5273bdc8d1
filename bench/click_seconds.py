"""What an object costs a hand in simulated seconds: painted whole, or clicked and corrected.

Background is left out: it costs the same either way.
"""

from __future__ import annotations

from collections.abc import Sequence

from core.painting import Mask
from simulation.brush import Effort, Pace, cover, effort_of

KEY_S = 0.28
"""The key of a label: a keystroke of an average typist (Card, Moran and Newell 1980)."""

ANSWER_S = 0.15
"""To wait for an answer: what the service may take."""

GOOD_ENOUGH = 0.8
"""IoU from which nobody corrects on."""


def painting_s(truth: Mask, pace: Pace | None = None) -> float:
    """Seconds to paint an object whole, as the simulated annotator does, with the hand already there."""
    strokes = cover(truth)
    start = tuple(strokes[0].points[0]) if strokes else (0.0, 0.0)
    effort, _ = effort_of(strokes, (float(start[0]), float(start[1])))
    return (pace or Pace()).seconds(effort + Effort(places=1))


def clicking_s(truth: Mask, overlaps: Sequence[float], pace: Pace | None = None) -> float:
    """Seconds to click and correct, given the IoU after each click; painted after all where none will do.

    >>> import numpy as np
    >>> round(clicking_s(np.ones((9, 9), bool), [0.5, 0.9]), 2)
    1.46
    """
    pace = pace or Pace()
    done = [n for n, value in enumerate(overlaps, start=1) if value >= GOOD_ENOUGH]
    n_clicks = done[0] if done else len(overlaps)
    clicked = n_clicks * (pace.search_s + KEY_S + ANSWER_S) + pace.final_check_s
    return clicked if done else clicked + painting_s(truth, pace)
