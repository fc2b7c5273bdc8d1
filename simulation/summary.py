"""What a study found, as numbers: curves over objects and seconds, their areas, and intervals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import accumulate
from typing import Any

import numpy as np

from simulation.brush import Effort, Pace
from simulation.journal import RoundRecord
from simulation.learning_curves import Interval, area_under_curve, effort_to_reach, paired_interval

LEVELS = (0.95, 0.99)
"""Shares of the best Dice that anyone reached. With base weights a first round may reach the lower one."""

BASELINES = ("random", "foreground-66", "foreground-33")
"""What the other arms are compared with, the first one that is there."""

PACE_FACTORS = (0.5, 2.0)


@dataclass(frozen=True)
class Curve:
    """One arm with one seed: effort so far and Dice after each round."""

    arm: str
    seed: int
    units: tuple[int, ...]
    efforts: tuple[Effort, ...]
    dice: tuple[float, ...]

    def seconds(self, pace: Pace | None = None) -> list[float]:
        return [(pace or Pace()).seconds(effort) for effort in self.efforts]


def to_curves(records: Iterable[RoundRecord]) -> list[Curve]:
    """Add up the rounds of each arm and seed, in the order in which arms come."""
    rounds: dict[tuple[str, int], list[RoundRecord]] = defaultdict(list)
    for record in records:
        rounds[record.arm, record.seed].append(record)
    curves = []
    for (arm, seed), of_arm in rounds.items():
        in_order = sorted(of_arm, key=lambda record: record.round)
        units, efforts = [record.units for record in in_order], [record.effort for record in in_order]
        curves.append(add_up(arm, seed, units, efforts, [record.dice for record in in_order]))
    return curves


def add_up(
    arm: str, seed: int, units: Sequence[int], efforts: Sequence[Effort], dice: Sequence[float]
) -> Curve:
    """Return the curve of rounds that took `units` and `efforts` each and ended at `dice`."""
    return Curve(arm, seed, tuple(accumulate(units)), tuple(accumulate(efforts)), tuple(dice))


def area_by_objects(curve: Curve) -> float:
    return area_under_curve(curve.units, curve.dice)


def area_by_seconds(curve: Curve, until: float) -> float:
    return area_under_curve(curve.seconds(), curve.dice, until)


def mean_reached(values: Sequence[float | None]) -> float | None:
    """The mean, where every seed got there: a mean over the lucky ones would flatter."""
    reached = [value for value in values if value is not None]
    return float(np.mean(reached)) if reached and len(reached) == len(values) else None


def summarise_study(curves: Sequence[Curve], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Everything worth keeping, as plain JSON values; `None` where a level was never reached."""
    best = best_dice(curves)
    baseline = next((name for name in BASELINES if any(curve.arm == name for curve in curves)), None)
    arms = list(dict.fromkeys(curve.arm for curve in curves))
    # Areas are compared over seconds that every curve has.
    until = min(curve.seconds()[-1] for curve in curves)
    return {
        "settings": dict(settings),
        "best_dice": best,
        "baseline": baseline,
        "seconds_until": until,
        "arms": {arm: _of_arm(arm, curves, best, baseline, until) for arm in arms},
        "curves": [
            {
                "arm": curve.arm,
                "seed": curve.seed,
                "objects": curve.units,
                "seconds": [round(s, 3) for s in curve.seconds()],
                "dice": [round(d, 5) for d in curve.dice],
            }
            for curve in curves
        ],
    }


def best_dice(curves: Sequence[Curve]) -> float:
    """The highest mean over the seeds that any arm reached after any round."""
    arms: dict[str, list[Curve]] = defaultdict(list)
    for curve in curves:
        arms[curve.arm].append(curve)
    means = []
    for of_arm in arms.values():
        # A study that still runs has curves of several lengths.
        shortest = min(len(curve.dice) for curve in of_arm)
        means += [float(m) for m in np.mean([curve.dice[:shortest] for curve in of_arm], axis=0)]
    return max(means)


def variants_of(pace: Pace) -> dict[str, Pace]:
    """The pace with each of its assumptions halved and doubled."""
    return {
        f"{field.name} x{factor:g}": replace(pace, **{field.name: factor * getattr(pace, field.name)})
        for field in fields(pace)
        for factor in PACE_FACTORS
    }


def _of_arm(
    arm: str, curves: Sequence[Curve], best: float, baseline: str | None, until: float
) -> dict[str, Any]:
    ours = [curve for curve in curves if curve.arm == arm]
    figures: dict[str, Any] = {
        "seeds": len(ours),
        "last_dice": _mean([curve.dice[-1] for curve in ours]),
        "aubc_objects": _mean([area_by_objects(curve) for curve in ours]),
        "aubc_seconds": _mean([area_by_seconds(curve, until) for curve in ours]),
        "seconds": _mean([curve.seconds()[-1] for curve in ours]),
    }
    for share in LEVELS:
        level = share * best
        figures[f"objects_to_{100 * share:.0f}"] = mean_reached(
            [effort_to_reach(curve.units, curve.dice, level) for curve in ours]
        )
        figures[f"seconds_to_{100 * share:.0f}"] = mean_reached(
            [effort_to_reach(curve.seconds(), curve.dice, level) for curve in ours]
        )
    if baseline is not None and arm != baseline:
        theirs = {curve.seed: curve for curve in curves if curve.arm == baseline}
        pairs = [(curve, theirs[curve.seed]) for curve in ours if curve.seed in theirs]
        if pairs:
            figures["against_baseline"] = _compare(pairs, best, until)
    return figures


def _compare(pairs: Sequence[tuple[Curve, Curve]], best: float, until: float) -> dict[str, Any]:
    """Paired differences to the baseline, and the ratio of seconds to the last level at every pace."""
    rng = np.random.default_rng(0)

    def interval(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
        found: Interval = paired_interval(ours, theirs, rng)
        return {"mean": found.mean, "low": found.low, "high": found.high, "n": found.n}

    a, b = [ours for ours, _ in pairs], [theirs for _, theirs in pairs]
    return {
        "aubc_objects": interval([area_by_objects(c) for c in a], [area_by_objects(c) for c in b]),
        "aubc_seconds": interval(
            [area_by_seconds(c, until) for c in a], [area_by_seconds(c, until) for c in b]
        ),
        "last_dice": interval([c.dice[-1] for c in a], [c.dice[-1] for c in b]),
        "seconds_ratio": {
            name: _ratio(a, b, LEVELS[-1] * best, pace)
            for name, pace in {"as stated": Pace(), **variants_of(Pace())}.items()
        },
    }


def _ratio(ours: Sequence[Curve], theirs: Sequence[Curve], level: float, pace: Pace) -> float | None:
    mine, other = (
        mean_reached([effort_to_reach(c.seconds(pace), c.dice, level) for c in of]) for of in (ours, theirs)
    )
    return None if mine is None or other is None or other == 0 else mine / other


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
