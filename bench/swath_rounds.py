"""Review rounds on label maps of any kind: what swaths are worth by where they begin; see its --options.

Sets, painting and Dice are those of `bench domains`, arms those of `bench/swath_arms.py`. The learner is the
head that a draft has, with equally many steps in every round, so that a busy machine changes nothing.
`--split pool` is for choosing an acquisition, the test images are for tables alone. What is finished is kept
beside the JSON file in a `.jsonl` file, from which `--resume` goes on.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import click
import torch

from bench import BenchmarkResult, Options
from bench.domain_sets import load_domains
from bench.journal import Journal, learner_version
from bench.swath_arms import ARMS
from bench.swath_figures import COLUMNS, Runs, find_goals, to_record, to_rows
from bench.swath_study import Bench, SwathSettings

TAKES_ARGUMENTS = True

DENSE = "dense"

USUAL_ARMS = ("random", "own", "foreground", "image-entropy", "ours", "class-stratified", "oracle")


def run(options: Options) -> BenchmarkResult:
    parsed = _parse(options.arguments)
    arms, seeds, split = parsed.pop("arms"), parsed.pop("seeds"), parsed.pop("split")
    journal = Journal(options.json_path and options.json_path.with_suffix(".jsonl"), parsed.pop("resume"))
    domains = load_domains(options.data, parsed.pop("sets"), split)
    torch.set_num_threads(parsed.pop("threads"))
    settings = SwathSettings(**parsed)
    runs: Runs = {}
    for domain in domains:
        bench = Bench.of(domain, settings)
        for seed, arm in itertools.product(range(seeds), (DENSE, *arms)):
            key = {
                "set": domain.name,
                "seed": seed,
                "arm": arm,
                "split": split,
                "settings": asdict(settings),
                "data": str(options.data or "drawn"),
                "learner": learner_version(),
            }
            work = partial(bench.run_dense, seed) if arm == DENSE else partial(bench.run_arm, arm, seed)
            runs[domain.name, seed, arm] = journal.measure(key, work)
    names = [domain.name for domain in domains]
    return BenchmarkResult(
        title=f"{settings.rounds} review rounds of {settings.swaths} swaths, {seeds} seeds, judges: {split}",
        columns=COLUMNS,
        rows=to_rows(runs, names, arms),
        record={"settings": asdict(settings), "split": split, **to_record(runs, names, arms)},
        goals=find_goals(runs, names, arms) if options.data else (),
        notes=() if options.data else ("Drawn images: --data DIR measures on real ones.",),
    )


def _parse(arguments: Sequence[str]) -> dict[str, Any]:
    parsed = _options.main(list(arguments), "python -m bench swath_rounds", standalone_mode=False)
    if not isinstance(parsed, dict):  # --options was answered
        raise SystemExit(0)
    return parsed


def _names(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(",") if part.strip())


def _arms(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    names = _names(context, parameter, value)
    unknown = sorted(set(names) - set(ARMS))
    if unknown or not names:
        raise click.BadParameter(f"no arm is called {', '.join(unknown)}; there are: {', '.join(ARMS)}")
    return names


def _count(name: str, text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    default = getattr(SwathSettings, name)
    return click.option(f"--{name}", default=default, type=click.IntRange(1), help=text)


@click.command(context_settings={"help_option_names": ["--options"], "show_default": True})
@click.option("--sets", default="", callback=_names, help="Names with commas between; all by default.")
@click.option("--arms", default=",".join(USUAL_ARMS), callback=_arms, help=f"Of {', '.join(ARMS)}.")
@click.option("--seeds", default=3, type=click.IntRange(1), help="Seeds 0 to this - 1.")
@click.option("--split", type=click.Choice(("pool", "test")), default="test", help="What judges.")
@click.option("--threads", default=1, type=click.IntRange(1), help="Threads that compute.")
@_count("rounds", "Rounds after the first one.")
@_count("swaths", "Swaths of one round.")
@_count("steps", "Steps of the head in every round.")
@_count("looks", "Images of the pool that a round's model looks at.")
@_count("side", "Images are cut into parts of at most so many pixels.")
@_count("pool", "Parts that people may paint in.")
@_count("judged", "Parts that judge.")
@click.option("--resume", is_flag=True, help="Go on from what is beside the JSON file.")
def _options(**values: Any) -> dict[str, Any]:
    """Options of this benchmark, beside --data and --json."""
    return values
