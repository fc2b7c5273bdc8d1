"""What a study compares and how; kept beside its results, so that nobody goes on with another one."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from simulation.acquisitions import Acquisition

Answer = Literal["paint", "review"]

FIRST_ROUND_FACTOR = 2.5
"""A first round takes so much longer than a later one, as with the service's own settings."""


@dataclass(frozen=True)
class StudySettings:
    """All arms of a study share these.

    Attributes
    ----------
    acquisitions : the arms
    rounds : after the first one, whose objects are chosen by chance
    objects_per_round : a place without objects counts as one
    noise : key of `simulation.perception.NOISE_LEVELS`
    answer : places are painted from nothing, or the pre-annotation in them is corrected and reviewed
    steps : of optimisation per round; `budget_s`, when set, limits seconds instead and is not repeatable
    images_per_round : images that the model predicts to find places; the cost does not grow with the pool
    """

    acquisitions: tuple[Acquisition, ...]
    seeds: int = 3
    rounds: int = 8
    objects_per_round: int = 10
    noise: str = "medium"
    answer: Answer = "paint"
    steps: int = 60
    budget_s: float | None = None
    images_per_round: int = 24
    n_threads: int | None = None

    @property
    def first_steps(self) -> int:
        return round(FIRST_ROUND_FACTOR * self.steps)

    @property
    def first_budget_s(self) -> float:
        return FIRST_ROUND_FACTOR * (self.budget_s or 1.0)

    def to_record(self) -> dict[str, Any]:
        """What results depend on; more arms or seeds only add to them."""
        record = asdict(self)
        for grows in ("acquisitions", "seeds", "n_threads"):
            del record[grows]
        return record
