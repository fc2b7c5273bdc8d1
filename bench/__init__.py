"""Benchmarks. `python -m bench NAME` runs the one in `bench/NAME.py`; `python -m bench --list` names them.

A benchmark is a module of this package with a top-level function `run(options: Options) -> BenchmarkResult`.
Modules without one (a simulated annotator, for instance) are material for benchmarks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Options:
    """What the command line says. `data` is a folder of real data; benchmarks that need none ignore it.

    `json_path` is where the record will be written; a long benchmark keeps what is done so far beside it.
    `arguments` are the benchmark's own, for one whose module says `TAKES_ARGUMENTS = True`.
    """

    data: Path | None = None
    json_path: Path | None = None
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True)
class Goal:
    """Something the benchmark has to show: `text` holds the wanted and the measured value."""

    text: str
    met: bool


@dataclass(frozen=True)
class Figures:
    """One more table: `rows` hold one value per column."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


@dataclass(frozen=True)
class BenchmarkResult:
    """A table for people and a record for programs.

    `rows` hold one value per column; floats are shown with three digits, or as many as come before the point.
    `record` is plain JSON with everything worth keeping, in units named by its keys. `further` are more
    tables, shown below the first one.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    record: Mapping[str, Any] = field(default_factory=dict)
    goals: tuple[Goal, ...] = ()
    notes: tuple[str, ...] = ()
    further: tuple[Figures, ...] = ()
