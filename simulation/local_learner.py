"""A learner in this process: an acquisition proposes places, and rounds train without a server."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.asking.regions import Region
from core.asking.suggestion import SuggestedMask, build_suggestion
from core.network.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from core.network.predict import Predictor
from core.objects.of_prediction import object_size
from core.rounds import Example, ExampleSummary, RoundSettings
from core.schema import IGNORE_INDEX
from core.training.metrics import count_pixels, dice
from core.training.trainer import train_round
from core.truth.holdout import has_enough_held_out, split, summarise
from simulation.acquisitions import Acquisition, beta_of_round, choose_places, find_places
from simulation.annotator import ShownMask
from simulation.ground_truth import SCHEMA, KnownImage
from simulation.settings import StudySettings
from simulation.visits import Place, Visit, load_visits, save_visits, to_label_map


class LocalLearner:
    """Implements `simulation.arm.Learner`, and `core.rounds.ExampleSource` for the trainer.

    A new file of visits and of weights per round lets a killed study go on with the next round.
    """

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
        self._visits: list[Visit] = []
        self._new: set[str] = set()
        self._maps: dict[str, NDArray[np.uint8]] = {}

    @property
    def has_model(self) -> bool:
        return self.model is not None

    @property
    def new_images(self) -> list[str]:
        """Images whose truth changed since the round that made the model."""
        return sorted(self._new)

    def propose(self, number: int, rng: np.random.Generator) -> list[Place]:
        """Places over several images of the pool, in the order to visit them."""
        assert self.model is not None  # noqa: S101 - for the type checker
        predictor = Predictor(self.model, self.settings.n_threads)
        names = sorted(self.pool)
        predicted = sorted(rng.permutation(len(names))[: self.settings.images_per_round])
        candidates: list[tuple[str, Region, tuple[SuggestedMask, ...] | None]] = []
        for name in (names[index] for index in predicted):
            prediction = predictor.predict(self.pool[name].image)
            label_map = self._maps.get(name)
            annotated = np.zeros(prediction.shape, bool) if label_map is None else label_map != IGNORE_INDEX
            size_px = object_size(prediction, SCHEMA, self.model.limits)
            regions = find_places(self.acquisition, prediction, annotated, SCHEMA, size_px, rng)
            masks: tuple[SuggestedMask, ...] | None = None
            if self.settings.answer == "review":
                masks = build_suggestion(prediction, SCHEMA, annotated, self.model.limits).masks
            candidates += [(name, region, masks) for region in regions]
        beta = beta_of_round(number - 1, self.settings.rounds)
        proposed = [region for _, region, _ in candidates]
        order = choose_places(self.acquisition, proposed, self.settings.objects_per_round, rng, beta)
        return [self._to_place(*candidates[index]) for index in order]

    def learn(self, number: int, visits: Sequence[Visit]) -> bool:
        self.add(visits)
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
                # Rounds and repetitions differ; a study that is repeated gets the same seeds again.
                seed=1000 * self.seed + number,
            ),
            now=time.perf_counter,
        )
        if result.promoted:
            self.model = result.checkpoint
            self._new = set()
        return result.promoted

    def measure(self) -> float:
        if self.model is None:
            return 0.0
        predictor = Predictor(self.model, self.settings.n_threads)
        scores = []
        for image in self.test:
            predicted = predictor.predict(image.image, n_augmentations=1).label_map
            truth = image.truth.to_label_map(SCHEMA)
            scores.append(dice(count_pixels(predicted, truth, len(SCHEMA)))[list(SCHEMA.object_indices)])
        return float(np.nanmean(scores))

    def add(self, visits: Sequence[Visit]) -> None:
        """Take over what was annotated."""
        self._visits += visits
        for name in {visit.image for visit in visits}:
            of_image = [visit for visit in self._visits if visit.image == name]
            self._maps[name] = to_label_map(of_image, self.pool[name].shape, SCHEMA)
            self._new.add(name)

    def save(self, folder: Path, number: int, visits: Sequence[Visit]) -> None:
        """Keep all that the next round needs."""
        folder.mkdir(parents=True, exist_ok=True)
        save_visits(folder / f"visits-{number:03d}.npz", visits)
        if self.model is not None:
            save_checkpoint(self.model, folder / f"model-{number:03d}-{self.model.fingerprint[:8]}")

    def load(
        self, folder: Path, n_rounds: int, fingerprint: str | None, is_new: Sequence[str]
    ) -> list[Visit]:
        """Go on after `n_rounds` finished rounds; returns their visits."""
        for number in range(n_rounds):
            self.add(load_visits(folder / f"visits-{number:03d}.npz"))
        self._new = set(is_new)
        if fingerprint is not None:
            self.model = load_checkpoint(folder / f"model-{n_rounds - 1:03d}-{fingerprint[:8]}")
        return list(self._visits)

    # What the trainer reads.

    def summaries(self) -> list[ExampleSummary]:
        split_ones = [self._summary(name, is_draft=False) for name in sorted(self._maps)]
        if has_enough_held_out(split_ones, SCHEMA):
            return split_ones
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

    def _to_place(self, name: str, region: Region, masks: Sequence[SuggestedMask] | None) -> Place:
        if masks is None:
            return Place(name, region.box)
        return Place(name, region.box, tuple(self._show(name, *entry) for entry in enumerate(masks)))

    def _show(self, name: str, index: int, mask: SuggestedMask) -> ShownMask:
        """The mask as the annotator sees it: in the whole image."""
        whole = np.zeros(self.pool[name].shape, bool)
        whole[mask.box.slices] = mask.mask
        return ShownMask(f"m{index}", mask.class_index, whole)
