"""Means with 95 % intervals over seeds, and paired differences of two learners that saw the same seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """Mean of `n` values and half the width of its interval; None where one value says nothing of spread."""

    mean: float
    half: float | None
    n: int

    def to_record(self) -> dict[str, float | None]:
        """Plain JSON form, which has no NaN."""
        return {"mean": None if np.isnan(self.mean) else self.mean, "half": self.half, "n": self.n}

    def __str__(self) -> str:
        return f"{self.mean:.3f}" + ("" if self.half is None else f" ± {self.half:.3f}")


def interval_of(values: Sequence[float], level: float = LEVEL) -> Interval:
    """Interval of the mean by Student's t, which suits few seeds.

    >>> print(interval_of([0.8, 0.9, 1.0]))
    0.900 ± 0.248
    """
    known = np.asarray([value for value in values if not np.isnan(value)], float)
    if len(known) == 0:
        return Interval(float("nan"), None, 0)
    if len(known) == 1:
        return Interval(float(known[0]), None, 1)
    spread = float(known.std(ddof=1)) / np.sqrt(len(known))
    return Interval(float(known.mean()), float(t.ppf((1 + level) / 2, len(known) - 1) * spread), len(known))


def paired_difference(ours: Sequence[float], theirs: Sequence[float]) -> Interval:
    """Interval of the mean difference of values that belong together, e.g. by their seed.

    >>> print(paired_difference([0.9, 0.8], [0.8, 0.7]))
    0.100 ± 0.000
    """
    return interval_of([a - b for a, b in zip(ours, theirs, strict=True)])
