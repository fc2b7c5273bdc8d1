"""One arm of a study: an annotator goes round after round where a learner asks.

Every study has this loop, whoever learns: `simulation.local_learner` in this process, or a whole service
behind HTTP in the benchmark `rounds`. So the figures of both mean the same.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from core.objects.measure import ObjectLimits
from simulation.annotator import paint_place, place_around, review_place
from simulation.brush import Effort
from simulation.ground_truth import SCHEMA
from simulation.perception import NOISE_LEVELS, DenseTruth, perceive
from simulation.visits import Place, Visit

PLACE_DIAMETERS = 2.0
"""People who begin work on an object and its neighbourhood."""


class Learner(Protocol):
    """What an arm annotates for."""

    @property
    def has_model(self) -> bool:
        """Whether it can propose places; without a model the annotator begins with objects by chance."""

    def propose(self, number: int, rng: np.random.Generator) -> Sequence[Place]:
        """Places of round `number`, in the order to visit them; at least as many as the budget needs."""

    def learn(self, number: int, visits: Sequence[Visit]) -> bool:
        """Learn from new visits; returns whether a new model was promoted."""

    def measure(self) -> float:
        """Mean Dice of the objects over the test images, 0 without a model."""


@dataclass(frozen=True)
class FinishedRound:
    """What one round took and came to."""

    number: int
    visits: tuple[Visit, ...]
    dice: float
    promoted: bool

    @property
    def n_objects(self) -> int:
        """Objects that were painted whole or reviewed."""
        return sum(len(visit.objects) for visit in self.visits)

    @property
    def n_units(self) -> int:
        """What it cost of the budget of objects."""
        return sum(visit.n_units for visit in self.visits)

    @property
    def effort(self) -> Effort:
        return sum((visit.effort for visit in self.visits), Effort())


class Arm:
    """One way to choose places with one seed, from which all chance comes.

    A killed arm goes on as it would have.

    Parameters
    ----------
    name : of the arm; arms of other names draw other numbers
    seed : all arms of a seed share their annotator and their first round
    truth : what is in each image of the pool, by name
    objects_per_round : the budget
    noise : key of `simulation.perception.NOISE_LEVELS`
    """

    def __init__(
        self,
        name: str,
        seed: int,
        truth: Mapping[str, DenseTruth],
        learner: Learner,
        *,
        objects_per_round: int,
        noise: str,
    ) -> None:
        self.name, self.seed, self.learner = name, seed, learner
        self.objects_per_round = objects_per_round
        self.visits: list[Visit] = []
        # Every arm of a seed meets the same annotator: who misses an object misses it in all of them.
        rng = np.random.default_rng((seed, zlib.crc32(b"annotator")))
        self.seen = {image: perceive(of, SCHEMA, NOISE_LEVELS[noise], rng) for image, of in truth.items()}

    def run_round(self, number: int) -> FinishedRound:
        """Annotate, learn, measure."""
        rng = np.random.default_rng((self.seed, number, zlib.crc32(self.name.encode()) if number else 0))
        places = self.learner.propose(number, rng) if self.learner.has_model else self._first_places(rng)
        visits = self._annotate(places, number)
        self.visits += visits
        promoted = self.learner.learn(number, visits)
        return FinishedRound(number, tuple(visits), self.learner.measure(), promoted)

    def _first_places(self, rng: np.random.Generator) -> list[Place]:
        """Boxes around objects by chance, the same for every arm: people begin by painting objects."""
        objects = [(image, number) for image, seen in self.seen.items() for number in seen.class_of]
        side = round(PLACE_DIAMETERS * ObjectLimits().typical_diameter_px)
        chosen = [objects[int(index)] for index in rng.permutation(len(objects))]
        return [Place(image, place_around(self.seen[image], number, side)) for image, number in chosen]

    def _annotate(self, places: Sequence[Place], number: int) -> list[Visit]:
        """Visit places until the budget of objects is used up."""
        visits: list[Visit] = []
        budget = self.objects_per_round
        hand: tuple[float, float] | None = None
        for index, place in enumerate(places):
            if budget <= 0:
                break
            # Another image opens with the pointer in its middle.
            hand = hand if visits and visits[-1].image == place.image else None
            visit, hand = self._visit(place, visits, f"r{number}p{index}", budget, hand)
            visits.append(visit)
            budget -= visit.n_units
        return visits

    def _visit(
        self,
        place: Place,
        before: Sequence[Visit],
        name: str,
        budget: int,
        hand: tuple[float, float] | None,
    ) -> tuple[Visit, tuple[float, float]]:
        """Correct what the place shows, or paint it from nothing; `before` are visits of this round."""
        seen = self.seen[place.image]
        if place.shown is not None:
            work = review_place(seen, SCHEMA, place.box, place.shown, name=name, hand=hand)
        else:
            finished = {o for v in [*self.visits, *before] if v.image == place.image for o in v.objects}
            work = paint_place(seen, SCHEMA, place.box, finished, n_objects=budget, name=name, hand=hand)
        return Visit.of(place, work), work.hand
