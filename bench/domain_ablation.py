"""What each learner and what weighs them are worth on images of other kinds: left out one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from bench import Figures
from bench.intervals import paired_difference
from core.network.mixture import FOREST, HEAD, NETWORK, QUICK
from core.rounds import RoundSettings

WHOLE = "round"
"""The part that has everything, which the others are compared with."""


@dataclass(frozen=True)
class Without:
    """A round without one ingredient: which learners it trains, and code that has no knob."""

    learners: tuple[str, ...] = RoundSettings.learners
    changed: Callable[[], AbstractContextManager[Any]] = nullcontext


def _nothing(*_: Any, **__: Any) -> None:
    return None


ARMS: Mapping[str, Without] = {
    "without network": Without(QUICK),
    "without head": Without((NETWORK, FOREST)),
    "without forest": Without((NETWORK, HEAD)),
    "without folds": Without(changed=lambda: patch("core.training.quick_learners.ask_folds", _nothing)),
    "without borrowed exposures": Without(
        changed=lambda: patch("core.training.quick_learners.borrow_exposures", _nothing)
    ),
}
"""Parts of the domain bench by name; without the head nothing asks the encoder."""

FIGURES = ("dice", "ece", "auroc", "predict_s_per_megapixel")


def ablation_figures(measurements: Sequence[Mapping[str, Any]]) -> tuple[Figures, ...]:
    """Differences to the whole round of the same seed; no table where none of the arms was measured."""
    rows = tuple(_rows(measurements))
    columns = ("set", "swaths", "round", "Dice", "ECE", "AUROC of doubt", "answer s/Mpx", "seeds")
    title = f"What it costs to leave something out: difference to {WHOLE} with everything"
    return (Figures(title, columns, rows),) if rows else ()


def _rows(measurements: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Any, ...]]:
    found = {(one["set"], one["swaths"], one["part"], one["seed"]): one for one in measurements}
    for name, n_swaths in dict.fromkeys((one["set"], one["swaths"]) for one in measurements):
        for arm in ARMS:
            seeds = [one[3] for one in found if one[:3] == (name, n_swaths, arm)]
            pairs = [
                (found[name, n_swaths, arm, seed], found[name, n_swaths, WHOLE, seed])
                for seed in seeds
                if (name, n_swaths, WHOLE, seed) in found
            ]
            if pairs:
                yield (name, n_swaths, arm, *(_difference(pairs, figure) for figure in FIGURES), len(pairs))


def _difference(pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], figure: str) -> str:
    without, whole = ([one[figure] for one in ours] for ours in zip(*pairs, strict=True))
    if any(value is None for value in (*without, *whole)):
        return ""  # AUROC of an answer without an error
    return str(paired_difference(without, whole))
