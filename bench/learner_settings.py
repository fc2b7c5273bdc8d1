"""What the learner's benchmark is told, and what its parts give back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import Figures, Goal
from bench.annotator import LabelledImage
from bench.journal import Journal, learner_version
from bench.peers import N_THREADS
from core.rounds import RoundSettings

Sets = Mapping[str, Mapping[str, list[LabelledImage]]]


@dataclass(frozen=True)
class LearnerSettings:
    """The options of the command line; with `max_steps`, steps end every round and not time."""

    seeds: int = 5
    budgets: tuple[int, ...] = (5, 15, 50, 200)
    round_s: float = 20.0
    warm_s: float = 8.0
    dense_s: float = 180.0
    dense_seeds: int = 1
    max_steps: int | None = None
    picture: Path | None = None

    def round_settings(self, seed: int, budget_s: float | None = None) -> RoundSettings:
        budget_s = budget_s or self.round_s
        return RoundSettings(budget_s, self.warm_s, self.max_steps, N_THREADS, seed)


@dataclass(frozen=True)
class Bench:
    """What every part works with. `data` names the images in the journal's keys."""

    settings: LearnerSettings
    sets: Sets
    data: str
    journal: Journal = field(default_factory=lambda: Journal(None))

    def measure(self, key: Mapping[str, Any], work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Measure something that does not depend on our own learner, or read it from the journal."""
        return self.journal.measure({**key, "data": self.data}, work)

    def measure_ours(
        self,
        key: Mapping[str, Any],
        seed: int,
        work: Callable[[], dict[str, Any]],
        budget_s: float | None = None,
    ) -> dict[str, Any]:
        """Measure our own learner: another source, base weights or round is another measurement."""
        settings = self.settings.round_settings(seed, budget_s)
        rounds = {
            "budget_s": settings.budget_s,
            "warm_s": settings.warm_budget_s,
            "steps": settings.max_steps,
        }
        return self.measure({**key, "seed": seed, "version": learner_version(), "rounds": rounds}, work)


@dataclass(frozen=True)
class PartResult:
    """Tables, goals and the record of one part; `record` is plain JSON."""

    figures: tuple[Figures, ...]
    goals: tuple[Goal, ...]
    record: Mapping[str, Any]
