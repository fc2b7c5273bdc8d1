"""Learning curves: quality against what it cost, as one number and as the effort to get somewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

N_RESAMPLES = 10_000
"""So many make the edges of an interval repeatable to about a hundredth of its width."""


def area_under_curve(effort: Sequence[float], quality: Sequence[float], until: float | None = None) -> float:
    """Return the area under the budget curve, divided by its width: the mean quality over the effort.

    Parameters
    ----------
    effort : ascending
    quality : as many
    until : float, optional
        Cut the curve there; beyond its end the last quality holds.

    Examples
    --------
    >>> area_under_curve([10, 20, 30], [0.5, 0.7, 0.7])
    0.65
    >>> area_under_curve([10, 20, 30], [0.5, 0.7, 0.7], until=20)
    0.6
    """
    x, y = np.asarray(effort, float), np.asarray(quality, float)
    if len(x) != len(y) or len(x) == 0 or (np.diff(x) < 0).any():
        raise ValueError(f"a curve needs ascending efforts and as many qualities, got {effort} and {quality}")
    end = x[-1] if until is None else float(until)
    # A curve that begins beyond the end has no width there: its first quality is all there is.
    if end <= x[0]:
        return float(y[0])
    inner = x < end
    xs, ys = np.append(x[inner], end), np.append(y[inner], np.interp(end, x, y))
    return round(float(np.sum(np.diff(xs) * (ys[1:] + ys[:-1]) / 2) / (end - x[0])), 12)


def effort_to_reach(effort: Sequence[float], quality: Sequence[float], level: float) -> float | None:
    """Return the effort at which a curve first reaches a level, None where it never does.

    Between two points the curve is straight; one that begins above the level takes its first effort.

    Examples
    --------
    >>> effort_to_reach([10, 20], [0.5, 0.7], 0.6), effort_to_reach([10, 20], [0.5, 0.7], 0.8)
    (15.0, None)
    """
    for index, reached in enumerate(quality):
        if reached < level:
            continue
        if index == 0:
            return float(effort[0])
        share = (level - quality[index - 1]) / (reached - quality[index - 1])
        return round(float(effort[index - 1] + share * (effort[index] - effort[index - 1])), 9)
    return None


@dataclass(frozen=True)
class Interval:
    """A mean over `n` pairs and the edges of its 95 % interval; with one pair the edges are the mean."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def paired_interval(
    ours: Sequence[float], theirs: Sequence[float], rng: np.random.Generator, level: float = 0.95
) -> Interval:
    """Bootstrap the mean difference of values that belong together, e.g. by seed.

    References: Efron & Tibshirani 1993, "An introduction to the bootstrap", chapter 13 (percentiles).

    Examples
    --------
    >>> print(paired_interval([0.9, 0.8], [0.8, 0.7], np.random.default_rng(0)))
    +0.100 [+0.100, +0.100]
    """
    differences = np.asarray([a - b for a, b in zip(ours, theirs, strict=True)], float)
    if len(differences) == 0:
        raise ValueError("an interval needs at least one pair")
    # Whole pairs are drawn, so that what both have in common stays out of the interval.
    draws = rng.integers(0, len(differences), (N_RESAMPLES, len(differences)))
    low, high = np.quantile(differences[draws].mean(1), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(differences.mean()), float(low), float(high), len(differences))
