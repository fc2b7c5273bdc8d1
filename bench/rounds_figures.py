"""What the rounds of all arms come to: areas, effort to 95 % of the dense Dice, paired intervals, goals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from bench import Goal
from core.brush import Effort, Pace
from core.learning_curves import Interval, area_under_curve, effort_to_reach, paired_interval

Runs = dict[tuple[str, int, str], Mapping[str, Any]]
"""By set, seed and arm; `dense` is among the arms."""

LEVEL = 0.95
WANTED_EFFORT, WANTED_REVIEW_EFFORT, WANTED_HIT = 0.6, 0.6, 3.0

COLUMNS = (
    "set",
    "arm",
    "last Dice",
    "AUBC objects",
    "AUBC s",
    "objects to 95 %",
    "s to 95 %",
    "against random",
)
COMPARED = (("ours", "random"), ("ours", "foreground"), ("reviewed", "random"))


def to_rows(runs: Runs, sets: Sequence[str], arms: Sequence[str]) -> tuple[tuple[Any, ...], ...]:
    rows = []
    for name in sets:
        for arm in arms:
            curves = _curves(runs, name, arm)
            objects, seconds = (_reached(runs, name, arm, effort) for effort in ("units", "seconds"))
            against = (
                "" if arm == "random" or "random" not in arms else str(_difference(runs, name, arm, "random"))
            )
            rows.append(
                (
                    name,
                    arm,
                    float(np.mean([c["dice"][-1] for c in curves])),
                    float(np.mean([area_under_curve(c["units"], c["dice"]) for c in curves])),
                    float(np.mean([_area_seconds(runs, name, c) for c in curves])),
                    "-" if objects is None else objects,
                    "-" if seconds is None else seconds,
                    against,
                )
            )
    return tuple(rows)


def to_record(runs: Runs, sets: Sequence[str], arms: Sequence[str]) -> dict[str, Any]:
    """Everything that was measured, as plain JSON values."""
    return {
        "runs": [{"set": s, "seed": n, "arm": a, **run} for (s, n, a), run in runs.items()],
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
            goals += _effort_goal(runs, name, "ours", "random", WANTED_EFFORT)
        if {"ours", "foreground"} <= set(arms):
            found = _difference(runs, name, "ours", "foreground")
            goals.append(Goal(f"{name}: ours not below foreground-aware random: {found}", found.high >= 0))
        if {"reviewed", "everything"} <= set(arms):
            goals += _effort_goal(runs, name, "reviewed", "everything", WANTED_REVIEW_EFFORT)
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


def _effort_goal(runs: Runs, name: str, ours: str, theirs: str, wanted: float) -> list[Goal]:
    """Simulated seconds to the level, as a share of the other arm's."""
    a, b = (_reached(runs, name, arm, "seconds") for arm in (ours, theirs))
    text = f"{name}: seconds to {100 * LEVEL:.0f} %, {ours} {_plain(a)}, {theirs} {_plain(b)}"
    # Whoever never gets there needs more than anybody who does.
    return [Goal(f"{text}, wanted {wanted:g} x", a is not None and (b is None or a <= wanted * b))]


def _curves(runs: Runs, name: str, arm: str) -> list[dict[str, list[float]]]:
    """Per seed: effort so far in objects and seconds, and Dice."""
    found = []
    for (dataset, _, of_arm), run in sorted(runs.items()):
        if (dataset, of_arm) != (name, arm):
            continue
        rounds = run["rounds"]
        seconds = np.cumsum([Pace().seconds(Effort(**r["effort"])) for r in rounds])
        units = np.cumsum([r["units"] for r in rounds])
        found.append(
            {"units": units.tolist(), "seconds": seconds.tolist(), "dice": [r["dice"] for r in rounds]}
        )
    return found


def _area_seconds(runs: Runs, name: str, curve: Mapping[str, list[float]]) -> float:
    """Area up to the seconds that every arm of the set has spent."""
    arms = {arm for dataset, _, arm in runs if dataset == name and arm != "dense"}
    until = min(c["seconds"][-1] for arm in arms for c in _curves(runs, name, arm))
    return area_under_curve(curve["seconds"], curve["dice"], until)


def _reached(runs: Runs, name: str, arm: str, effort: str) -> float | None:
    """Mean effort to the level over the seeds; None unless all of them got there."""
    level = LEVEL * dense_dice(runs, name)
    found = [effort_to_reach(c[effort], c["dice"], level) for c in _curves(runs, name, arm)]
    known = [value for value in found if value is not None]
    return float(np.mean(known)) if known and len(known) == len(found) else None


def _difference(runs: Runs, name: str, ours: str, theirs: str) -> Interval:
    """Paired over the seeds: areas by objects."""
    areas = [
        [area_under_curve(c["units"], c["dice"]) for c in _curves(runs, name, arm)] for arm in (ours, theirs)
    ]
    return paired_interval(areas[0], areas[1], np.random.default_rng(0))


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}" if value < 10 else f"{value:.0f}"
