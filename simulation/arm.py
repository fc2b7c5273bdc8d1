"""One arm of a study: a project that is annotated round after round where an acquisition says."""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.asking.regions import Region
from core.asking.suggestion import SuggestedMask, build_suggestion
from core.network.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from core.network.predict import Predictor
from core.objects.measure import ObjectLimits
from core.objects.of_prediction import object_size
from core.painting import Box
from core.rounds import Example, ExampleSummary, RoundSettings
from core.schema import IGNORE_INDEX
from core.training.metrics import count_pixels, dice
from core.training.trainer import train_round
from core.truth.holdout import has_enough_held_out, split, summarise
from core.truth.label_map import SentMask
from simulation.acquisitions import Acquisition, beta_of_round, choose_places, find_places
from simulation.annotator import ShownMask, paint_place, place_around, review_place
from simulation.ground_truth import SCHEMA, KnownImage
from simulation.perception import NOISE_LEVELS, perceive
from simulation.settings import StudySettings
from simulation.visits import Visit, load_visits, save_visits, to_label_map

PLACE_DIAMETERS = 2.0
"""People who begin look at an object and its neighbourhood."""


@dataclass(frozen=True)
class Place:
    """Where to annotate next, with the model's masks of that image where they are to be corrected."""

    image: str
    box: Box
    shown: tuple[SuggestedMask, ...] = ()


class Arm:
    """One acquisition with one seed, from which all chance comes: a killed arm goes on as it would have."""

    def __init__(
        self,
        acquisition: Acquisition,
        seed: int,
        pool: Sequence[KnownImage],
        test: Sequence[KnownImage],
        settings: StudySettings,
    ) -> None:
        self.acquisition, self.seed, self.settings = acquisition, seed, settings
        self.pool = {image.name: image for image in pool}
        self.test = list(test)
        self.model: Checkpoint | None = None
        self.visits: list[Visit] = []
        noise = NOISE_LEVELS[settings.noise]
        # Every arm of a seed meets the same annotator: who misses an object misses it in all of them.
        rng = np.random.default_rng((seed, zlib.crc32(b"annotator")))
        self.seen = {name: perceive(i.truth, SCHEMA, noise, rng) for name, i in self.pool.items()}
        self._new: set[str] = set()
        self._maps: dict[str, NDArray[np.uint8]] = {}

    def run_round(self, number: int) -> tuple[list[Visit], float, bool]:
        """Annotate, train, measure; returns what was done, the Dice on the test images, and the promotion."""
        rng = np.random.default_rng(
            (self.seed, number, zlib.crc32(self.acquisition.encode()) if number else 0)
        )
        places = self._choose(number, rng) if self.model is not None else self._first_places(rng)
        visits = self._annotate(places, number)
        self.add(visits)
        promoted = self._train(number)
        return visits, self.measure(), promoted

    def add(self, visits: Sequence[Visit]) -> None:
        """Take over what was annotated."""
        self.visits += visits
        for name in {visit.image for visit in visits}:
            of_image = [visit for visit in self.visits if visit.image == name]
            self._maps[name] = to_label_map(of_image, self.pool[name].shape, SCHEMA)
            self._new.add(name)

    def measure(self) -> float:
        """Mean Dice of the objects over the test images."""
        if self.model is None:
            return 0.0
        predictor = Predictor(self.model, self.settings.n_threads)
        found = []
        for image in self.test:
            predicted = predictor.predict(image.image, n_augmentations=1).label_map
            truth = image.truth.to_label_map(SCHEMA)
            found.append(dice(count_pixels(predicted, truth, len(SCHEMA)))[list(SCHEMA.object_indices)])
        return float(np.nanmean(found))

    def save(self, folder: Path, number: int, visits: Sequence[Visit]) -> None:
        """Keep all that the next round needs."""
        folder.mkdir(parents=True, exist_ok=True)
        save_visits(folder / f"visits-{number:03d}.npz", visits)
        if self.model is not None:
            save_checkpoint(self.model, folder / f"model-{number:03d}-{self.model.fingerprint[:8]}")

    def load(self, folder: Path, n_rounds: int, fingerprint: str | None, is_new: Sequence[str]) -> None:
        """Go on after `n_rounds` finished rounds."""
        for number in range(n_rounds):
            self.add(load_visits(folder / f"visits-{number:03d}.npz"))
        self._new = set(is_new)
        if fingerprint is not None:
            self.model = load_checkpoint(folder / f"model-{n_rounds - 1:03d}-{fingerprint[:8]}")

    @property
    def new_images(self) -> list[str]:
        """Images whose truth changed since the round that made the model."""
        return sorted(self._new)

    # What the trainer reads: implements `core.rounds.ExampleSource`.

    def summaries(self) -> list[ExampleSummary]:
        found = [self._summary(name, is_draft=False) for name in sorted(self._maps)]
        if has_enough_held_out(found, SCHEMA):
            return found
        return [self._summary(name, is_draft=True) for name in sorted(self._maps)]

    def open(self, key: str) -> Example:
        is_draft = not has_enough_held_out([self._summary(n, False) for n in sorted(self._maps)], SCHEMA)
        train_map, held_out_map = self._split(key, is_draft)
        return Example(key, self.pool[key].image, train_map, held_out_map)

    def _summary(self, name: str, is_draft: bool) -> ExampleSummary:
        return summarise(name, *self._split(name, is_draft), SCHEMA, is_new=name in self._new)

    def _split(self, name: str, is_draft: bool) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        label_map = self._maps[name]
        if is_draft:
            return label_map, np.full_like(label_map, IGNORE_INDEX)
        return split(label_map, SCHEMA, name)

    def _train(self, number: int) -> bool:
        settings = self.settings
        steps = settings.steps if self.model is not None else settings.first_steps
        result = train_round(
            self,
            SCHEMA,
            self.model,
            RoundSettings(
                budget_s=settings.first_budget_s,
                warm_budget_s=settings.budget_s or settings.first_budget_s,
                max_steps=None if settings.budget_s else steps,
                n_threads=settings.n_threads,
                seed=1000 * self.seed + number,
            ),
            now=time.perf_counter,
        )
        if result.promoted:
            self.model = result.checkpoint
            self._new = set()
        return result.promoted

    def _first_places(self, rng: np.random.Generator) -> list[Place]:
        """Boxes around objects by chance, the same for every arm: people begin by painting objects."""
        objects = [(name, number) for name, seen in self.seen.items() for number in seen.class_of]
        side = round(PLACE_DIAMETERS * ObjectLimits().typical_diameter_px)
        chosen = [objects[int(index)] for index in rng.permutation(len(objects))]
        return [Place(name, place_around(self.seen[name], number, side)) for name, number in chosen]

    def _choose(self, number: int, rng: np.random.Generator) -> list[Place]:
        """Places over several images of the pool, in the order to visit them."""
        assert self.model is not None  # noqa: S101 - for the type checker
        predictor = Predictor(self.model, self.settings.n_threads)
        names = sorted(self.pool)
        looked_at = sorted(rng.permutation(len(names))[: self.settings.images_per_round])
        found: list[tuple[str, Region, tuple[SuggestedMask, ...]]] = []
        for name in (names[index] for index in looked_at):
            prediction = predictor.predict(self.pool[name].image)
            known = self._maps.get(name)
            annotated = np.zeros(prediction.shape, bool) if known is None else known != IGNORE_INDEX
            size_px = object_size(prediction, SCHEMA, self.model.limits)
            regions = find_places(self.acquisition, prediction, annotated, SCHEMA, size_px, rng)
            masks: tuple[SuggestedMask, ...] = ()
            if self.settings.answer == "review":
                masks = build_suggestion(prediction, SCHEMA, annotated, self.model.limits).masks
            found += [(name, region, masks) for region in regions]
        beta = beta_of_round(number - 1, self.settings.rounds)
        candidates = [region for _, region, _ in found]
        order = choose_places(self.acquisition, candidates, self.settings.objects_per_round, rng, beta)
        return [Place(found[index][0], found[index][1].box, found[index][2]) for index in order]

    def _annotate(self, places: Sequence[Place], number: int) -> list[Visit]:
        """Visit places until the budget of objects is used up."""
        visits: list[Visit] = []
        left = self.settings.objects_per_round
        hand: tuple[float, float] | None = None
        for index, place in enumerate(places):
            if left <= 0:
                break
            name = f"r{number}p{index}"
            # Another image opens with the pointer in its middle.
            hand = hand if visits and visits[-1].image == place.image else None
            if self.settings.answer == "review" and self.model is not None:
                visit, hand = self._review(place, name, hand)
            else:
                finished = {o for v in [*self.visits, *visits] if v.image == place.image for o in v.objects}
                work = paint_place(
                    self.seen[place.image], SCHEMA, place.box, finished, n_objects=left, name=name, hand=hand
                )
                visit, hand = Visit.of(place.image, work), work.hand
            visits.append(visit)
            left -= visit.n_units
        return visits

    def _review(
        self, place: Place, name: str, hand: tuple[float, float] | None
    ) -> tuple[Visit, tuple[float, float]]:
        shape = self.pool[place.image].shape
        shown, sent = [], {}
        for index, mask in enumerate(place.shown):
            whole = np.zeros(shape, bool)
            whole[mask.box.slices] = mask.mask
            shown.append(ShownMask(f"{name}m{index}", mask.class_index, whole))
            sent[f"{name}m{index}"] = SentMask(mask.class_index, mask.top, mask.left, mask.mask, shape)
        work = review_place(self.seen[place.image], SCHEMA, place.box, shown, name=name, hand=hand)
        return Visit.of(place.image, work, sent), work.hand
