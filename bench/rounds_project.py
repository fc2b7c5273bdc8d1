"""A service behind HTTP as the learner of a study: it is asked for places, sent webhooks, and measured."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from bench.annotator import OBJECT, LabelledImage
from bench.fake_label_studio import FakeLabelStudio
from bench.http_calls import POLL_S, Service
from bench.painted_results import to_results
from bench.rounds_answers import Answer, ask, mean_uncertainty, questions_hit
from bench.rounds_places import BLIND_ARMS, choose_places
from bench.scores import object_dice
from core.painting import Box, BrushRegion, Mask
from simulation.arm import Arm, FinishedRound
from simulation.perception import DenseTruth
from simulation.visits import Place, Visit

ROUND_TIMEOUT_S = 240.0

PROJECT_ID = 1

PAINTER = 1
"""Who paints has one annotation per image, which grows; each review is an annotation of its own."""

NO_QUESTIONS = [0, 0, 0, 0]
"""Counts of `questions_hit` where nothing was asked."""


@dataclass(frozen=True)
class RoundsSettings:
    """What a run depends on, besides its set, seed and arm."""

    rounds: int = 12
    objects_per_round: int = 10
    noise: str = "medium"
    steps: int = 80
    images_per_round: int = 40


@dataclass
class _ImageState:
    """What has been done in one image."""

    annotated: Mask
    regions: list[BrushRegion] = field(default_factory=list)
    n_reviews: int = 0


class ServiceLearner:
    """A project in the service; all calls go over HTTP. Implements `simulation.arm.Learner`."""

    def __init__(
        self,
        service: Service,
        fake: FakeLabelStudio,
        parts: Mapping[str, Sequence[LabelledImage]],
        settings: RoundsSettings,
        arm: str,
    ) -> None:
        self.service, self.fake, self.settings, self.arm = service, fake, settings, arm
        self.pool = {image.name: image for image in parts["pool"]}
        self.test = list(parts["test"])
        # Names of both parts may be equal: tasks of test images are kept apart.
        self.tasks = fake.add_project(PROJECT_ID, list(self.pool.values()))
        self.test_tasks = fake.add_project(PROJECT_ID, self.test)
        self.truth = {n: DenseTruth.of_one_class(i.instances, OBJECT) for n, i in self.pool.items()}
        self.states = {n: _ImageState(np.zeros(i.instances.shape, bool)) for n, i in self.pool.items()}
        self.status: dict[str, Any] = {}
        self.questions_hit = NO_QUESTIONS
        service.post("/setup", fake.setup_body(PROJECT_ID))

    def run_rounds(self, seed: int) -> dict[str, Any]:
        """All rounds of this arm, as plain JSON values."""
        settings = self.settings
        arm = Arm(
            self.arm,
            seed,
            self.truth,
            self,
            objects_per_round=settings.objects_per_round,
            noise=settings.noise,
        )
        return {"rounds": [self._to_record(arm.run_round(number)) for number in range(settings.rounds + 1)]}

    def run_dense(self) -> dict[str, Any]:
        """The same number of rounds on all there is: the Dice that others are measured against."""
        for name, image in self.pool.items():
            regions = [
                _whole(f"d{number}", image.instances == number)
                for number in np.unique(image.instances[image.instances > 0])
            ]
            everywhere = Box(0, 0, *image.instances.shape)
            self._post(name, PAINTER, to_results(regions, [everywhere], _shape(image), "dense"))
        dices = []
        for number in range(self.settings.rounds + 1):
            if number:
                self._train_again()
            self.service.wait_until_learnt(PROJECT_ID, ROUND_TIMEOUT_S)
            dices.append(self.measure())
        return {"dice": dices}

    @property
    def has_model(self) -> bool:
        return bool(self.status)

    def propose(self, number: int, rng: np.random.Generator) -> list[Place]:
        """Places by this arm's rule, over some images of the pool."""
        names = sorted(self.pool)
        chosen = [names[i] for i in rng.permutation(len(names))[: self.settings.images_per_round]]
        answers = {} if self.arm in BLIND_ARMS else self._ask_pool(chosen)
        annotated = {name: self.states[name].annotated for name in chosen}
        places = choose_places(self.arm, answers, annotated, self.truth, self._uncertainty_of, rng)
        self.questions_hit = questions_hit(answers, {n: self.pool[n].instances for n in answers}, annotated)
        return places

    def learn(self, number: int, visits: Sequence[Visit]) -> bool:
        """Submit every painted image once and each review on its own, then wait for the model."""
        before = self.status.get("model_version")
        painted: set[str] = set()
        for index, visit in enumerate(visits):
            if visit.reviewed:
                self._submit_review(visit, f"r{number}p{index}")
            else:
                self._remember(visit)
                painted.add(visit.image)
        for image in sorted(painted):
            results = to_results(self.states[image].regions, [], _shape(self.pool[image]), f"r{number}")
            self._post(image, PAINTER, results)
        self.status = self.service.wait_until_learnt(PROJECT_ID, ROUND_TIMEOUT_S)
        return bool(self.status["model_version"] != before)

    def measure(self) -> float:
        """Mean Dice of the pre-annotations that the test images would open with."""
        shapes = {image.name: _shape(image) for image in self.test}
        found = ask(self.service, self.fake, PROJECT_ID, self.test_tasks, shapes)
        maps = [np.where(found[image.name].objects, OBJECT, 0).astype(np.uint8) for image in self.test]
        return object_dice(maps, self.test)[0]

    def _ask_pool(self, names: Sequence[str]) -> dict[str, Answer]:
        shapes = {name: _shape(self.pool[name]) for name in names}
        tasks = {name: self.tasks[name] for name in names}
        return ask(self.service, self.fake, PROJECT_ID, tasks, shapes)

    def _uncertainty_of(self, name: str) -> float:
        return mean_uncertainty(self.service, PROJECT_ID, self.tasks[name])

    def _to_record(self, done: FinishedRound) -> dict[str, Any]:
        record = {
            "objects": done.n_objects,
            "units": done.n_units,
            "effort": asdict(done.effort),
            "dice": done.dice,
            "questions_hit": self.questions_hit,
            "round": self.status["round"],
            "model_version": self.status["model_version"],
        }
        self.questions_hit = NO_QUESTIONS
        return record

    def _submit_review(self, visit: Visit, name: str) -> None:
        state = self.states[visit.image]
        state.n_reviews += 1
        for box in visit.reviewed:
            state.annotated[box.slices] = True
        results = to_results(visit.regions, visit.reviewed, _shape(self.pool[visit.image]), name)
        self._post(visit.image, PAINTER + state.n_reviews, results)

    def _remember(self, visit: Visit) -> None:
        state = self.states[visit.image]
        state.regions += visit.regions
        for region in visit.regions:
            state.annotated[region.box.slices] |= region.painted

    def _post(self, image: str, person: int, results: list[dict[str, Any]]) -> None:
        self.service.post("/webhook", self.fake.submit(self.tasks[image], person, results))

    def _train_again(self) -> None:
        """Ask for one more round, and wait until it has been, promoted or not."""
        before = self._count_rounds()
        self.service.post(f"/api/projects/{PROJECT_ID}/train", None)
        deadline = time.monotonic() + ROUND_TIMEOUT_S
        while self._count_rounds() == before and time.monotonic() < deadline:
            time.sleep(POLL_S)

    def _count_rounds(self) -> int:
        """How many rounds have ended."""
        _, body = self.service.call("GET", f"/api/projects/{PROJECT_ID}/rounds")
        return sum(one["state"] != "running" for one in json.loads(body))


def _shape(image: LabelledImage) -> tuple[int, int]:
    height, width = image.instances.shape
    return height, width


def _whole(region_id: str, mask: Mask) -> BrushRegion:
    return BrushRegion(region_id, OBJECT, "manual", 0, 0, np.where(mask, 255, 0).astype(np.uint8))
