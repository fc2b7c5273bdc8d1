"""The tables and goals of the quality part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench import Figures, Goal
from bench.intervals import Interval

Cell = Mapping[str, Any]
"""What `learner_quality.summarise` gives for one set and budget."""

DICE_MARGIN = {5: 0.01, 15: 0.01, 50: 0.02, 200: 0.03}
"""Dice above the forest, by the number of painted objects."""

DENSE_BUDGET, DENSE_SHARE = 50, 0.98
"""From so many objects on, this part of what all dense labels give is as good: nothing is left to learn."""

AP_MARGIN, AP_BUDGET = 0.10, 200
MAX_S_PER_MEGAPIXEL, MIN_TIMES_FASTER = 0.35, 5.0
MAX_ECE, MIN_AUROC = 0.05, 0.85
JUDGED_DOUBT, JUDGED_BAND = "predictive_entropy", "without_answer_band"
"""The map that questions come from. The answer's own outlines are what can be left out when asking."""


def quality_figures(cells: Sequence[Cell], dense: Mapping[str, Interval]) -> tuple[Figures, ...]:
    return (_segmentation(cells, dense), _as_sent(cells), _doubts(cells), _speed(cells))


def _segmentation(cells: Sequence[Cell], dense: Mapping[str, Interval]) -> Figures:
    columns: tuple[str, ...] = ("set", "objects")
    for name in ("Dice", "boundary F1", "AP@.5"):
        columns += (f"{name} forest", name, "gap")
    rows = []
    for cell in cells:
        row: tuple[Any, ...] = (cell["set"], cell["objects"])
        for name in ("dice", "boundary_f1", "ap50"):
            row += tuple(str(cell[name][which]) for which in ("forest", "network", "gap"))
        rows.append(row)
    rows += [(dataset, "all", "", str(found), *[""] * 7) for dataset, found in dense.items() if found.n]
    title = "Segmentation of unseen images, without test-time augmentation; `all`: dense labels of the pool"
    return Figures(title, columns, tuple(tuple(row[: len(columns)]) for row in rows))


def _as_sent(cells: Sequence[Cell]) -> Figures:
    columns: tuple[str, ...] = ("set", "objects")
    for name in ("Dice", "boundary F1", "AP@.5"):
        columns += (name, f"{name} gap")
    rows = []
    for cell in cells:
        row: tuple[Any, ...] = (cell["set"], cell["objects"])
        for name in ("dice", "boundary_f1", "ap50"):
            row += tuple(str(cell[name][which]) for which in ("augmented", "augmented_gap"))
        rows.append(row)
    title = "The same with four mirrored looks, which is what the service sends; gap: above the forest"
    return Figures(title, columns, tuple(rows))


def _doubts(cells: Sequence[Cell]) -> Figures:
    columns = (
        "set",
        "objects",
        "ECE forest",
        "ECE",
        "ECE 4 looks",
        "AUROC entropy",
        "AUROC MI",
        "AUROC margin",
        "entropy, truth's band out",
        "entropy, no band out",
        "forest margin",
    )
    rows = []
    for cell in cells:
        auroc = cell["auroc"]
        values = (
            cell["ece"]["forest"],
            cell["ece"]["network"],
            cell["ece"]["augmented"],
            *(auroc[doubt][JUDGED_BAND] for doubt in auroc),
            auroc[JUDGED_DOUBT]["without_truth_band"],
            auroc[JUDGED_DOUBT]["all"],
            cell["forest_auroc"][JUDGED_BAND],
        )
        rows.append((cell["set"], cell["objects"], *map(str, values)))
    return Figures(
        "Knowing when it is wrong; AUROC with 4 looks and the 2 px band of its own outlines left out",
        columns,
        tuple(rows),
    )


def _speed(cells: Sequence[Cell]) -> Figures:
    columns = (
        "set",
        "objects",
        "forest trains s",
        "trains s",
        "longest s",
        "steps",
        "forest s/Mpx",
        "s/Mpx",
        "times faster",
        "price of uncertainty",
    )
    rows = []
    for cell in cells:
        speed, train = cell["predict_s_per_megapixel"], cell["train_s"]
        rows.append(
            (
                cell["set"],
                cell["objects"],
                *(str(train[name]) for name in ("forest", "network")),
                cell["longest_round_s"],
                round(cell["steps"].mean),
                *(str(speed[name]) for name in ("forest", "network")),
                cell["faster"].mean,
                cell["price_of_uncertainty"].mean,
            )
        )
    return Figures("What it costs on two cores", columns, tuple(rows))


def quality_goals(cells: Sequence[Cell], dense: Mapping[str, Interval], round_s: float) -> tuple[Goal, ...]:
    goals = [goal for cell in cells for goal in _cell_goals(cell, dense[cell["set"]])]
    longest = max(cell["longest_round_s"] for cell in cells)
    return (
        *goals,
        Goal(f"longest round {longest:.1f} s, allowed {round_s:g} s", longest <= round_s),
    )


def _cell_goals(cell: Cell, dense: Interval) -> list[Goal]:
    where = f"{cell['set']}, {cell['objects']} objects"
    speed, ece = cell["predict_s_per_megapixel"]["network"], cell["ece"]["augmented"]
    auroc, faster = cell["auroc"][JUDGED_DOUBT][JUDGED_BAND], cell["faster"]
    goals = [
        _dice_goal(where, cell, dense),
        Goal(
            f"{where}: {speed} s per megapixel, allowed {MAX_S_PER_MEGAPIXEL}",
            speed.mean <= MAX_S_PER_MEGAPIXEL,
        ),
        Goal(
            f"{where}: {faster.mean:.1f} x faster than the forest, wanted {MIN_TIMES_FASTER:g} x",
            faster.mean >= MIN_TIMES_FASTER,
        ),
        Goal(f"{where}: calibration error {ece}, allowed {MAX_ECE}", ece.mean <= MAX_ECE),
        Goal(f"{where}: AUROC for wrong pixels {auroc}, wanted {MIN_AUROC}", auroc.mean >= MIN_AUROC),
    ]
    if cell["objects"] >= AP_BUDGET:
        gap = cell["ap50"]["gap"]
        goals.append(
            Goal(f"{where}: AP@.5 above the forest {gap}, wanted {AP_MARGIN}", gap.mean >= AP_MARGIN)
        )
    return goals


def _dice_goal(where: str, cell: Cell, dense: Interval) -> Goal:
    n_objects, gap, ours = cell["objects"], cell["dice"]["gap"], cell["dice"]["network"].mean
    margin = next((m for n, m in sorted(DICE_MARGIN.items(), reverse=True) if n_objects >= n), DICE_MARGIN[5])
    text, met = f"{where}: Dice above the forest {gap}, wanted {margin}", gap.mean >= margin
    if n_objects >= DENSE_BUDGET and dense.n:
        share = ours / dense.mean
        text += f"; or {share:.3f} of dense labels' {dense.mean:.3f}, wanted {DENSE_SHARE}"
        met = met or share >= DENSE_SHARE
    return Goal(text, met)
