"""Review rounds through the service: how much painting each way to choose places takes; see its --options.

The study is that of `simulation/`. Here its annotator (docs/decisions/0008) answers over HTTP, with brush
streams, to a real service with a worker. Arms are described in `bench/rounds_places.py`. Dice is that of the
pre-annotations of unseen images. What is finished is kept beside the JSON file in a `.jsonl` file, from which
`--resume` goes on; parts that ran with --sets, --arms or --seeds are put together by the last run that names
them all. All rounds make equally many steps, so a busy machine changes how long it takes and not what comes
out. Sets of label maps, which have a `classes.txt`, are measured by `bench/swath_rounds.py` instead.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import click

from bench import BenchmarkResult, Options, swath_rounds
from bench.annotator import LabelledImage, load_sets
from bench.fake_label_studio import FakeLabelStudio
from bench.fake_label_studio_app import run_fake
from bench.journal import Journal, learner_version
from bench.rounds_figures import COLUMNS, Runs, find_goals, to_record, to_rows
from bench.rounds_places import ARMS
from bench.rounds_project import RoundsSettings, ServiceLearner
from bench.service import running_service
from simulation.perception import NOISE_LEVELS

TAKES_ARGUMENTS = True

DENSE = "dense"

LabelledSets = Mapping[str, Mapping[str, Sequence[LabelledImage]]]

MIN_PIXELS = 200
"""The gate opens with the first ten objects, however small."""


def run(options: Options) -> BenchmarkResult:
    if options.data and any(options.data.glob("*/classes.txt")):
        return swath_rounds.run(options)
    parsed = _parse(options.arguments)
    arms, seeds, resume = parsed.pop("arms"), parsed.pop("seeds"), parsed.pop("resume")
    dense_seeds, wanted_sets = parsed.pop("dense_seeds"), parsed.pop("sets")
    settings = RoundsSettings(**parsed)
    journal = Journal(options.json_path and options.json_path.with_suffix(".jsonl"), resume)
    sets = _choose_sets(load_sets(options.data), wanted_sets)
    runs: Runs = {}
    for (name, parts), seed in itertools.product(sets.items(), range(seeds)):
        for arm in (*((DENSE,) if seed < dense_seeds else ()), *arms):
            key = {
                "set": name,
                "seed": seed,
                "arm": arm,
                "settings": asdict(settings),
                "data": str(options.data or "generated"),
                "learner": learner_version(),
            }
            work = partial(_run_arm, parts, seed, arm, settings)
            runs[name, seed, arm] = journal.measure(key, work)
    return BenchmarkResult(
        title=f"{settings.rounds} review rounds of {settings.objects_per_round} objects, {seeds} seeds",
        columns=COLUMNS,
        rows=to_rows(runs, list(sets), arms),
        record={"settings": asdict(settings), **to_record(runs, list(sets), arms)},
        goals=find_goals(runs, list(sets), arms),
        notes=() if options.data else ("Generated images: --data DIR measures on real ones.",),
    )


def _choose_sets(sets: LabelledSets, wanted: str | None) -> LabelledSets:
    """The named sets, or all; raises click's own error for one that there is not."""
    names = wanted.split(",") if wanted else list(sets)
    unknown = sorted(set(names) - set(sets))
    if unknown:
        raise click.UsageError(f"no set is called {', '.join(unknown)}; there are: {', '.join(sets)}")
    return {name: sets[name] for name in names}


def _run_arm(
    parts: Mapping[str, Sequence[LabelledImage]], seed: int, arm: str, settings: RoundsSettings
) -> dict[str, Any]:
    """One arm in a service of its own: tasks have the same numbers in all, and the hold-out goes by them."""
    fake = FakeLabelStudio({})
    environment = {
        "MIN_PIXELS_PER_CLASS": str(MIN_PIXELS),
        "QUIET_TIME_S": "0.2",
        "ROUND_STEPS": str(settings.steps),
        "MAX_QUESTIONS": "5",
    }
    with (
        tempfile.TemporaryDirectory(prefix="brushloop-bench-", ignore_cleanup_errors=True) as folder,
        run_fake(fake),
        running_service(fake, Path(folder), environment) as service,
    ):
        learner = ServiceLearner(service, fake, parts, settings, arm)
        return learner.run_dense() if arm == DENSE else learner.run_rounds(seed)


def _parse(arguments: Sequence[str]) -> dict[str, Any]:
    """The options of this benchmark; raises click's own errors."""
    with _command.make_context("rounds", list(arguments)) as context:
        found = dict(context.params)
    arms = tuple(found["arms"].split(","))
    unknown = sorted(set(arms) - set(ARMS))
    if unknown:
        raise click.UsageError(f"no arm is called {', '.join(unknown)}; there are: {', '.join(ARMS)}")
    return {**found, "arms": arms}


@click.command()
@click.option("--sets", help="Separated by commas; all without it.")
@click.option("--arms", default=",".join(ARMS), show_default=True, help="Separated by commas.")
@click.option("--seeds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--dense-seeds", type=click.IntRange(1), default=1, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=12, show_default=True)
@click.option("--objects-per-round", type=click.IntRange(1), default=10, show_default=True)
@click.option("--noise", type=click.Choice(tuple(NOISE_LEVELS)), default="medium", show_default=True)
@click.option("--steps", type=click.IntRange(1), default=RoundsSettings.steps, show_default=True)
@click.option("--images-per-round", type=click.IntRange(1), default=RoundsSettings.images_per_round)
@click.option("--resume", is_flag=True, help="Go on from what is beside the JSON file.")
def _command(**options: Any) -> None:
    """Only read for its options."""
