"""What the rounds of all arms come to: areas, effort to 95 % of the dense Dice, paired intervals, goals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from bench import Goal
from simulation.brush import Effort
from simulation.learning_curves import Interval, effort_to_reach, paired_interval
from simulation.summary import Curve, add_up, area_by_objects, area_by_seconds, mean_reached

Runs = dict[tuple[str, int, str], Mapping[str, Any]]
"""By set, seed and arm; `dense` is among the arms."""

LEVEL, HIGHER_LEVEL = 0.95, 0.98
"""Shares of the dense Dice. With base weights a first round may already be at the first of them."""

WANTED_EFFORT, WANTED_REVIEW_EFFORT, WANTED_HIT = 0.6, 0.6, 3.0

COLUMNS = (
    "set",
    "arm",
    "last Dice",
    "AUBC objects",
    "AUBC s",
    "objects to 95 %",
    "s to 95 %",
    "s to 98 %",
    "against random",
)
COMPARED = (("ours", "random"), ("ours", "foreground"), ("ours-spread", "ours"), ("reviewed", "random"))


def to_rows(runs: Runs, sets: Sequence[str], arms: Sequence[str]) -> tuple[tuple[Any, ...], ...]:
    rows = []
    for name in sets:
        until = _shared_seconds(runs, name)
        for arm in arms:
            curves = _curves(runs, name, arm)
            objects = _reached(runs, name, arm, "units", LEVEL)
            seconds = _seconds_to_levels(runs, name, arm).values()
            against = (
                "" if arm == "random" or "random" not in arms else str(_difference(runs, name, arm, "random"))
            )
            rows.append(
                (
                    name,
                    arm,
                    float(np.mean([curve.dice[-1] for curve in curves])),
                    float(np.mean([area_by_objects(curve) for curve in curves])),
                    float(np.mean([area_by_seconds(curve, until) for curve in curves])),
                    _plain(objects),
                    *map(_plain, seconds),
                    against,
                )
            )
    return tuple(rows)


def to_record(runs: Runs, sets: Sequence[str], arms: Sequence[str]) -> dict[str, Any]:
    """Everything that was measured, as plain JSON values."""
    return {
        "runs": [{"set": s, "seed": n, "arm": a, **run} for (s, n, a), run in runs.items()],
        "seconds_to_level": {
            name: {arm: _seconds_to_levels(runs, name, arm) for arm in arms} for name in sets
        },
        "dense_dice": {name: dense_dice(runs, name) for name in sets},
        "differences": {
            name: {
                f"{ours} - {theirs}": asdict(_difference(runs, name, ours, theirs))
                for ours, theirs in COMPARED
                if ours in arms and theirs in arms
            }
            for name in sets
        },
        "questions_hit": {name: hit_ratio(runs, name) for name in sets if "ours" in arms},
    }


def find_goals(runs: Runs, sets: Sequence[str], arms: Sequence[str]) -> tuple[Goal, ...]:
    """The goals of which all arms were run."""
    goals: list[Goal] = []
    for name in sets:
        if {"ours", "random"} <= set(arms):
            found = _difference(runs, name, "ours", "random")
            goals.append(Goal(f"{name}: ours - random, area by objects above 0: {found}", found.low > 0))
            goals.append(_effort_goal(runs, name))
        if {"ours", "foreground"} <= set(arms):
            found = _difference(runs, name, "ours", "foreground")
            goals.append(Goal(f"{name}: ours not below foreground-aware random: {found}", found.high >= 0))
        if {"reviewed", "everything"} <= set(arms):
            goals.append(_same_dice_goal(runs, name))
        if "ours" in arms:
            ratio = hit_ratio(runs, name)
            text = f"{name}: wrong pixels in questions, times the image's share: {_plain(ratio)}"
            goals.append(Goal(f"{text}, wanted {WANTED_HIT:g}", ratio is not None and ratio >= WANTED_HIT))
    return tuple(goals)


def dense_dice(runs: Runs, name: str) -> float:
    """Dice with everything annotated, after as many rounds: mean over the seeds."""
    return float(
        np.mean([run["dice"][-1] for (s, _, arm), run in runs.items() if (s, arm) == (name, "dense")])
    )


def hit_ratio(runs: Runs, name: str) -> float | None:
    """Share of wrong pixels in the boxes of `ours` over that in their images; None without a wrong pixel."""
    counts = np.sum(
        [
            r["questions_hit"]
            for (s, _, a), run in runs.items()
            if (s, a) == (name, "ours")
            for r in run["rounds"]
        ],
        axis=0,
    )
    wrong_in, inside, wrong, pixels = (int(count) for count in counts)
    return None if not wrong or not inside else (wrong_in / inside) / (wrong / pixels)


def _effort_goal(runs: Runs, name: str) -> Goal:
    """Simulated seconds to the level, as a share of those that `random` takes."""
    ours, chance = (_reached(runs, name, arm, "seconds", LEVEL) for arm in ("ours", "random"))
    text = f"{name}: seconds to {100 * LEVEL:.0f} %, ours {_plain(ours)}, random {_plain(chance)}"
    # Whoever never gets there needs more than anybody who does.
    met = ours is not None and (chance is None or ours <= WANTED_EFFORT * chance)
    return Goal(f"{text}, wanted {WANTED_EFFORT:g} x", met)


def _same_dice_goal(runs: Runs, name: str) -> Goal:
    """Simulated seconds in which `reviewed` gets to the Dice that `everything` ends with."""
    ends = _curves(runs, name, "everything")
    dice = float(np.mean([curve.dice[-1] for curve in ends]))
    seconds = float(np.mean([curve.seconds()[-1] for curve in ends]))
    ours = _reached_dice(runs, name, "reviewed", "seconds", dice)
    text = f"{name}: seconds to Dice {dice:.3f}, reviewed {_plain(ours)}, everything {_plain(seconds)}"
    met = ours is not None and ours <= WANTED_REVIEW_EFFORT * seconds
    return Goal(f"{text}, wanted {WANTED_REVIEW_EFFORT:g} x", met)


def _curves(runs: Runs, name: str, arm: str) -> list[Curve]:
    """Those of an arm, per seed."""
    curves = []
    for (dataset, seed, of_arm), run in sorted(runs.items()):
        if (dataset, of_arm) == (name, arm):
            rounds = run["rounds"]
            efforts = [Effort(**one["effort"]) for one in rounds]
            units, dice = ([one[key] for one in rounds] for key in ("units", "dice"))
            curves.append(add_up(arm, seed, units, efforts, dice))
    return curves


def _shared_seconds(runs: Runs, name: str) -> float:
    """What every arm of the set has spent."""
    arms = {arm for dataset, _, arm in runs if dataset == name and arm != "dense"}
    return min(curve.seconds()[-1] for arm in arms for curve in _curves(runs, name, arm))


def _seconds_to_levels(runs: Runs, name: str, arm: str) -> dict[str, float | None]:
    return {str(level): _reached(runs, name, arm, "seconds", level) for level in (LEVEL, HIGHER_LEVEL)}


def _reached(runs: Runs, name: str, arm: str, effort: str, level: float) -> float | None:
    """Effort to a share of the dense Dice."""
    return _reached_dice(runs, name, arm, effort, level * dense_dice(runs, name))


def _reached_dice(runs: Runs, name: str, arm: str, effort: str, dice: float) -> float | None:
    """Mean effort to a Dice over the seeds; None unless all of them got there."""
    curves = _curves(runs, name, arm)
    spent = [curve.units if effort == "units" else curve.seconds() for curve in curves]
    return mean_reached([effort_to_reach(x, c.dice, dice) for x, c in zip(spent, curves, strict=True)])


def _difference(runs: Runs, name: str, ours: str, theirs: str) -> Interval:
    """Paired over the seeds: areas by objects."""
    areas = [[area_by_objects(curve) for curve in _curves(runs, name, arm)] for arm in (ours, theirs)]
    return paired_interval(areas[0], areas[1], np.random.default_rng(0))


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}" if value < 10 else f"{value:.0f}"
