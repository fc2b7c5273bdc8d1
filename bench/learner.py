"""The learner: quality by budget beside its peers, and what a long project costs; see its --options.

Parts: `quality` (segmentation, doubts and speed after 5 to 200 painted objects, beside a random forest),
`incremental` (the same strokes in several rounds), `cost` (many annotated tasks, many rounds), `forgetting`
(a new look, a new class), `memory` (large images), `repeat` (same seed, same weights), and `ablation`, which
only runs when it is named. What is finished is kept beside the JSON file in a `.jsonl` file, from which
`--resume` goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from bench import BenchmarkResult, Goal, Options
from bench.annotator import load_sets
from bench.journal import Journal, learner_version
from bench.learner_ablation import measure_ablation
from bench.learner_cost import measure_cost
from bench.learner_forgetting import measure_forgetting
from bench.learner_incremental import measure_incremental
from bench.learner_memory import measure_memory
from bench.learner_quality import measure_quality
from bench.learner_repeat import measure_repeat
from bench.learner_settings import Bench, LearnerSettings, PartResult
from bench.reliability import save_picture

TAKES_ARGUMENTS = True

PARTS: Mapping[str, Callable[[Bench], PartResult]] = {
    "quality": measure_quality,
    "incremental": measure_incremental,
    "cost": measure_cost,
    "forgetting": measure_forgetting,
    "memory": measure_memory,
    "repeat": measure_repeat,
    "ablation": measure_ablation,
}
USUAL_PARTS = tuple(name for name in PARTS if name != "ablation")


def run(options: Options) -> BenchmarkResult:
    parsed = _parse(options.arguments)
    parts, resume = parsed.pop("parts"), parsed.pop("resume")
    if resume and options.json_path is None:
        raise click.UsageError("--resume reads what is beside the file that --json names")
    settings = LearnerSettings(**parsed)
    journal = Journal(options.json_path and options.json_path.with_suffix(".jsonl"), resume)
    bench = Bench(settings, load_sets(options.data), str(options.data or "generated"), journal)
    return _to_result(bench, {name: PARTS[name](bench) for name in parts})


def _to_result(bench: Bench, found: Mapping[str, PartResult]) -> BenchmarkResult:
    first, *further = [figures for part in found.values() for figures in part.figures]
    goals: list[Goal] = [goal for part in found.values() for goal in part.goals]
    notes = [] if bench.data != "generated" else ["Generated images: --data DIR measures on real ones."]
    picture = bench.settings.picture
    if picture is not None and "quality" in found:
        save_picture(found["quality"].record["measurements"], picture)
        notes.append(f"Reliability diagram: {picture}")
    return BenchmarkResult(
        first.title,
        first.columns,
        first.rows,
        record={
            "settings": _settings_record(bench.settings),
            "data": bench.data,
            "learner_version": learner_version(),
            **{name: part.record for name, part in found.items()},
        },
        goals=tuple(goals),
        notes=tuple(notes),
        further=tuple(further),
    )


def _settings_record(settings: LearnerSettings) -> dict[str, Any]:
    return {name: str(v) if isinstance(v, Path) else v for name, v in vars(settings).items()}


def _parse(arguments: tuple[str, ...]) -> dict[str, Any]:
    parsed = _options.main(arguments, "python -m bench learner", standalone_mode=False)
    if not isinstance(parsed, dict):  # --options was answered
        raise SystemExit(0)
    return parsed


def _split(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(",") if part.strip())


def _budgets(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:
    return tuple(int(part) for part in _split(context, parameter, value))


def _parts(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    names = _split(context, parameter, value)
    unknown = set(names) - set(PARTS)
    if unknown or not names:
        raise click.BadParameter(f"parts are {', '.join(PARTS)}, not {', '.join(sorted(unknown))}")
    return names


@click.command(context_settings={"help_option_names": ["--options"], "show_default": True})
@click.option("--parts", default=",".join(USUAL_PARTS), callback=_parts, help="Names with commas between.")
@click.option("--seeds", default=LearnerSettings.seeds, type=click.IntRange(1), help="Seeds 0 to this - 1.")
@click.option(
    "--budgets",
    default=",".join(map(str, LearnerSettings.budgets)),
    callback=_budgets,
    help="Painted objects.",
)
@click.option("--round", "round_s", default=LearnerSettings.round_s, help="Seconds of a first round.")
@click.option("--warm", "warm_s", default=LearnerSettings.warm_s, help="Seconds of a later round.")
@click.option("--dense", "dense_s", default=LearnerSettings.dense_s, help="Seconds on dense labels.")
@click.option("--dense-seeds", default=LearnerSettings.dense_seeds, help="0 leaves the reference out.")
@click.option("--steps", "max_steps", type=click.IntRange(1), help="Rounds end after so many steps instead.")
@click.option("--resume", is_flag=True, help="Keep what an interrupted run has measured.")
@click.option("--picture", type=click.Path(dir_okay=False, path_type=Path), help="Reliability diagram, PNG.")
def _options(**values: Any) -> dict[str, Any]:
    """Options of the learner's benchmark, beside --data and --json."""
    return values
