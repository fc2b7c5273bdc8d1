"""Sets of other kinds than nuclei, painted in swaths, beside the forest; see its --options.

Parts: `forest` (ilastik's recipe), `draft` (what the first 3 s give), `round` (a first round of 20 s),
`consolidated` (a round, and idle time after it), `dense` (consolidated, on all dense labels of the pool), and
the rounds of `bench.domain_ablation`, which go without something, such as `without head`.
All learners of a row see the same strokes. What is finished is kept beside the JSON file in a `.jsonl` file,
from which `--resume` goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import click
import numpy as np

from bench import BenchmarkResult, Options
from bench.annotator import PaintedImage
from bench.domain_ablation import ARMS, Without, ablation_figures
from bench.domain_learners import learn_forest, learn_on, learn_round, measure_learnt, paint_all
from bench.domain_report import domain_figures, domain_goals, summarise_domains
from bench.domain_sets import DomainSet, Split, load_domains
from bench.journal import Journal, learner_version
from bench.peers import N_THREADS
from bench.swaths import paint_swaths
from core.network.mixture import QUICK
from core.rounds import RoundSettings

TAKES_ARGUMENTS = True

PARTS = ("forest", "draft", "round", "consolidated", "dense", *ARMS)
USUAL_PARTS = ("forest", "draft", "round")
DENSE_BUDGET = 0
"""Number of swaths in the rows of the dense reference, which has none."""


@dataclass(frozen=True)
class DomainSettings:
    """The options of the command line; with `max_steps`, steps end every round and not time."""

    seeds: int = 3
    budgets: tuple[int, ...] = (10, 40, 160)
    parts: tuple[str, ...] = USUAL_PARTS
    split: Split = "test"
    draft_s: float = 3.0
    round_s: float = 20.0
    idle_s: float = 300.0
    looks: int = 1
    max_steps: int | None = None

    def round_settings(self, seed: int, budget_s: float) -> RoundSettings:
        return RoundSettings(budget_s, budget_s, self.max_steps, N_THREADS, seed)


@dataclass(frozen=True)
class DomainBench:
    """What is measured, and where the finished measurements are kept; `data` names the images there."""

    settings: DomainSettings
    domains: tuple[DomainSet, ...]
    data: str
    journal: Journal = field(default_factory=lambda: Journal(None))

    def measure_all(self) -> list[dict[str, Any]]:
        """Every part of every set, budget and seed; one set after the other, and its seeds from 0 on."""
        budgets = [*self.settings.budgets] + [DENSE_BUDGET] * ("dense" in self.settings.parts)
        return [
            self._measure(domain, n_swaths, seed, part)
            for domain in self.domains
            for seed in range(self.settings.seeds)
            for n_swaths in budgets
            for part in self.settings.parts
            if (part == "dense") == (n_swaths == DENSE_BUDGET)
        ]

    def _measure(self, domain: DomainSet, n_swaths: int, seed: int, part: str) -> dict[str, Any]:
        about = {"set": domain.name, "swaths": n_swaths, "seed": seed, "part": part}
        key: dict[str, Any] = {**about, "data": self.data, "split": self.settings.split}
        if part != "forest":
            rounds = {
                name: getattr(self.settings, name) for name in (*SECONDS_OF[part], "looks", "max_steps")
            }
            key |= {"version": learner_version(), "rounds": rounds}
        work = partial(self._learn, domain, n_swaths, seed, part)
        return {**about, **self.journal.measure(key, work)}

    def _learn(self, domain: DomainSet, n_swaths: int, seed: int, part: str) -> dict[str, Any]:
        rng = np.random.default_rng(seed)
        painted = paint_all(domain.pool) if part == "dense" else paint_swaths(domain.pool, n_swaths, rng)
        learnt = LEARN[part](self.settings, domain, painted, seed)
        return measure_learnt(learnt, domain.test, domain.schema)


def _forest(settings: DomainSettings, domain: DomainSet, painted: list[PaintedImage], seed: int) -> Any:
    return learn_forest(painted, seed)


def _draft(settings: DomainSettings, domain: DomainSet, painted: list[PaintedImage], seed: int) -> Any:
    in_short = replace(settings.round_settings(seed, settings.draft_s), learners=QUICK)
    return learn_round(painted, domain.schema, in_short, settings.looks, hold_out=False)[1]


def _round(
    arm: Without, settings: DomainSettings, domain: DomainSet, painted: list[PaintedImage], seed: int
) -> Any:
    changed = replace(settings.round_settings(seed, settings.round_s), learners=arm.learners)
    with arm.changed():
        return learn_round(painted, domain.schema, changed, settings.looks)[1]


def _go_on(settings: DomainSettings, domain: DomainSet, painted: list[PaintedImage], seed: int) -> Any:
    usual = settings.round_settings(seed, settings.round_s)
    return learn_on(painted, domain.schema, usual, settings.looks, settings.idle_s)


LEARN: Mapping[str, Callable[[DomainSettings, DomainSet, list[PaintedImage], int], Any]] = {
    "forest": _forest,
    "draft": _draft,
    "round": partial(_round, Without()),
    "consolidated": _go_on,
    "dense": _go_on,
    **{name: partial(_round, arm) for name, arm in ARMS.items()},
}

SECONDS_OF: Mapping[str, tuple[str, ...]] = {
    "draft": ("draft_s",),
    "round": ("round_s",),
    "consolidated": ("round_s", "idle_s"),
    "dense": ("round_s", "idle_s"),
    **dict.fromkeys(ARMS, ("round_s",)),
}
"""Settings that a part's result depends on."""


def run(options: Options) -> BenchmarkResult:
    parsed = _parse(options.arguments)
    resume, names = parsed.pop("resume"), parsed.pop("sets")
    if resume and options.json_path is None:
        raise click.UsageError("--resume reads what is beside the file that --json names")
    settings = DomainSettings(**parsed)
    journal = Journal(options.json_path and options.json_path.with_suffix(".jsonl"), resume)
    domains = tuple(load_domains(options.data, names, settings.split))
    bench = DomainBench(settings, domains, str(options.data or "drawn"), journal)
    measurements = bench.measure_all()
    cells = summarise_domains(measurements)
    first, *further = (*domain_figures(cells), *ablation_figures(measurements))
    notes = () if options.data else ("Drawn images: --data DIR measures on real ones.",)
    record = {
        "settings": vars(settings),
        "data": bench.data,
        "learner_version": learner_version(),
        "measurements": measurements,
    }
    goals = domain_goals(cells) if options.data and settings.split == "test" else ()
    return BenchmarkResult(
        first.title, first.columns, first.rows, record, tuple(goals), notes, tuple(further)
    )


def _parse(arguments: tuple[str, ...]) -> dict[str, Any]:
    parsed = _options.main(arguments, "python -m bench domains", standalone_mode=False)
    if not isinstance(parsed, dict):  # --options was answered
        raise SystemExit(0)
    return parsed


def _names(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(",") if part.strip())


def _budgets(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:
    return tuple(int(part) for part in _names(context, parameter, value))


def _parts(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    names = _names(context, parameter, value)
    if not names or set(names) - set(PARTS):
        raise click.BadParameter(f"parts are {', '.join(PARTS)}, not {value}")
    return names


@click.command(context_settings={"help_option_names": ["--options"], "show_default": True})
@click.option("--sets", default="", callback=_names, help="Names with commas between; all by default.")
@click.option("--parts", default=",".join(USUAL_PARTS), callback=_parts, help=f"Of {', '.join(PARTS)}.")
@click.option("--seeds", default=DomainSettings.seeds, type=click.IntRange(1), help="Seeds 0 to this - 1.")
@click.option(
    "--budgets", default=",".join(map(str, DomainSettings.budgets)), callback=_budgets, help="Swaths."
)
@click.option(
    "--split",
    type=click.Choice(("pool", "test")),
    default="test",
    help="What judges; `pool`, for choices: the last part of the pool, which nobody then paints in.",
)
@click.option("--draft", "draft_s", default=DomainSettings.draft_s, help="Seconds of a draft.")
@click.option("--round", "round_s", default=DomainSettings.round_s, help="Seconds of a first round.")
@click.option("--idle", "idle_s", default=DomainSettings.idle_s, help="Seconds of idle time after it.")
@click.option("--looks", default=DomainSettings.looks, type=click.IntRange(1, 4), help="Mirrored looks.")
@click.option("--steps", "max_steps", type=click.IntRange(1), help="Rounds end after so many steps instead.")
@click.option("--resume", is_flag=True, help="Keep what an interrupted run has measured.")
def _options(**values: Any) -> dict[str, Any]:
    """Options of this benchmark, beside --data and --json."""
    return values
