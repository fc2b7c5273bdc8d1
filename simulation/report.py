"""The report of a study: `results.json`, `report.md` and the plots."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from simulation.brush import Pace
from simulation.perception import NOISE_LEVELS
from simulation.plots import draw_curves
from simulation.summary import LEVELS, Curve, summarise_study

RESULTS_FILE, REPORT_FILE = "results.json", "report.md"
PLOTS = {"objects": "dice-objects.png", "seconds": "dice-seconds.png"}


def write_report(folder: Path, curves: Sequence[Curve], settings: Mapping[str, Any], about: str) -> Path:
    """Write everything; returns the path of the Markdown file."""
    results = summarise_study(curves, settings)
    (folder / RESULTS_FILE).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    for effort, name in PLOTS.items():
        level = LEVELS[-1] * results["best_dice"]
        draw_curves(folder / name, results["curves"], effort, level, f"{100 * LEVELS[-1]:.0f} % of the best")
    path = folder / REPORT_FILE
    path.write_text(to_markdown(results, about), encoding="utf-8")
    return path


def to_markdown(results: Mapping[str, Any], about: str) -> str:
    """The report as text."""
    settings = results["settings"]
    parts = [
        "# Simulated annotation study",
        f"{about}. {_setting_words(settings)}",
        f"![Dice against painted objects]({PLOTS['objects']})",
        f"![Dice against simulated seconds]({PLOTS['seconds']})",
        _table(results),
        _comparison(results),
        _assumptions(settings),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _setting_words(settings: Mapping[str, Any]) -> str:
    budget = f"{settings['budget_s']:g} s" if settings["budget_s"] else f"{settings['steps']} steps"
    answer = "painted from nothing" if settings["answer"] == "paint" else "corrected and reviewed"
    return (
        f"{settings['rounds']} rounds of {settings['objects_per_round']} objects after a first one whose "
        f"objects are chosen by chance; {budget} of training per round; places are {answer}; noise of the "
        f"annotator: {settings['noise']}."
    )


def _table(results: Mapping[str, Any]) -> str:
    levels = [f"{100 * share:.0f}" for share in LEVELS]
    heads = ["acquisition", "seeds", "last Dice", "area (objects)", "area (seconds)"]
    heads += [f"{what} to {level} %" for level in levels for what in ("objects", "seconds")]
    rows = [heads, ["---"] * len(heads)]
    for arm, curves in results["arms"].items():
        row = [arm, str(curves["seeds"])]
        row += [f"{curves[key]:.3f}" for key in ("last_dice", "aubc_objects", "aubc_seconds")]
        row += [_number(curves[f"{what}_to_{level}"]) for level in levels for what in ("objects", "seconds")]
        rows.append(row)
    text = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return (
        f"{text}\n\nAreas are under the curve of Dice, divided by its width. Levels are shares of the best "
        f"mean Dice of any arm, {results['best_dice']:.3f}; a dash where not every seed got there."
    )


def _comparison(results: Mapping[str, Any]) -> str:
    """Differences to the baseline that leave out zero are the ones to believe."""
    lines = []
    for arm, curves in results["arms"].items():
        if "against_baseline" not in curves:
            continue
        against = curves["against_baseline"]
        ratios = against["seconds_ratio"]
        measured = [ratio for ratio in ratios.values() if ratio is not None]
        seconds = "-"
        if ratios["as stated"] is not None:
            seconds = f"{ratios['as stated']:.2f} ({min(measured):.2f} to {max(measured):.2f})"
        lines.append(
            f"| {arm} | {_interval(against['aubc_objects'])} | {_interval(against['aubc_seconds'])} "
            f"| {_interval(against['last_dice'])} | {seconds} |"
        )
    if not lines:
        return ""
    head = (
        f"## Against {results['baseline']}\n\nPaired differences over the seeds with 95 % bootstrap "
        f"intervals; the last column is the ratio of seconds to {100 * LEVELS[-1]:.0f} %, with its range "
        "when each assumption of the time model is halved or doubled.\n\n"
        "| acquisition | area (objects) | area (seconds) | last Dice | seconds |\n"
        "| --- | --- | --- | --- | --- |\n"
    )
    return head + "\n".join(lines)


def _assumptions(settings: Mapping[str, Any]) -> str:
    pace, noise = Pace(), NOISE_LEVELS[settings["noise"]]
    return (
        "## What is assumed\n\n"
        f"{pace.search_s:g} s to find where a stroke begins, {pace.travel_px_per_s:g} px/s between strokes, "
        f"{pace.paint_px_per_s:g} px/s in a stroke, {pace.final_check_s:g} s for a last look at each place, "
        f"{pace.question_s:g} s to compare a pre-annotation with the picture. Outlines are off by "
        f"{noise.edge_px:g} px, {100 * noise.missed_share:g} % of the objects are missed and "
        f"{100 * noise.wrong_class_share:g} % get a wrong class. A place without objects counts as one "
        "object. Simulated people are better than real ones: read differences between arms, not minutes."
    )


def _interval(found: Mapping[str, float]) -> str:
    return f"{found['mean']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"
