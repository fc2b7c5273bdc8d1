"""What rounds of swaths come to: areas, swaths to a share of dense Dice, paired intervals, goals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from bench import Goal
from bench.rounds_figures import WANTED_REVIEW_EFFORT
from bench.swath_arms import ASKING, EVERYTHING, REVIEWED
from simulation.learning_curves import Interval, area_under_curve, effort_to_reach, paired_interval

Runs = dict[tuple[str, int, str], Mapping[str, Any]]
"""By set, seed and arm; `dense` is among the arms."""

LEVELS = (0.9, 0.95)
"""Shares of the dense Dice."""

WANTED_HIT, MOST_EMPTY = 3.0, 0.2

COLUMNS = (
    "set", "arm", "first", "last", "area", "seconds", "swaths to 90 %", "to 95 %",
    "against random", "against own", "errors in boxes", "boxes without",
)  # fmt: skip


def to_rows(runs: Runs, sets: Sequence[str], arms: Sequence[str]) -> tuple[tuple[Any, ...], ...]:
    return tuple(_row(runs, name, arm, arms) for name in sets for arm in arms)


def to_record(runs: Runs, sets: Sequence[str], arms: Sequence[str]) -> dict[str, Any]:
    """Everything that was measured, as plain JSON values."""
    pairs = [
        (arm, base) for base in ("random", "own", "ours") for arm in arms if base in arms and arm != base
    ]
    return {
        "runs": [{"set": s, "seed": n, "arm": a, **run} for (s, n, a), run in runs.items()],
        "dense_dice": {name: dense_dice(runs, name) for name in sets},
        "differences": {
            name: {f"{arm} - {base}": asdict(difference(runs, name, arm, base)) for arm, base in pairs}
            for name in sets
        },
        "review_shares": {
            name: review_shares(runs, name) for name in sets if {REVIEWED, EVERYTHING} <= set(arms)
        },
        "questions_hit": {
            name: {arm: hit_ratio(runs, name, arm) for arm in arms if arm in ASKING} for name in sets
        },
    }


def find_goals(runs: Runs, sets: Sequence[str], arms: Sequence[str]) -> tuple[Goal, ...]:
    """The goals of `ours`, as far as their arms were run."""
    goals: list[Goal] = []
    goals += [_same_dice_goal(runs, name) for name in sets if {REVIEWED, EVERYTHING} <= set(arms)]
    for name in sets if "ours" in arms else ():
        if "random" in arms:
            found = difference(runs, name, "ours", "random")
            goals.append(Goal(f"{name}: ours - random above 0: {found}", found.low > 0))
        if "own" in arms:
            found = difference(runs, name, "ours", "own")
            goals.append(Goal(f"{name}: ours not below the person's own choice: {found}", found.high >= 0))
        hit, empty = hit_ratio(runs, name, "ours"), empty_share(runs, name, "ours")
        text = f"{name}: wrong pixels in questions, times the image's share: {_plain(hit)}"
        goals.append(Goal(f"{text}, wanted {WANTED_HIT:g}", hit is not None and hit >= WANTED_HIT))
        text = f"{name}: questions without an error: {_plain(empty)}, at most {MOST_EMPTY:g}"
        goals.append(Goal(text, empty is not None and empty <= MOST_EMPTY))
    return tuple(goals)


def difference(runs: Runs, name: str, arm: str, base: str) -> Interval:
    """Paired over the seeds: areas under macro Dice by swaths."""
    areas = [_areas(runs, name, one) for one in (arm, base)]
    return paired_interval(areas[0], areas[1], np.random.default_rng(0))


def dense_dice(runs: Runs, name: str) -> float:
    return float(np.mean([run["dice"][-1] for run in _of(runs, name, "dense")]))


def hit_ratio(runs: Runs, name: str, arm: str) -> float | None:
    """Share of wrong pixels in the boxes over that in their images, edges left out."""
    inside, of_inside, wrong, of_all = _hits(runs, name, arm)[:4]
    return float(inside / of_inside / (wrong / of_all)) if of_inside and wrong else None


def empty_share(runs: Runs, name: str, arm: str) -> float | None:
    """Share of boxes without a wrong pixel, in images that have some."""
    empty, of_boxes = _hits(runs, name, arm)[4:]
    return float(empty / of_boxes) if of_boxes else None


def review_shares(runs: Runs, name: str) -> list[float | None]:
    """Per seed, seconds of reviews to the Dice that painting everything ends with, as a share of its.

    Seconds are simulated. The first round has no questions and is not counted. None: never within the rounds.
    """
    shares: list[float | None] = []
    for seed in sorted(seed for of_set, seed, arm in runs if (of_set, arm) == (name, EVERYTHING)):
        whole, ours = (runs[name, seed, arm] for arm in (EVERYTHING, REVIEWED))
        begun = whole["seconds"][0]
        reached = effort_to_reach(ours["seconds"], ours["dice"], whole["dice"][-1])
        spent = whole["seconds"][-1] - begun
        shares.append(None if reached is None else (reached - begun) / spent)
    return shares


def _same_dice_goal(runs: Runs, name: str) -> Goal:
    shares = review_shares(runs, name)
    median = float(np.median([np.inf if share is None else share for share in shares]))
    text = ", ".join(_plain(share) for share in shares)
    return Goal(
        f"{name}: seconds of reviews to the Dice of painting everything, share of its, per seed: {text}",
        median <= WANTED_REVIEW_EFFORT,
    )


def _row(runs: Runs, name: str, arm: str, arms: Sequence[str]) -> tuple[Any, ...]:
    curves = _of(runs, name, arm)
    against = [
        str(difference(runs, name, arm, base)) if base in arms and base != arm else ""
        for base in ("random", "own")
    ]
    asks = arm in ASKING
    return (
        name,
        arm,
        float(np.mean([run["dice"][0] for run in curves])),
        float(np.mean([run["dice"][-1] for run in curves])),
        float(np.mean(_areas(runs, name, arm))),
        float(np.mean([run["seconds"][-1] for run in curves])),
        *(_plain(_swaths_to(runs, name, arm, level)) for level in LEVELS),
        *against,
        _plain(hit_ratio(runs, name, arm)) if asks else "",
        _plain(empty_share(runs, name, arm)) if asks else "",
    )


def _swaths_to(runs: Runs, name: str, arm: str, level: float) -> float | None:
    """Mean over the seeds; None unless all of them got there."""
    wanted = level * dense_dice(runs, name)
    found = [effort_to_reach(run["swaths"], run["dice"], wanted) for run in _of(runs, name, arm)]
    reached = [effort for effort in found if effort is not None]
    return float(np.mean(reached)) if len(reached) == len(found) else None


def _areas(runs: Runs, name: str, arm: str) -> list[float]:
    return [area_under_curve(run["swaths"], run["dice"]) for run in _of(runs, name, arm)]


def _hits(runs: Runs, name: str, arm: str) -> list[int]:
    return [int(n) for n in np.sum([run["hits"] for run in _of(runs, name, arm)], axis=0)]


def _of(runs: Runs, name: str, arm: str) -> list[Mapping[str, Any]]:
    return [run for (of_set, _, of_arm), run in runs.items() if (of_set, of_arm) == (name, arm)]


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}" if value < 10 else f"{value:.0f}"
