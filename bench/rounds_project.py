"""One arm with one seed, through the service: paint or correct, post webhooks, wait, measure."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from bench.annotator import OBJECT, SCHEMA, LabelledImage
from bench.fake_label_studio import FakeLabelStudio
from bench.http_calls import POLL_S, Service
from bench.painted_results import to_results
from bench.rounds_answers import Answer, ask, mean_uncertainty, questions_hit
from bench.rounds_places import BLIND_ARMS, OBJECT_SIZE_PX, Place, choose_places
from bench.scores import object_dice
from core.painting import Box, BrushRegion, Mask
from simulation.annotator import Work, paint_place, place_around, review_place
from simulation.brush import Effort
from simulation.perception import NOISE_LEVELS, DenseTruth, perceive

ROUND_TIMEOUT_S = 240.0

PROJECT_ID = 1

PAINTER = 1
"""Who paints has one annotation per image, which grows; each review is an annotation of its own."""


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

    known: Mask
    regions: list[BrushRegion] = field(default_factory=list)
    objects: set[int] = field(default_factory=set)
    n_reviews: int = 0


class SimulatedProject:
    """A project in the service with somebody who annotates it; all calls go over HTTP."""

    def __init__(
        self,
        service: Service,
        fake: FakeLabelStudio,
        parts: Mapping[str, Sequence[LabelledImage]],
        seed: int,
        settings: RoundsSettings,
    ) -> None:
        self.service, self.fake = service, fake
        self.seed, self.settings = seed, settings
        self.pool = {image.name: image for image in parts["pool"]}
        self.test = list(parts["test"])
        # Names of both parts may be equal: tasks of test images are kept apart.
        self.tasks = fake.add_project(PROJECT_ID, list(self.pool.values()))
        self.test_tasks = fake.add_project(PROJECT_ID, self.test)
        self.truth = {n: DenseTruth.of_one_class(i.instances, OBJECT) for n, i in self.pool.items()}
        rng = np.random.default_rng((seed, zlib.crc32(b"annotator")))
        noise = NOISE_LEVELS[settings.noise]
        self.seen = {name: perceive(truth, SCHEMA, noise, rng) for name, truth in self.truth.items()}
        self.states = {n: _ImageState(np.zeros(i.instances.shape, bool)) for n, i in self.pool.items()}
        service.post("/setup", fake.setup_body(PROJECT_ID))

    def run(self, arm: str) -> dict[str, Any]:
        """All rounds of one arm, as plain JSON values."""
        return {"rounds": [self.run_round(arm, number) for number in range(self.settings.rounds + 1)]}

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

    def run_round(self, arm: str, number: int) -> dict[str, Any]:
        """Annotate, wait for the model, measure; the first round is the same for all arms."""
        rng = np.random.default_rng((self.seed, number, zlib.crc32(arm.encode()) if number else 0))
        answers: dict[str, Answer] = {}
        hit = [0, 0, 0, 0]
        if number == 0:
            places = self._first_places(rng)
        else:
            names = sorted(self.pool)
            looked_at = [names[i] for i in rng.permutation(len(names))[: self.settings.images_per_round]]
            if arm not in BLIND_ARMS:
                answers = self._ask_pool(looked_at)
            known = {name: self.states[name].known for name in looked_at}
            places = choose_places(arm, answers, known, self.truth, self._uncertainty_of, rng)
            hit = questions_hit(answers, {n: self.pool[n].instances for n in answers}, known)
        works = self._annotate(places, answers if arm == "reviewed" else {}, f"r{number}")
        status = self.service.wait_until_learnt(PROJECT_ID, ROUND_TIMEOUT_S)
        return {
            "objects": sum(len(work.objects) for work in works),
            "units": sum(work.n_units for work in works),
            "effort": asdict(sum((work.effort for work in works), Effort())),
            "dice": self.measure(),
            "questions_hit": hit,
            "round": status["round"],
            "model_version": status["model_version"],
        }

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

    def _first_places(self, rng: np.random.Generator) -> list[Place]:
        objects = [(name, number) for name, seen in self.seen.items() for number in seen.class_of]
        side = round(2 * OBJECT_SIZE_PX)
        chosen = [objects[int(index)] for index in rng.permutation(len(objects))]
        return [(name, place_around(self.seen[name], number, side)) for name, number in chosen]

    def _annotate(self, places: Sequence[Place], shown: Mapping[str, Answer], name: str) -> list[Work]:
        """Visit places until the budget of objects is used up, then submit every changed image once."""
        works: list[Work] = []
        left = self.settings.objects_per_round
        painted: set[str] = set()
        last: tuple[str, tuple[float, float]] | None = None
        for index, (image, box) in enumerate(places):
            if left <= 0:
                break
            # Another image opens with the pointer in its middle.
            hand = last[1] if last and last[0] == image else None
            if image in shown:
                work = self._review(image, box, shown[image], f"{name}p{index}", hand)
            else:
                finished = self.states[image].objects
                work = paint_place(
                    self.seen[image],
                    SCHEMA,
                    box,
                    finished,
                    n_objects=left,
                    name=f"{name}p{index}",
                    hand=hand,
                )
                self._remember(image, work)
                painted.add(image)
            works.append(work)
            last = image, work.hand
            left -= work.n_units
        for image in sorted(painted):
            results = to_results(self.states[image].regions, [], _shape(self.pool[image]), name)
            self._post(image, PAINTER, results)
        return works

    def _review(
        self, image: str, box: Box, answer: Answer, name: str, hand: tuple[float, float] | None
    ) -> Work:
        state = self.states[image]
        work = review_place(self.seen[image], SCHEMA, box, answer.shown, name=name, hand=hand)
        state.n_reviews += 1
        state.known[box.slices] = True
        results = to_results(work.regions, work.reviewed, answer.shape, name)
        self._post(image, PAINTER + state.n_reviews, results)
        return work

    def _remember(self, image: str, work: Work) -> None:
        state = self.states[image]
        state.regions += work.regions
        state.objects |= set(work.objects)
        for region in work.regions:
            state.known[region.box.slices] |= region.painted

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
