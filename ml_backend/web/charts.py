"""Points of the small charts on the dashboard, in the coordinates of their SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence

WIDTH, HEIGHT, MARGIN = 160, 36, 2
"""Size of a sparkline and the free edge that keeps its stroke inside."""

MAX_POINTS = 80
"""More than one point in two pixels shows nothing new."""


def sparkline(values: Sequence[float]) -> str:
    """The `points` of a `<polyline>`; empty for fewer than two finite values.

    Examples
    --------
    >>> sparkline([1.0, 0.0])
    '2.0,2.0 158.0,34.0'
    >>> sparkline([float("nan")])
    ''
    """
    finite = [value for value in values if math.isfinite(value)]
    if len(finite) < 2:
        return ""
    step = max(1, math.ceil(len(finite) / MAX_POINTS))
    kept = finite[::step]
    if kept[-1] is not finite[-1]:
        kept.append(finite[-1])
    low, high = min(kept), max(kept)
    span = (high - low) or 1.0
    across = (WIDTH - 2 * MARGIN) / (len(kept) - 1)
    down = HEIGHT - 2 * MARGIN
    points = ((MARGIN + i * across, MARGIN + (high - value) / span * down) for i, value in enumerate(kept))
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
