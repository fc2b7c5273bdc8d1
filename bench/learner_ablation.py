"""What each ingredient of the learner is worth: switched off one at a time, with equal steps for all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from bench import Figures
from bench.annotator import paint
from bench.intervals import paired_difference
from bench.learner_settings import Bench, PartResult
from bench.painted_source import PaintedSource
from bench.peers import N_THREADS, PLAIN, measure, train_network
from core.rounds import RoundSettings
from core.training.recipe import Recipe

BUDGETS = (5, 200)
SEEDS = 3
STEPS = 250
"""About what a round of 20 s makes: time would give arms without some work more steps than the others."""

FIGURES = ("dice", "boundary_f1", "ap50", "ece")
WHOLE = "everything"


@dataclass(frozen=True)
class Arm:
    """One way to train: a change of the recipe, and of code that has no knob, while it trains and answers."""

    recipe: Callable[[Recipe], Recipe] = lambda recipe: recipe
    changed: Callable[[], AbstractContextManager[Any]] = nullcontext


@contextmanager
def _swap(target: str, other: Any) -> Iterator[None]:
    """Use `other` in the place of a function; fails where it is no longer there."""
    with patch(target, other):
        yield


def _ones_like(label_map: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.ones(label_map.shape, np.float32)


def _equal_weights(pixels: Sequence[int], *_: Any) -> NDArray[np.float32]:
    return np.ones(len(pixels), np.float32)


ARMS: Mapping[str, Arm] = {
    WHOLE: Arm(),
    "base weights": Arm(changed=lambda: _swap("core.training.beginning.fits_base", lambda *_: False)),
    "share of the base kept": Arm(lambda recipe: replace(recipe, base_share=0.0)),
    "outline output": Arm(
        lambda recipe: replace(recipe, outline_share=0.0),
        changed=lambda: _swap("core.objects.split_blobs.OUTLINE_WEIGHT", 0.0),
    ),
    "smoothed weights": Arm(lambda recipe: replace(recipe, ema=0.0)),
    "border weights": Arm(changed=lambda: _swap("core.training.batches.border_weights", _ones_like)),
    "class weights": Arm(changed=lambda: _swap("core.training.trainer.class_weights", _equal_weights)),
    "learnt outlines": Arm(lambda recipe: replace(recipe, outline_share=0.0)),
    "class and border sampling": Arm(
        lambda recipe: replace(recipe, shares=replace(recipe.shares, class_uniform=0.0, border=0.0))
    ),
    "light augmentation": Arm(
        lambda recipe: replace(
            recipe, augmentation=replace(recipe.augmentation, contrast=0.0, brightness=0.0, tint=0.0)
        )
    ),
    "turns and sizes": Arm(
        lambda recipe: replace(recipe, augmentation=replace(recipe.augmentation, warped=0.0))
    ),
    "separation": Arm(
        changed=lambda: _swap("core.objects.of_prediction.split_touching", lambda mask, *_, **__: (mask, ()))
    ),
}
"""By what is switched off."""


def measure_ablation(
    bench: Bench, budgets: Sequence[int] = BUDGETS, n_seeds: int = SEEDS, arms: Mapping[str, Arm] = ARMS
) -> PartResult:
    n_steps = bench.settings.max_steps or STEPS
    measurements = [
        {**about, **_measure_arm(bench, about, arms[about["arm"]], n_steps)}
        for about in _plan(bench, budgets, n_seeds, arms)
    ]
    summary = [
        _compare(measurements, dataset, n_objects, arm)
        for dataset in bench.sets
        for n_objects in budgets
        for arm in arms
        if arm != WHOLE
    ]
    columns = ("set", "objects", "without", "Dice", "boundary F1", "AP@.5", "ECE")
    rows = tuple(
        (one["set"], one["objects"], one["without"], *(str(one[name]) for name in FIGURES)) for one in summary
    )
    title = f"What it costs to leave something out, {n_steps} steps, {n_seeds} seeds: difference to {WHOLE}"
    record = {"measurements": measurements, "summary": [_to_record(one) for one in summary]}
    return PartResult((Figures(title, columns, rows),), (), record)


def _plan(
    bench: Bench, budgets: Sequence[int], n_seeds: int, arms: Mapping[str, Arm]
) -> Iterator[dict[str, Any]]:
    for dataset in bench.sets:
        for n_objects in budgets:
            for seed in range(n_seeds):
                for arm in arms:
                    yield {"part": "ablation", "set": dataset, "objects": n_objects, "seed": seed, "arm": arm}


def _measure_arm(bench: Bench, about: Mapping[str, Any], arm: Arm, n_steps: int) -> dict[str, Any]:
    seed, parts = about["seed"], bench.sets[about["set"]]

    def work() -> dict[str, Any]:
        painted = paint(parts["pool"], about["objects"], np.random.default_rng(seed))
        settings = RoundSettings(max_steps=n_steps, n_threads=N_THREADS, seed=seed)
        with arm.changed():
            _, trained = train_network(PaintedSource(painted), settings, arm.recipe(Recipe()))
            scores = measure(trained, parts["test"], modes=[PLAIN])[PLAIN]
        return {name: scores[name] for name in FIGURES}

    return bench.measure_ours({**about, "arm_steps": n_steps, "recipe": _describe(arm)}, seed, work)


def _describe(arm: Arm) -> dict[str, Any]:
    """The recipe of an arm as plain values, so that a changed one is measured again."""
    return {name: repr(value) for name, value in vars(arm.recipe(Recipe())).items()}


def _compare(
    measurements: Sequence[Mapping[str, Any]], dataset: str, n_objects: int, arm: str
) -> dict[str, Any]:
    whole, without = (
        [m for m in measurements if (m["set"], m["objects"], m["arm"]) == (dataset, n_objects, name)]
        for name in (WHOLE, arm)
    )
    differences = {
        name: paired_difference([m[name] for m in without], [m[name] for m in whole]) for name in FIGURES
    }
    return {"set": dataset, "objects": n_objects, "without": arm, **differences}


def _to_record(one: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.to_record() if name in FIGURES else value for name, value in one.items()}
