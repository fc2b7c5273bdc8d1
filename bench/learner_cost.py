"""A round costs the same in a large project as in a small one, and after a hundred rounds as after two.

Rounds are measured by a fixed number of steps: by time they would all take the same. Everything is stored
and read as the service does it; listing the tasks in the database is not part of a round.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from bench import Figures, Goal
from bench.fresh_process import run_fresh
from bench.learner_settings import Bench, PartResult
from bench.stored_project import mark_new, run_round, write_project
from ml_backend.training import StoredExample

SMALL, LARGE = 20, 2000
N_NEW = 5
"""Tasks that are new in a measured round, in a project of any size."""

N_ROUNDS = 100
TASKS_PER_ROUND = 2
"""New tasks of each round of the long project, which begins with `SMALL` tasks."""

STEPS, STEPS_BETWEEN = 150, 5
"""Of a measured round, about what a later round of the service makes, and of those that only go by."""

REPEATS = 3
MAX_TIME_RATIO, MAX_MEMORY_RATIO = 1.2, 1.3


def measure_cost(
    bench: Bench, sizes: tuple[int, int] = (SMALL, LARGE), n_rounds: int = N_ROUNDS, repeats: int = REPEATS
) -> PartResult:
    steps = bench.settings.max_steps or STEPS
    with tempfile.TemporaryDirectory(prefix="bench-cost-") as name:
        folder = Path(name)
        examples: list[StoredExample] = []

        def stored() -> list[StoredExample]:
            if not examples:
                n_needed = max(*sizes, sizes[0] + n_rounds * TASKS_PER_ROUND)
                examples.extend(write_project(folder, n_needed))
            return examples

        about = {"part": "cost", "steps": steps, "repeats": repeats}
        by_size = bench.measure_ours(
            {**about, "what": "tasks", "sizes": list(sizes)},
            0,
            lambda: compare_sizes(folder, stored(), sizes, steps, repeats),
        )
        by_round = bench.measure_ours(
            {**about, "what": "rounds", "n_rounds": n_rounds, "first": sizes[0]},
            0,
            lambda: run_fresh(_live_long, folder, stored(), sizes[0], n_rounds, steps, repeats),
        )
    return _report(by_size, by_round)


def compare_sizes(
    folder: Path, examples: Sequence[StoredExample], sizes: tuple[int, int], n_steps: int, repeats: int
) -> dict[str, Any]:
    """Seconds and peak memory of equal rounds in a small and a large project, each in a new process."""
    start = folder / "start"
    run_fresh(_run_one, mark_new(examples[: sizes[0]], 0), None, start, n_steps)
    found: dict[str, list[dict[str, Any]]] = {str(size): [] for size in sizes}
    for repeat in range(repeats):
        for size in sizes:  # in turns, so that whatever else the machine does hits both
            told = mark_new(examples[:size], size - N_NEW)
            output = folder / f"size-{size}-{repeat}"
            found[str(size)].append(run_fresh(_run_one, told, start, output, n_steps))
    return {
        "rounds": found,
        "seconds": {size: median(r["seconds"] for r in rounds) for size, rounds in found.items()},
        "peak_bytes": {size: max(r["peak_bytes"] for r in rounds) for size, rounds in found.items()},
    }


def _run_one(
    examples: Sequence[StoredExample], start: Path | None, output: Path, n_steps: int
) -> dict[str, Any]:
    trained, seconds = run_round(examples, start, output, n_steps)
    return {"seconds": seconds, "images": trained.report["seen"]["images"], "promoted": trained.promoted}


def _live_long(
    folder: Path, examples: Sequence[StoredExample], n_first: int, n_rounds: int, n_steps: int, repeats: int
) -> dict[str, Any]:
    """Go on from round to round; measure the second and the last one."""
    start: Path | None = None
    first_new = 0
    measured: dict[str, list[float]] = {}
    n_promoted = 0
    for number in range(1, n_rounds + 1):
        n_tasks = n_first + TASKS_PER_ROUND * (number - 1)
        told = mark_new(examples[:n_tasks], first_new)
        is_measured = number in (2, n_rounds)
        for repeat in range(repeats if is_measured else 1):
            output = folder / f"round-{number}-{repeat}"
            steps = n_steps if is_measured else min(STEPS_BETWEEN, n_steps)
            trained, seconds = run_round(told, start, output, steps, seed=number)
            if is_measured:
                measured.setdefault(str(number), []).append(seconds)
        if trained.promoted:
            start, first_new, n_promoted = output, n_tasks, n_promoted + 1
    return {
        "rounds": measured,
        "seconds": {number: median(seconds) for number, seconds in measured.items()},
        "tasks": n_tasks,
        "promoted": n_promoted,
    }


def _report(by_size: dict[str, Any], by_round: dict[str, Any]) -> PartResult:
    sizes, rounds = list(by_size["seconds"]), list(by_round["seconds"])
    time_ratio = by_size["seconds"][sizes[-1]] / by_size["seconds"][sizes[0]]
    memory_ratio = by_size["peak_bytes"][sizes[-1]] / by_size["peak_bytes"][sizes[0]]
    round_ratio = by_round["seconds"][rounds[-1]] / by_round["seconds"][rounds[0]]
    rows = [
        (f"{size} annotated tasks", by_size["seconds"][size], by_size["peak_bytes"][size] / 2**20)
        for size in sizes
    ]
    rows += [(f"round {number}", by_round["seconds"][number], "") for number in rounds]
    goals = (
        _goal(f"{sizes[-1]} tasks against {sizes[0]}: time", time_ratio, MAX_TIME_RATIO),
        _goal(f"{sizes[-1]} tasks against {sizes[0]}: memory", memory_ratio, MAX_MEMORY_RATIO),
        _goal(f"round {rounds[-1]} against round {rounds[0]}: time", round_ratio, MAX_TIME_RATIO),
    )
    record = {
        "tasks": by_size,
        "rounds": by_round,
        "time_ratio": time_ratio,
        "memory_ratio": memory_ratio,
        "round_ratio": round_ratio,
    }
    title = "A round of equal steps in projects of different size and age"
    return PartResult((Figures(title, ("", "s", "peak MiB"), tuple(rows)),), goals, record)


def _goal(what: str, ratio: float, allowed: float) -> Goal:
    return Goal(f"{what} {ratio:.2f} x, allowed {allowed} x", ratio <= allowed)
