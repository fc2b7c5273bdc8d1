"""The strokes of 200 objects in several rounds, each going on from the one before, instead of in one.

This is how projects really get there. The strokes are those of the quality part, so both may be compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from bench import Figures
from bench.annotator import SCHEMA, paint
from bench.growing_project import GrowingProject
from bench.intervals import interval_of
from bench.learner_settings import Bench, PartResult
from bench.peers import PLAIN, Trained, measure, network_modes

N_OBJECTS, N_ROUNDS = 200, 5
FIGURES = ("dice", "boundary_f1", "ap50", "ece")


def measure_incremental(bench: Bench, n_objects: int = N_OBJECTS, n_rounds: int = N_ROUNDS) -> PartResult:
    measurements: list[Mapping[str, Any]] = []
    for dataset in bench.sets:
        for seed in range(bench.settings.seeds):
            about = {"part": "incremental", "set": dataset, "objects": n_objects, "in_rounds": n_rounds}
            work = partial(_grow, bench, dataset, n_objects, n_rounds, seed)
            measurements.append({**about, "seed": seed, **bench.measure_ours(about, seed, work)})
    rows = tuple(_row(measurements, dataset) for dataset in bench.sets)
    title = f"{n_objects} objects in {n_rounds} rounds"
    figures = Figures(title, ("set", "Dice", "boundary F1", "AP@.5", "ECE", "promoted"), rows)
    return PartResult((figures,), (), {"measurements": measurements})


def _grow(bench: Bench, dataset: str, n_objects: int, n_rounds: int, seed: int) -> dict[str, Any]:
    parts = bench.sets[dataset]
    painted = paint(parts["pool"], n_objects, np.random.default_rng(seed))
    project = GrowingProject(bench.settings, seed)
    seconds, n_promoted = [], 0
    for part in np.array_split(np.arange(len(painted)), n_rounds):
        report = project.learn(SCHEMA, [painted[i] for i in part])
        seconds.append(report.seconds)
        n_promoted += report.promoted
    if project.current is None:
        raise RuntimeError("no round gave a model")
    record = {"rounds": n_rounds, "promoted": n_promoted, "round_s": seconds}
    return measure(Trained(sum(seconds), network_modes(project.current), record), parts["test"])


def _row(measurements: list[Mapping[str, Any]], dataset: str) -> tuple[Any, ...]:
    of = [m for m in measurements if m["set"] == dataset]
    figures = (str(interval_of([m[PLAIN][name] for m in of])) for name in FIGURES)
    return (dataset, *figures, str(interval_of([m["promoted"] for m in of])))
