"""Tables and goals of the domain bench."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from bench import Figures, Goal
from bench.intervals import Interval, interval_of, paired_difference

FOREST = "forest"

LEARNERS = ("draft", "round", "consolidated", "dense")

MARGIN = {"draft": 0.01, "round": 0.03}
"""Macro Dice above the forest, as a mean over seeds."""

NEARLY_PERFECT, AS_GOOD = 0.95, 0.005
"""Where the forest is above the first, being within the second of it is enough."""

ABSOLUTE: Mapping[tuple[str, str, int], float] = {
    ("camvid", "draft", 40): 0.45,
    ("camvid", "round", 40): 0.50,
    ("em_membrane", "round", 40): 0.845,
    ("sandstone", "round", 40): 0.958,
    ("camvid", "consolidated", 160): 0.62,
    ("em_membrane", "consolidated", 160): 0.875,
    ("sandstone", "consolidated", 160): 0.965,
}
"""Macro Dice by set, part and swaths."""

CONSOLIDATED_MARGIN = {("cracks", 160): 0.05}
DENSE_SHARE, DENSE_AT = 0.95, 160

MAX_ECE, MIN_AUROC = 0.05, 0.85

Cell = Mapping[str, Any]
"""One set and number of swaths: per part intervals of `FIGURES`, and `gap` of Dice to the forest."""

FIGURES = ("dice", "ece", "auroc", "train_s", "predict_s_per_megapixel")


def summarise_domains(measurements: Sequence[Mapping[str, Any]]) -> list[Cell]:
    """Intervals over the seeds, and paired differences to the forest that saw the same strokes."""
    places = dict.fromkeys((one["set"], one["swaths"]) for one in measurements)
    return [_summarise(measurements, *place) for place in places]


def domain_figures(cells: Sequence[Cell]) -> tuple[Figures, ...]:
    parts = [part for part in (FOREST, *LEARNERS) if any(part in cell["parts"] for cell in cells)]
    return (_quality(cells, parts), _details(cells, parts), _classes(cells, parts))


def domain_goals(cells: Sequence[Cell]) -> Iterator[Goal]:
    """What the figures must show, as far as they were measured."""
    for cell in cells:
        yield from _goals_beside_the_forest(cell)
        yield from _goals_of_the_doubts(cell)
        for part, found in cell["parts"].items():
            least = ABSOLUTE.get((cell["set"], part, cell["swaths"]))
            if least is not None:
                yield _at_least(cell, f"{part} Dice", found["dice"], least)
    yield from _goals_of_more_paint(cells)
    yield from _goals_beside_dense_labels(cells)


def _summarise(measurements: Sequence[Mapping[str, Any]], name: str, n_swaths: int) -> Cell:
    of = [one for one in measurements if (one["set"], one["swaths"]) == (name, n_swaths)]
    by_part = {
        part: sorted((one for one in of if one["part"] == part), key=lambda one: int(one["seed"]))
        for part in dict.fromkeys(one["part"] for one in of)
    }
    forest = [one["dice"] for one in by_part.get(FOREST, [])]
    parts = {}
    for part, ours in by_part.items():
        found: dict[str, Any] = {figure: _interval(one[figure] for one in ours) for figure in FIGURES}
        if part != FOREST and len(forest) == len(ours):
            found["gap"] = paired_difference([one["dice"] for one in ours], forest)
        found["class_dice"] = {
            label: _interval(one["class_dice"][label] for one in ours) for label in ours[0]["class_dice"]
        }
        parts[part] = found
    return {"set": name, "swaths": n_swaths, "parts": parts}


def _interval(values: Any) -> Interval:
    return interval_of([float("nan") if value is None else float(value) for value in values])


def _quality(cells: Sequence[Cell], parts: Sequence[str]) -> Figures:
    columns: tuple[str, ...] = ("set", "swaths")
    for part in parts:
        columns += (part,) if part == FOREST else (part, f"{part} - forest")
    rows = []
    for cell in cells:
        row: tuple[Any, ...] = (cell["set"], cell["swaths"] or "all")
        for part in parts:
            found = cell["parts"].get(part, {})
            row += (str(found.get("dice", "")),)
            row += () if part == FOREST else (str(found.get("gap", "")),)
        rows.append(row)
    title = "Macro Dice of unseen images, over the classes that their truth holds"
    return Figures(title, columns, tuple(rows))


def _details(cells: Sequence[Cell], parts: Sequence[str]) -> Figures:
    rows = tuple(
        (
            cell["set"],
            cell["swaths"] or "all",
            part,
            *(str(cell["parts"][part][name]) for name in FIGURES[1:]),
        )
        for cell in cells
        for part in parts
        if part in cell["parts"]
    )
    columns = ("set", "swaths", "learner", "ECE", "AUROC of doubt", "training s", "answer s/Mpx")
    return Figures("Doubts and time", columns, rows)


def _classes(cells: Sequence[Cell], parts: Sequence[str]) -> Figures:
    rows = tuple(
        (cell["set"], cell["swaths"] or "all", label, *(_class_dice(cell, part, label) for part in parts))
        for cell in cells
        for label in next(iter(cell["parts"].values()))["class_dice"]
    )
    return Figures("Dice by class", ("set", "swaths", "class", *parts), rows)


def _class_dice(cell: Cell, part: str, label: str) -> str:
    return str(cell["parts"][part]["class_dice"][label]) if part in cell["parts"] else ""


def _goals_beside_the_forest(cell: Cell) -> Iterator[Goal]:
    for part, found in cell["parts"].items():
        margin = MARGIN.get(part)
        if part == "consolidated":
            margin = CONSOLIDATED_MARGIN.get((cell["set"], cell["swaths"]))
        if margin is None or "gap" not in found:
            continue
        if cell["parts"][FOREST]["dice"].mean > NEARLY_PERFECT:
            margin = -AS_GOOD
        yield _at_least(cell, f"{part} Dice above the forest", found["gap"], margin)


def _goals_of_the_doubts(cell: Cell) -> Iterator[Goal]:
    found = cell["parts"].get("round")
    if found is None:
        return
    ece, auroc = found["ece"], found["auroc"]
    where = f"{cell['set']}, {cell['swaths']} swaths:"
    yield Goal(f"{where} ECE at most {MAX_ECE}: {ece}", ece.mean <= MAX_ECE)
    yield Goal(f"{where} AUROC of doubt at least {MIN_AUROC}: {auroc}", auroc.mean >= MIN_AUROC)


def _goals_of_more_paint(cells: Sequence[Cell]) -> Iterator[Goal]:
    found = [cell for cell in cells if "consolidated" in cell["parts"] and cell["swaths"]]
    for few, many in pairwise(found):
        if few["set"] == many["set"] and few["swaths"] < many["swaths"]:
            before, after = (cell["parts"]["consolidated"]["dice"] for cell in (few, many))
            text = f"{many['set']}: {many['swaths']} swaths above {few['swaths']}: {after} against {before}"
            yield Goal(text, after.mean > before.mean)


def _goals_beside_dense_labels(cells: Sequence[Cell]) -> Iterator[Goal]:
    dense = {cell["set"]: cell["parts"]["dense"]["dice"] for cell in cells if "dense" in cell["parts"]}
    for cell in cells:
        found = cell["parts"].get("consolidated")
        if found is None or cell["set"] not in dense or cell["swaths"] != DENSE_AT:
            continue
        least = round(DENSE_SHARE * dense[cell["set"]].mean, 4)
        yield _at_least(cell, f"consolidated Dice ({DENSE_SHARE:.0%} of dense)", found["dice"], least)


def _at_least(cell: Cell, what: str, found: Interval, least: float) -> Goal:
    text = f"{cell['set']}, {cell['swaths']} swaths: {what} at least {least:+.3f}: {found}"
    return Goal(text, found.mean >= least)
