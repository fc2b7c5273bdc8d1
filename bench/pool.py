"""A pool of 10,000 tasks against one of 500: what a round costs besides its training; see its --options.

Each pool has a service of its own (web process and worker, SQLite, a fresh data folder) and a stand-in for
Label Studio with small generated images. Rounds of the pools take turns, so a busy machine slows them
alike. All rounds make equally many steps and look at equally many tasks.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from bench import BenchmarkResult, Figures, Goal, Options
from bench.pool_project import PoolProject, PoolRound, PoolSettings, running_project, to_record

TAKES_ARGUMENTS = True

SIZES = "500,10000"

MAX_OVERHEAD_RATIO = 1.2
MAX_MEMORY_RATIO = 1.1
"""What `flat` means: the same service varies by some percent from run to run."""
MAX_RANKING_S = 0.2

COLUMNS = ("tasks", "rounds", "training s", "overhead s", "after promotion s", "tasks scored", "seen before")
CALL_COLUMNS = ("tasks", "ranking ms", "its first 1000 ms", "status ms", "dashboard ms")
SIZE_COLUMNS = ("tasks", "web MiB", "worker MiB", "training MiB", "database MiB")


def run(options: Options) -> BenchmarkResult:
    parsed = _parse(options.arguments)
    sizes = parsed.pop("sizes")
    settings = PoolSettings(**parsed)
    with (
        tempfile.TemporaryDirectory(prefix="brushloop-bench-", ignore_cleanup_errors=True) as name,
        ExitStack() as services,
    ):
        projects = {
            n: services.enter_context(running_project(n, Path(name) / str(n), settings)) for n in sizes
        }
        rounds = measure(projects, settings)
        found = {n: to_record(project, rounds[n]) for n, project in projects.items()}
    return to_result(found, settings)


def measure(projects: dict[int, PoolProject], settings: PoolSettings) -> dict[int, list[PoolRound]]:
    """The rounds of each pool that were promoted, one after the other in turns."""
    rounds: dict[int, list[PoolRound]] = {n: [] for n in projects}
    for project in projects.values():
        project.begin()
    for number in range(settings.rounds):
        for n, project in projects.items():
            print(f"measure {n} tasks, round {number + 1}", flush=True)
            one = project.run_round()
            rounds[n] += [one] if one else []
    return rounds


def to_result(found: dict[int, dict[str, Any]], settings: PoolSettings) -> BenchmarkResult:
    """The table and the goals; the first pool is what the last one is compared with."""
    if not all(one["rounds"] for one in found.values()):
        raise RuntimeError("a pool had no round that was promoted: nothing can be compared")
    record = {"settings": asdict(settings), "pools": {str(n): one for n, one in found.items()}}
    return BenchmarkResult(
        title=f"Rounds with a review of {settings.budget} tasks, medians",
        columns=COLUMNS,
        rows=tuple(_round_row(n, one) for n, one in found.items()),
        further=(
            Figures("Calls by people, medians", CALL_COLUMNS, tuple(map(_call_row, found, found.values()))),
            Figures("Peak memory and size", SIZE_COLUMNS, tuple(map(_size_row, found, found.values()))),
        ),
        record=record,
        goals=_find_goals(found),
    )


def _round_row(n_tasks: int, one: dict[str, Any]) -> tuple[Any, ...]:
    names = ("training_s", "overhead_s", "review_s", "n_scored", "n_scored_before")
    return (n_tasks, len(one["rounds"]), *(one["median"][name] for name in names))


def _call_row(n_tasks: int, one: dict[str, Any]) -> tuple[Any, ...]:
    names = ("ranking_s", "long_ranking_s", "status_s", "dashboard_s")
    return (n_tasks, *(1000 * one["median"][name] for name in names))


def _size_row(n_tasks: int, one: dict[str, Any]) -> tuple[Any, ...]:
    peaks = (one["peak_bytes"].get(role, 0) for role in ("web", "worker", "training"))
    return (n_tasks, *(n_bytes / 2**20 for n_bytes in (*peaks, one["database_bytes"])))


def _find_goals(found: dict[int, dict[str, Any]]) -> tuple[Goal, ...]:
    (small, few), (large, many) = min(found.items()), max(found.items())
    pools = f"{large} tasks against {small}"
    overhead = many["median"]["overhead_s"] / few["median"]["overhead_s"]
    goals = [
        Goal(
            f"{pools}: {overhead:.2f} x the overhead of a round, allowed {MAX_OVERHEAD_RATIO} x",
            overhead <= MAX_OVERHEAD_RATIO,
        )
    ]
    for role in sorted(set(few["peak_bytes"]) & set(many["peak_bytes"])):
        ratio = many["peak_bytes"][role] / few["peak_bytes"][role]
        goals.append(
            Goal(
                f"{pools}: {ratio:.2f} x the memory ({role}), allowed {MAX_MEMORY_RATIO} x",
                ratio <= MAX_MEMORY_RATIO,
            )
        )
    slowest = max(one["ranking_s"] for one in many["rounds"])
    goals.append(
        Goal(
            f"{large} tasks: the ranking under {1000 * MAX_RANKING_S:.0f} ms: {1000 * slowest:.0f} ms",
            slowest < MAX_RANKING_S,
        )
    )
    return tuple(goals)


def _parse(arguments: Sequence[str]) -> dict[str, Any]:
    """The options of this benchmark; raises click's own errors."""
    with _command.make_context("pool", list(arguments)) as context:
        found = dict(context.params)
    sizes = found["sizes"].split(",")
    if not all(size.isdecimal() and int(size) > 0 for size in sizes):
        raise click.UsageError("--sizes: numbers of tasks are needed, separated by commas")
    return {**found, "sizes": tuple(dict.fromkeys(int(size) for size in sizes))}


@click.command()
@click.option("--sizes", default=SIZES, show_default=True, help="Tasks of each pool, separated by commas.")
@click.option("--rounds", type=click.IntRange(1), default=PoolSettings.rounds, show_default=True)
@click.option("--steps", type=click.IntRange(1), default=PoolSettings.steps, show_default=True)
@click.option("--side-px", type=click.IntRange(32), default=PoolSettings.side_px, show_default=True)
@click.option("--annotated", type=click.IntRange(1), default=PoolSettings.annotated, show_default=True)
@click.option("--per-round", type=click.IntRange(1), default=PoolSettings.per_round, show_default=True)
@click.option("--budget", type=click.IntRange(1), default=PoolSettings.budget, show_default=True)
def _command(**options: Any) -> None:
    """Only read for its options."""
