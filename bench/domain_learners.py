"""The learners of the domain bench: the forest, and Brushloop as a draft, after a round, after idle time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

import core.training.compiled_ahead  # noqa: F401  as the service's fork server does, before a training begins
from bench.annotator import PaintedImage
from bench.domain_scores import Guess, score_guesses
from bench.domain_sets import MappedImage
from bench.painted_source import PaintedSource
from bench.peers import N_THREADS, fit_forest, forest_probabilities
from core.network.checkpoint import Checkpoint
from core.network.device import choose_compute
from core.network.predict import Predictor
from core.rounds import RoundSettings
from core.schema import LabelSchema
from core.training.consolidation import Continued, learners_of_continuation, plan_budget
from core.training.trainer import train_round

Look = Callable[[NDArray[Any]], Guess]


@dataclass(frozen=True)
class Learnt:
    """A learner after training; `record` is what else is worth keeping, as plain JSON values."""

    train_s: float
    look: Look
    record: dict[str, Any] = field(default_factory=dict)


def measure_learnt(learnt: Learnt, test: Sequence[MappedImage], schema: LabelSchema) -> dict[str, Any]:
    """Score a learner on the test images, and say what training and answers cost."""
    learnt.look(test[0].image)  # the first look allocates and plans; people look more than once
    began = time.perf_counter()
    guesses = [learnt.look(one.image) for one in test]
    seconds = time.perf_counter() - began
    megapixels = sum(one.label_map.size for one in test) / 1e6
    return {
        "train_s": round(learnt.train_s, 2),
        "predict_s_per_megapixel": round(seconds / megapixels, 4),
        **score_guesses(guesses, test, schema),
        **learnt.record,
    }


def learn_forest(painted: Sequence[PaintedImage], seed: int) -> Learnt:
    """ilastik's recipe on the same strokes, on the same cores."""
    began = time.perf_counter()
    forest, trained_px = fit_forest(painted, seed)
    train_s = time.perf_counter() - began

    def look(image: NDArray[Any]) -> Guess:
        probabilities = forest_probabilities(forest, image)
        logs = np.log(np.maximum(probabilities, 1e-12))
        return Guess(
            forest.classes_[probabilities.argmax(-1)].astype(np.uint8),
            probabilities.max(-1),
            -(probabilities * logs).sum(-1),
        )

    return Learnt(train_s, look, {"trained_px": trained_px})


def learn_round(
    painted: Sequence[PaintedImage],
    schema: LabelSchema,
    settings: RoundSettings,
    n_looks: int,
    *,
    hold_out: bool = True,
) -> tuple[Checkpoint, Learnt]:
    """A project's first round, or the draft before it, which holds nothing out, as the service does it."""
    began = time.perf_counter()
    source = PaintedSource(painted, schema, hold_out=hold_out)
    result = train_round(source, schema, None, settings, now=time.perf_counter)
    train_s = time.perf_counter() - began
    changed = result.report.changed
    record = {"steps": changed["steps"], "draft": result.report.draft, "weights": changed["weights"]}
    look = make_look(result.checkpoint, n_looks, settings.device)
    return result.checkpoint, Learnt(train_s, look, record)


def learn_on(
    painted: Sequence[PaintedImage],
    schema: LabelSchema,
    settings: RoundSettings,
    n_looks: int,
    idle_s: float,
) -> Learnt:
    """A first round, and then ever longer ones over the same truth, as the service makes them when idle."""
    began = time.perf_counter()
    checkpoint, _ = learn_round(painted, schema, settings, n_looks)
    source, done = PaintedSource(painted, schema, new=()), list[Continued]()
    while (budget_s := plan_budget(done, idle_s)) is not None:
        longer = replace(
            settings,
            budget_s=budget_s,
            warm_budget_s=budget_s,
            seed=settings.seed + len(done) + 1,
            learners=learners_of_continuation(settings.learners),
        )
        result = train_round(source, schema, checkpoint, longer, now=time.perf_counter)
        gain = result.report.changed.get("mean_dice")
        done.append(Continued(result.report.seconds, gain, result.promoted, result.report.draft))
        if result.promoted:
            checkpoint = result.checkpoint
    record = {"continued": [vars(one) for one in done], "draft": checkpoint.is_draft}
    return Learnt(time.perf_counter() - began, make_look(checkpoint, n_looks), record)


def make_look(checkpoint: Checkpoint, n_looks: int, device: str = "cpu") -> Look:
    """Answer as the service does, with so many mirrored looks at each image."""
    predictor = Predictor(checkpoint, N_THREADS, compute=choose_compute(device))

    def look(image: NDArray[Any]) -> Guess:
        found = predictor.predict(image, n_augmentations=n_looks)
        return Guess(found.label_map, found.confidence, found.predictive_entropy)

    return look


def paint_all(images: Sequence[MappedImage]) -> list[PaintedImage]:
    """Everything that dense truth says, which no annotator ever has."""
    return [PaintedImage(one.name, one.image, one.label_map, 1) for one in images]
