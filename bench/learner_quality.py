"""How good the first round is at each budget, beside the forest and a network that knows everything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from bench.annotator import LabelledImage, paint
from bench.intervals import Interval, interval_of, paired_difference
from bench.learner_settings import Bench, PartResult
from bench.painted_source import PaintedSource
from bench.peers import AUGMENTED, PLAIN, dense_source, measure, train_forest, train_network
from bench.quality_report import quality_figures, quality_goals
from core.rounds import RoundSettings

FOREST, NETWORK, DENSE = "forest", "network", "dense"

Measurement = Mapping[str, Any]
"""`{"set", "objects", "seed", "learner", "train_s", "plain": scores, "augmented": scores, ...}`."""

DOUBTS = ("predictive_entropy", "mutual_information", "margin")
BANDS = ("all", "without_answer_band", "without_truth_band")


def measure_quality(bench: Bench) -> PartResult:
    measurements = [*_measure_budgets(bench), *_measure_dense(bench)]
    cells = [summarise(measurements, dataset, n) for dataset in bench.sets for n in bench.settings.budgets]
    dense = {dataset: _dense_dice(measurements, dataset) for dataset in bench.sets}
    record = {
        "measurements": measurements,
        "summary": [_to_record(cell) for cell in cells],
        "dense_dice": {name: found.to_record() for name, found in dense.items()},
    }
    return PartResult(
        quality_figures(cells, dense), quality_goals(cells, dense, bench.settings.round_s), record
    )


def _measure_budgets(bench: Bench) -> list[Measurement]:
    found: list[Measurement] = []
    for dataset in bench.sets:
        for n_objects in bench.settings.budgets:
            for seed in range(bench.settings.seeds):
                about = {"part": "quality", "set": dataset, "objects": n_objects, "seed": seed}
                forest = bench.measure(
                    {**about, "learner": FOREST}, partial(_measure_forest, bench, dataset, n_objects, seed)
                )
                network = bench.measure_ours(
                    {**about, "learner": NETWORK},
                    seed,
                    partial(_measure_network, bench, dataset, n_objects, seed),
                )
                found += [{**about, "learner": FOREST, **forest}, {**about, "learner": NETWORK, **network}]
    return found


def _measure_forest(bench: Bench, dataset: str, n_objects: int, seed: int) -> dict[str, Any]:
    parts = bench.sets[dataset]
    painted = paint(parts["pool"], n_objects, np.random.default_rng(seed))
    return measure(train_forest(painted, seed), parts["test"])


def _measure_network(bench: Bench, dataset: str, n_objects: int, seed: int) -> dict[str, Any]:
    parts = bench.sets[dataset]
    source = PaintedSource(paint(parts["pool"], n_objects, np.random.default_rng(seed)))
    return measure(train_network(source, bench.settings.round_settings(seed))[1], parts["test"])


def _measure_dense(bench: Bench) -> list[Measurement]:
    """Our own network on all dense labels of the pool, for longer than a round."""
    found: list[Measurement] = []
    budget_s = bench.settings.dense_s
    for dataset, parts in bench.sets.items():
        for seed in range(bench.settings.dense_seeds):
            about = {"part": "quality", "set": dataset, "objects": "all", "learner": DENSE}
            settings = bench.settings.round_settings(seed, budget_s)
            work = partial(_measure_whole_pool, parts, settings)
            found.append({**about, "seed": seed, **bench.measure_ours(about, seed, work, budget_s)})
    return found


def _measure_whole_pool(
    parts: Mapping[str, Sequence[LabelledImage]], settings: RoundSettings
) -> dict[str, Any]:
    return measure(train_network(dense_source(parts["pool"]), settings)[1], parts["test"])


def summarise(measurements: Sequence[Measurement], dataset: str, n_objects: int) -> dict[str, Any]:
    """Intervals over the seeds of one set and budget, by name; `gap` is ours minus the forest's."""
    forest, network = (
        [m for m in measurements if (m["set"], m["objects"], m["learner"]) == (dataset, n_objects, learner)]
        for learner in (FOREST, NETWORK)
    )
    cell: dict[str, Any] = {"set": dataset, "objects": n_objects}
    for name in ("dice", "boundary_f1", "ap50", "ece", "predict_s_per_megapixel"):
        ours, theirs = ([m[PLAIN][name] for m in of] for of in (network, forest))
        cell[name] = {"network": interval_of(ours), "forest": interval_of(theirs)}
        cell[name]["gap"] = paired_difference(ours, theirs)
        augmented = [m[AUGMENTED][name] for m in network]
        cell[name]["augmented"] = interval_of(augmented)
        cell[name]["augmented_gap"] = paired_difference(augmented, theirs)
    cell["train_s"] = {
        name: interval_of([m["train_s"] for m in of])
        for name, of in (("network", network), ("forest", forest))
    }
    cell["longest_round_s"] = max(m["train_s"] for m in network)
    cell["steps"] = interval_of([m["steps"] for m in network])
    cell["faster"] = interval_of(_ratios(forest, network, PLAIN))
    cell["price_of_uncertainty"] = interval_of(
        [m[AUGMENTED]["predict_s_per_megapixel"] / m[PLAIN]["predict_s_per_megapixel"] for m in network]
    )
    cell["auroc"] = {
        doubt: {band: _interval(m[AUGMENTED]["auroc"][doubt][band] for m in network) for band in BANDS}
        for doubt in DOUBTS
    }
    cell["forest_auroc"] = {
        band: _interval(m[PLAIN]["auroc"]["margin"][band] for m in forest) for band in BANDS
    }
    return cell


def _ratios(forest: Sequence[Measurement], network: Sequence[Measurement], mode: str) -> list[float]:
    name = "predict_s_per_megapixel"
    return [f[mode][name] / n[mode][name] for f, n in zip(forest, network, strict=True)]


def _interval(values: Any) -> Interval:
    return interval_of([float("nan") if value is None else value for value in values])


def _dense_dice(measurements: Sequence[Measurement], dataset: str) -> Interval:
    return interval_of(
        [m[PLAIN]["dice"] for m in measurements if (m["set"], m["learner"]) == (dataset, DENSE)]
    )


def _to_record(value: Any) -> Any:
    if isinstance(value, Interval):
        return value.to_record()
    if isinstance(value, dict):
        return {name: _to_record(inner) for name, inner in value.items()}
    return value
