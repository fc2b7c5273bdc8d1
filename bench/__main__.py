"""`python -m bench NAME [--data DIR] [--json FILE]`: run one benchmark, print its table, keep its record.

Some benchmarks have options of their own; `python -m bench NAME --options` names them. The exit status is 1
when a goal of the benchmark was missed.
"""

from __future__ import annotations

import ast
import importlib
import json
import os
import platform
import sys
import time
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from bench import BenchmarkResult, Figures, Options

REPORTED_PACKAGES = (
    "numpy",
    "numba",
    "torch",
    "scikit-learn",
    "label-studio-sdk",
    "label-studio-brush-rle-rs",
)
"""Packages whose version decides about the numbers."""


def find_benchmarks() -> dict[str, str]:
    """Name and first docstring line of each benchmark; read from the source, so nothing heavy is imported."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("[!_]*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if any(isinstance(node, ast.FunctionDef) and node.name == "run" for node in tree.body):
            found[path.stem] = (ast.get_docstring(tree) or "").partition("\n")[0]
    return found


def describe_environment() -> dict[str, Any]:
    """What a stranger has to know to compare the numbers with their own."""
    return {
        "at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "cpu_count": os.cpu_count(),
        "machine": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in REPORTED_PACKAGES},
    }


FILE_WIDTH = 180
"""Columns of what goes to a file or a pipe, whose width nobody knows: no table of ours is wider."""


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _show(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def print_result(result: BenchmarkResult, environment: dict[str, Any], console: Console) -> None:
    for figures in (Figures(result.title, result.columns, result.rows), *result.further):
        table = Table(title=figures.title)
        for column in figures.columns:
            table.add_column(column)
        for row in figures.rows:
            table.add_row(*map(_show, row))
        console.print(table)
    packages = ", ".join(f"{name} {number}" for name, number in environment["packages"].items() if number)
    console.print(f"{environment['cpu_count']} CPUs, Python {environment['python']}, {packages}", style="dim")
    for note in result.notes:
        console.print(note)
    for goal in result.goals:
        console.print(
            f"{'met   ' if goal.met else 'MISSED'} {goal.text}", style="green" if goal.met else "red"
        )


def to_document(
    name: str, result: BenchmarkResult, environment: dict[str, Any], seconds: float
) -> dict[str, Any]:
    return {
        "benchmark": name,
        "environment": environment,
        "seconds": round(seconds, 3),
        "title": result.title,
        "columns": result.columns,
        "rows": result.rows,
        "further": [asdict(figures) for figures in result.further],
        "goals": [{"text": goal.text, "met": goal.met} for goal in result.goals],
        "notes": result.notes,
        "record": result.record,
    }


@click.command(help=__doc__, context_settings={"ignore_unknown_options": True})
@click.argument("name", required=False)
@click.option(
    "--data", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of real data."
)
@click.option(
    "--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write the record here."
)
@click.option("--list", "listing", is_flag=True, help="Name the benchmarks and stop.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def main(
    name: str | None, data: Path | None, json_path: Path | None, listing: bool, arguments: tuple[str, ...]
) -> None:
    benchmarks = find_benchmarks()
    if listing or name is None:
        for known, summary in benchmarks.items():
            click.echo(f"{known:<14} {summary}")
        return
    if name not in benchmarks:
        raise click.BadParameter(f"there is no benchmark {name!r}; there are: {', '.join(benchmarks)}")
    module = importlib.import_module(f"bench.{name}")
    if arguments and not getattr(module, "TAKES_ARGUMENTS", False):
        raise click.UsageError(f"{name} takes no {' '.join(arguments)}")
    environment = describe_environment()
    began = time.perf_counter()
    try:
        result: BenchmarkResult = module.run(Options(data, json_path, arguments))
    except FileNotFoundError as error:
        raise click.ClickException(str(error)) from error
    seconds = time.perf_counter() - began
    print_result(result, environment, Console(width=None if sys.stdout.isatty() else FILE_WIDTH))
    if json_path is not None:
        document = to_document(name, result, environment, seconds)
        json_path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if not all(goal.met for goal in result.goals):
        sys.exit(1)


if __name__ == "__main__":
    main(prog_name="python -m bench")
