"""The first model: Dice on unseen images after a few painted objects, against a random forest.

The forest is what pixel classifiers for microscopy train: 100 trees on multi-scale intensity, edge and
texture features. Both learn from the same partial label maps in the same run, on all cores.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.feature import multiscale_basic_features
from sklearn.ensemble import RandomForestClassifier

from bench import BenchmarkResult, Goal, Options
from bench.annotator import OBJECT, SCHEMA, LabelledImage, PaintedImage, load_sets, paint
from core.holdout import has_enough_held_out, split, summarise
from core.metrics import count_pixels, dice
from core.predictor import Predictor
from core.rounds import Example, ExampleSummary, RoundSettings
from core.schema import IGNORE_INDEX
from core.trainer import train_round

OBJECTS = (5, 15, 50)
SEEDS = (0, 1, 2)
ROUND_S = 20.0
N_TREES = 100
ALLOWED_GAP = 0.01
"""Dice by which the network may stay below the forest, on any set and with any number of objects."""

COLUMNS = ("set", "objects", "forest", "network", "gap", "forest s", "round s", "forest s/Mpx", "s/Mpx")

Segment = Callable[[NDArray[Any]], NDArray[np.uint8]]


@dataclass(frozen=True)
class Measurement:
    """One learner on one set: Dice of the objects as mean over images, and over all pixels at once."""

    dataset: str
    n_objects: int
    seed: int
    learner: str
    dice: float
    pooled_dice: float
    train_s: float
    predict_s_per_megapixel: float


class PaintedSource:
    """Painted images as an `ExampleSource`, held out in the way the service does it."""

    def __init__(self, painted: Sequence[PaintedImage]) -> None:
        self._examples, self._summaries = _hold_out(painted, in_use=True)
        if not has_enough_held_out(self._summaries, SCHEMA):
            self._examples, self._summaries = _hold_out(painted, in_use=False)

    def summaries(self) -> list[ExampleSummary]:
        return self._summaries

    def open(self, key: str) -> Example:
        return self._examples[key]


def run(options: Options) -> BenchmarkResult:
    sets = load_sets(options.data)
    measurements = [
        measurement
        for dataset, parts in sets.items()
        for n_objects in OBJECTS
        for seed in SEEDS
        for measurement in compare(dataset, parts["pool"], parts["test"], n_objects, seed)
    ]
    rows = tuple(_row(measurements, dataset, n) for dataset in sets for n in OBJECTS)
    return BenchmarkResult(
        title=f"Dice on unseen images, mean of {len(SEEDS)} seeds",
        columns=(
            "set",
            "objects",
            "forest",
            "network",
            "gap",
            "forest s",
            "round s",
            "forest s/Mpx",
            "s/Mpx",
        ),
        rows=rows,
        record={"measurements": [asdict(m) for m in measurements]},
        goals=tuple(_goals(rows, measurements)),
        notes=() if options.data else ("Generated images: --data DIR measures on real ones.",),
    )


def compare(
    dataset: str, pool: Sequence[LabelledImage], test: Sequence[LabelledImage], n_objects: int, seed: int
) -> list[Measurement]:
    """Train both learners on the same strokes and measure them on the same images."""
    painted = paint(pool, n_objects, np.random.default_rng(seed))
    learners: dict[str, Callable[[], Segment]] = {
        "forest": lambda: train_forest(painted, seed),
        "network": lambda: train_network(painted, seed),
    }
    found = []
    for learner, train in learners.items():
        began = time.perf_counter()
        segment = train()
        train_s = time.perf_counter() - began
        began = time.perf_counter()
        answers = [segment(labelled.image) for labelled in test]
        megapixels = sum(answer.size for answer in answers) / 1e6
        predict_s = (time.perf_counter() - began) / megapixels
        scores = object_dice(answers, test)
        found.append(Measurement(dataset, n_objects, seed, learner, *scores, train_s, predict_s))
    return found


def train_network(painted: Sequence[PaintedImage], seed: int) -> Segment:
    """One round as the service runs it for a first model, then prediction without augmentation."""
    settings = RoundSettings(budget_s=ROUND_S, seed=seed)
    result = train_round(PaintedSource(painted), SCHEMA, None, settings, now=time.perf_counter)
    predictor = Predictor(result.checkpoint)
    return lambda image: predictor.predict(image, n_augmentations=1).label_map


def train_forest(painted: Sequence[PaintedImage], seed: int) -> Segment:
    """The forest on all annotated pixels, classes balanced."""
    known = [p.label_map != IGNORE_INDEX for p in painted]
    features = np.concatenate([_features(p.image)[k] for p, k in zip(painted, known, strict=True)])
    labels = np.concatenate([p.label_map[k] for p, k in zip(painted, known, strict=True)])
    forest = RandomForestClassifier(N_TREES, n_jobs=-1, random_state=seed, class_weight="balanced")
    forest.fit(features, labels)

    def segment(image: NDArray[Any]) -> NDArray[np.uint8]:
        found = _features(image)
        return np.asarray(forest.predict(found.reshape(-1, found.shape[-1])).reshape(image.shape[:2]))

    return segment


def object_dice(answers: Sequence[NDArray[np.uint8]], truth: Sequence[LabelledImage]) -> tuple[float, float]:
    """Dice of the object class: mean over images, and from the pixels of all images together."""
    counts = np.stack(
        [
            count_pixels(answer, (labelled.instances > 0).astype(np.uint8), len(SCHEMA))
            for answer, labelled in zip(answers, truth, strict=True)
        ]
    )
    return float(np.nanmean(dice(counts)[:, OBJECT])), float(dice(counts.sum(0))[OBJECT])


def _features(image: NDArray[Any]) -> NDArray[np.float32]:
    features = multiscale_basic_features(image, channel_axis=-1)  # type: ignore[no-untyped-call]
    return np.asarray(features, np.float32)


def _hold_out(
    painted: Sequence[PaintedImage], in_use: bool
) -> tuple[dict[str, Example], list[ExampleSummary]]:
    examples, summaries = {}, []
    for p in painted:
        train, held_out = split(p.label_map, SCHEMA, p.name)
        if not in_use:
            train, held_out = p.label_map, np.full_like(p.label_map, IGNORE_INDEX)
        examples[p.name] = Example(p.name, p.image, train, held_out)
        summaries.append(summarise(p.name, train, held_out, SCHEMA, is_new=True))
    return examples, summaries


def _row(measurements: Sequence[Measurement], dataset: str, n_objects: int) -> tuple[Any, ...]:
    forest, network = (
        [m for m in measurements if (m.dataset, m.n_objects, m.learner) == (dataset, n_objects, learner)]
        for learner in ("forest", "network")
    )
    f, n = (float(np.mean([m.dice for m in of])) for of in (forest, network))
    times = [float(np.mean([m.train_s for m in of])) for of in (forest, network)]
    speeds = [float(np.mean([m.predict_s_per_megapixel for m in of])) for of in (forest, network)]
    return (dataset, n_objects, f, n, n - f, *times, *speeds)


def _goals(rows: Sequence[tuple[Any, ...]], measurements: Sequence[Measurement]) -> list[Goal]:
    goals = [
        Goal(
            f"{dataset}, {n_objects} objects: Dice {network:.3f}, wanted {forest - ALLOWED_GAP:.3f}",
            network >= forest - ALLOWED_GAP,
        )
        for dataset, n_objects, forest, network, *_ in rows
    ]
    longest = max(m.train_s for m in measurements if m.learner == "network")
    return [*goals, Goal(f"longest round {longest:.1f} s, allowed {ROUND_S:.0f} s", longest <= ROUND_S)]
