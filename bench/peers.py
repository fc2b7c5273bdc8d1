"""The learners that are compared: Brushloop's network, and the random forest that people use today.

Each is trained on the same partial label maps and answers in one or more modes: `plain`, the fast one, and
for the network `augmented`, as the service answers, with several mirrored looks at each image.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier

from bench.annotator import OBJECT, SCHEMA, LabelledImage, PaintedImage, to_label_map
from bench.painted_source import PaintedSource
from bench.pixel_features import pixel_features
from bench.scores import Answer, score_answers
from core.network.checkpoint import Checkpoint
from core.network.predict import Predictor
from core.objects.measure import clean_mask, label_objects, learn_limits, object_areas
from core.objects.of_prediction import separated_objects
from core.prediction import Prediction
from core.rounds import ExampleSource, RoundSettings
from core.schema import IGNORE_INDEX
from core.training.recipe import Recipe
from core.training.trainer import train_round

N_THREADS = 2
"""What torch and the forest may use: the two cores that all figures are for."""

N_TREES = 100
PLAIN, AUGMENTED = "plain", "augmented"
N_LOOKS = {PLAIN: 1, AUGMENTED: 4}
"""Mirrored looks per image; the service takes four."""

TIMED_PASSES = 3
"""The median of so many passes over the test images is what a fast learner takes."""
SLOW_S = 5.0
"""A pass that takes longer is not repeated: chance no longer matters."""


@dataclass(frozen=True)
class Mode:
    """`look` is what is timed: an image in, whatever the learner needs to answer out."""

    look: Callable[[NDArray[Any]], Any]
    answer: Callable[[Any], Answer]


@dataclass(frozen=True)
class Trained:
    """A learner after training; `record` is what else is worth keeping, as plain JSON values."""

    train_s: float
    modes: Mapping[str, Mode]
    record: Mapping[str, Any] = field(default_factory=dict)


def train_network(
    source: ExampleSource, settings: RoundSettings, recipe: Recipe | None = None
) -> tuple[Checkpoint, Trained]:
    """Run a project's first round as the service does."""
    began = time.perf_counter()
    result = train_round(source, SCHEMA, None, settings, now=time.perf_counter, recipe=recipe)
    train_s = time.perf_counter() - began
    record = {
        "steps": result.report.changed["steps"],
        "temperature": result.report.temperature,
        "draft": result.report.draft,
        "fingerprint": result.checkpoint.fingerprint,
    }
    return result.checkpoint, Trained(train_s, network_modes(result.checkpoint), record)


def network_modes(checkpoint: Checkpoint) -> dict[str, Mode]:
    predictor = Predictor(checkpoint, N_THREADS)

    def answer(prediction: Prediction) -> Answer:
        return Answer(
            prediction.label_map,
            separated_objects(prediction, checkpoint.schema, checkpoint.limits),
            prediction.confidence,
            {
                "predictive_entropy": prediction.predictive_entropy,
                "mutual_information": prediction.mutual_information,
                "margin": -prediction.margin,
            },
        )

    def mode(n_looks: int) -> Mode:
        return Mode(lambda image: predictor.predict(image, n_augmentations=n_looks), answer)

    return {name: mode(n_looks) for name, n_looks in N_LOOKS.items()}


def train_forest(painted: Sequence[PaintedImage], seed: int) -> Trained:
    """ilastik's recipe: 100 trees on all annotated pixels, each as often as it was painted.

    Its objects are connected components, without the specks that are smaller than painted objects.
    """
    began = time.perf_counter()
    forest, trained_px = fit_forest(painted, seed)
    train_s = time.perf_counter() - began
    areas = [area for p in painted for area in object_areas(p.label_map, SCHEMA)[OBJECT]]
    limits = learn_limits([[], areas])[OBJECT]

    def look(image: NDArray[Any]) -> NDArray[np.float64]:
        return forest_probabilities(forest, image)

    def answer(probabilities: NDArray[np.float64]) -> Answer:
        label_map = forest.classes_[probabilities.argmax(-1)].astype(np.uint8)
        objects = clean_mask(label_map == OBJECT, limits).astype(np.uint8)
        confidence = probabilities.max(-1)
        # With two classes, entropy and margin rank pixels in the same order.
        return Answer(label_map, label_objects(objects, SCHEMA), confidence, {"margin": 1 - confidence})

    return Trained(train_s, {PLAIN: Mode(look, answer)}, {"trained_px": trained_px})


def fit_forest(painted: Sequence[PaintedImage], seed: int) -> tuple[RandomForestClassifier, int]:
    """The forest, and on how many pixels it was trained."""
    known = [p.label_map != IGNORE_INDEX for p in painted]
    features = np.concatenate([pixel_features(p.image)[k] for p, k in zip(painted, known, strict=True)])
    labels = np.concatenate([p.label_map[k] for p, k in zip(painted, known, strict=True)])
    forest = RandomForestClassifier(N_TREES, n_jobs=N_THREADS, random_state=seed)
    return forest.fit(features, labels), len(labels)


def forest_probabilities(forest: RandomForestClassifier, image: NDArray[Any]) -> NDArray[np.float64]:
    """`(H, W, C)`, in the order of the forest's own classes."""
    seen = pixel_features(image)
    found = forest.predict_proba(seen.reshape(-1, seen.shape[-1]))
    return np.asarray(found.reshape(*image.shape[:2], -1))


def paint_everything(images: Sequence[LabelledImage]) -> list[PaintedImage]:
    """All that dense truth says: what no annotator ever has, as a reference."""
    return [PaintedImage(i.name, i.image, *to_label_map(i.instances)) for i in images]


def dense_source(images: Sequence[LabelledImage]) -> PaintedSource:
    return PaintedSource(paint_everything(images), hold_out=False)


def measure(
    trained: Trained, test: Sequence[LabelledImage], modes: Sequence[str] | None = None
) -> dict[str, Any]:
    """Time and score a learner on the test images, in all its modes or in some."""
    megapixels = sum(labelled.instances.size for labelled in test) / 1e6
    found: dict[str, Any] = {"train_s": trained.train_s, **trained.record}
    for name in modes or trained.modes:
        mode = trained.modes[name]
        mode.look(test[0].image)  # the first look allocates and plans; people look more than once
        looks, seconds = _time_passes(mode, test)
        scores = score_answers([mode.answer(look) for look in looks], test)
        found[name] = {"predict_s_per_megapixel": seconds / megapixels, **scores}
    return found


def _time_passes(mode: Mode, test: Sequence[LabelledImage]) -> tuple[list[Any], float]:
    times: list[float] = []
    looks: list[Any] = []
    while len(times) < TIMED_PASSES and (not times or times[0] < SLOW_S):
        began = time.perf_counter()
        looks = [mode.look(labelled.image) for labelled in test]
        times.append(time.perf_counter() - began)
    return looks, float(np.median(times))
