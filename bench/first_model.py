"""The first model: Dice on unseen images after a few painted objects, against a random forest.

A short look with few seeds; `learner` is the whole measurement. Both learn from the same partial label maps
in the same run, on two cores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bench import BenchmarkResult, Goal, Options
from bench.annotator import LabelledImage, load_sets, paint
from bench.painted_source import PaintedSource
from bench.peers import N_THREADS, PLAIN, Trained, measure, train_forest, train_network
from core.rounds import RoundSettings

OBJECTS = (5, 15, 50)
SEEDS = (0, 1, 2)
ROUND_S = 20.0
ALLOWED_GAP = 0.01
"""Dice by which the network may stay below the forest, on any set and with any number of objects."""

COLUMNS = ("set", "objects", "forest", "network", "gap", "forest s", "round s", "forest s/Mpx", "s/Mpx")


@dataclass(frozen=True)
class Measurement:
    """One learner on one set: Dice of the objects as mean over images, and over all pixels at once."""

    dataset: str
    n_objects: int
    seed: int
    learner: str
    dice: float
    pooled_dice: float
    train_s: float
    predict_s_per_megapixel: float


def run(options: Options) -> BenchmarkResult:
    sets = load_sets(options.data)
    measurements = [
        measurement
        for dataset, parts in sets.items()
        for n_objects in OBJECTS
        for seed in SEEDS
        for measurement in compare(dataset, parts["pool"], parts["test"], n_objects, seed)
    ]
    rows = tuple(_row(measurements, dataset, n) for dataset in sets for n in OBJECTS)
    return BenchmarkResult(
        title=f"Dice on unseen images, mean of {len(SEEDS)} seeds",
        columns=COLUMNS,
        rows=rows,
        record={"measurements": [asdict(m) for m in measurements]},
        goals=tuple(_goals(rows, measurements)),
        notes=() if options.data else ("Generated images: --data DIR measures on real ones.",),
    )


def compare(
    dataset: str, pool: Sequence[LabelledImage], test: Sequence[LabelledImage], n_objects: int, seed: int
) -> list[Measurement]:
    """Train both learners on the same strokes and measure them on the same images."""
    painted = paint(pool, n_objects, np.random.default_rng(seed))
    settings = RoundSettings(budget_s=ROUND_S, n_threads=N_THREADS, seed=seed)
    learners: dict[str, Callable[[], Trained]] = {
        "forest": lambda: train_forest(painted, seed),
        "network": lambda: train_network(PaintedSource(painted), settings)[1],
    }
    found = []
    for learner, train in learners.items():
        measured = measure(train(), test)
        plain = measured[PLAIN]
        scores = plain["dice"], plain["pooled_dice"]
        times = measured["train_s"], plain["predict_s_per_megapixel"]
        found.append(Measurement(dataset, n_objects, seed, learner, *scores, *times))
    return found


def _row(measurements: Sequence[Measurement], dataset: str, n_objects: int) -> tuple[Any, ...]:
    forest, network = (
        [m for m in measurements if (m.dataset, m.n_objects, m.learner) == (dataset, n_objects, learner)]
        for learner in ("forest", "network")
    )
    f, n = (float(np.mean([m.dice for m in of])) for of in (forest, network))
    times = [float(np.mean([m.train_s for m in of])) for of in (forest, network)]
    speeds = [float(np.mean([m.predict_s_per_megapixel for m in of])) for of in (forest, network)]
    return (dataset, n_objects, f, n, n - f, *times, *speeds)


def _goals(rows: Sequence[tuple[Any, ...]], measurements: Sequence[Measurement]) -> list[Goal]:
    goals = [
        Goal(
            f"{dataset}, {n_objects} objects: Dice {network:.3f}, wanted {forest - ALLOWED_GAP:.3f}",
            network >= forest - ALLOWED_GAP,
        )
        for dataset, n_objects, forest, network, *_ in rows
    ]
    longest = max(m.train_s for m in measurements if m.learner == "network")
    return [*goals, Goal(f"longest round {longest:.1f} s, allowed {ROUND_S:.0f} s", longest <= ROUND_S)]
