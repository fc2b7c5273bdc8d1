"""What an object costs a hand in simulated seconds: painted whole, or clicked and corrected.

Background is left out: it costs the same either way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from bench import Figures
from core.painting import Mask
from simulation.brush import Effort, Pace, cover, effort_of

KEY_S = 0.28
"""The key of a label: a keystroke of an average typist (Card, Moran and Newell 1980)."""

ANSWER_S = 0.15
"""To wait for an answer: what the service may take."""

GOOD_ENOUGH = 0.8
"""IoU from which nobody corrects on."""

SIZES_PX = (20, 40, 60)
"""Diameters of the circle of equal area that divide small objects from larger ones."""


@dataclass(frozen=True)
class HandSeconds:
    """What one object of a diameter costs either way; `one_click_s` where its first answer is kept."""

    diameter_px: float
    clicked_s: float
    painted_s: float
    one_click_s: float


def hand_seconds(truth: Mask, overlaps: Sequence[float]) -> HandSeconds:
    diameter_px = float(2 * np.sqrt(np.count_nonzero(truth) / np.pi))
    return HandSeconds(diameter_px, clicking_s(truth, overlaps), painting_s(truth), clicking_s(truth, [1.0]))


def by_size(hand: Sequence[HandSeconds]) -> list[dict[str, Any]]:
    """Sums over the objects of each size, the smallest ones first; sizes without an object are left out."""
    limits = (0, *SIZES_PX, np.inf)
    found = []
    for least, most in pairwise(limits):
        these = [one for one in hand if least <= one.diameter_px < most]
        if these:
            found.append({
                "from_px": int(least),
                "objects": len(these),
                "clicked_s": round(sum(one.clicked_s for one in these), 2),
                "painted_s": round(sum(one.painted_s for one in these), 2),
                "one_click_s": round(sum(one.one_click_s for one in these), 2),
            })  # fmt: skip
    return found


def sizes_table(measurements: Sequence[Mapping[str, Any]]) -> Figures:
    """Simulated seconds of clicking and of painting, by the size of the objects."""
    rows = [
        (one["set"], one["with"], f"{part['from_px']} px and more", part["objects"],
         part["painted_s"] / part["objects"], part["clicked_s"] / part["painted_s"],
         part["one_click_s"] / part["painted_s"])
        for one in measurements
        for part in one["by_size"]
    ]  # fmt: skip
    columns = ("set", "with", "diameter", "objects", "s painted", "clicked, of it", "one click, of it")
    return Figures("Simulated seconds of a hand for one object", columns, tuple(rows))


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
