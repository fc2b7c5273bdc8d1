"""What speaks against "up to date": classes that the model did not learn, and rounds that did not help.

The numbers are those of the hold-out, so nothing is said of a class of which nothing is held out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

NEAR_ZERO_DICE = 0.1
"""Held-out Dice below this is no better than guessing for most classes."""


@dataclass(frozen=True)
class WeakClass:
    """A painted class that the model does not find, and the steps that its round made."""

    name: str
    dice: float
    steps: int


def find_weak_classes(report: Mapping[str, Any] | None, painted: Collection[str]) -> list[WeakClass]:
    """Classes among `painted` with a held-out Dice near 0, from the report of a model's own round.

    >>> find_weak_classes({"held_out": {"A": {"dice": 0.02}}, "changed": {"steps": 13}}, ["A"])
    [WeakClass(name='A', dice=0.02, steps=13)]
    """
    if report is None:
        return []
    steps = int((report.get("changed") or {}).get("steps") or 0)
    dice = {name: score.get("dice") for name, score in (report.get("held_out") or {}).items()}
    return [
        WeakClass(name, value, steps)
        for name, value in dice.items()
        if name in painted and value is not None and value < NEAR_ZERO_DICE
    ]


def describe_weak_classes(weak: Collection[WeakClass], *, goes_on: bool) -> str:
    """Name the classes, how far training came, and what to do."""
    if not weak:
        return ""
    listed = ", ".join(f"{one.name} (held-out Dice {one.dice:.2f})" for one in weak)
    steps = next(iter(weak)).steps
    said = f"The model does not find {listed} yet, after {steps} steps in its last round."
    if goes_on:
        return f"{said} Training goes on by itself while nobody paints; wait for that before painting more."
    names = " and ".join(one.name for one in weak)
    return (
        f"{said} Training over these annotations has ended: paint {names} in more images, with what lies next"
        " to it, and check that no stroke has the wrong class. 'Start training' makes another round."
    )


def describe_few_steps(report: Mapping[str, Any] | None) -> str:
    """Say that a round could not make its fewest steps, if that is so."""
    changed = (report or {}).get("changed") or {}
    steps, fewest = changed.get("steps"), changed.get("fewest_steps")
    if not steps or fewest is None or steps >= fewest:  # none: the network was left out
        return ""
    return f"The last round made only {steps} of at least {fewest} steps: the machine is slow or busy."


def describe_refused(n_unlearnt: int, *, goes_on: bool) -> str:
    """Say that what people painted is not in the model in use."""
    if not n_unlearnt:
        return ""
    said = f"{n_unlearnt} annotations are not in the model in use: what was learnt from them was not better."
    if goes_on:
        return f"{said} Training goes on over them for longer."
    return f"{said} More truth in other images helps most; 'Start training' makes another round."
