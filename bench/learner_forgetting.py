"""What a project forgets: when its images come to look different, and when it gets one more class.

Rounds follow one another as in the service: the first ones are drafts where little is held out, later ones
go on from the current model, and a model that is worse on the hold-out is not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from bench import Figures, Goal
from bench.annotator import OBJECTS_PER_IMAGE, SCHEMA, LabelledImage, PaintedImage, paint, to_label_map
from bench.growing_project import GrowingProject
from bench.intervals import interval_of
from bench.learner_settings import Bench, PartResult
from bench.scores import object_dice
from bench.two_kinds import draw_two_kinds, swap_kinds
from core.schema import LabelSchema
from core.training.metrics import count_pixels, dice

ROUNDS_PER_LOOK = 10
IMAGES_PER_ROUND = 3
ROUNDS_BEFORE_CLASS = 19
MAX_FALL, MAX_FALL_BY_CLASS = 0.02, 0.01

BOTH = LabelSchema.of("Background", "Nucleus", "Bar")
NEW_CLASS = 2
N_TEST = 20


def measure_forgetting(
    bench: Bench, rounds_per_look: int = ROUNDS_PER_LOOK, rounds_before_class: int = ROUNDS_BEFORE_CLASS
) -> PartResult:
    looks, classes = [], []
    for seed in range(bench.settings.seeds):
        about = {"part": "forgetting", "what": "look", "rounds": rounds_per_look}
        looks.append(bench.measure_ours(about, seed, partial(_new_look, bench, seed, rounds_per_look)))
        about = {"part": "forgetting", "what": "class", "rounds": rounds_before_class}
        classes.append(bench.measure_ours(about, seed, partial(_new_class, bench, seed, rounds_before_class)))
    return _report(looks, classes, list(bench.sets))


def _new_look(bench: Bench, seed: int, rounds_per_look: int) -> dict[str, Any]:
    """Rounds on one set, then on another; Dice on both `test/` folders after each half."""
    first, second = list(bench.sets)[:2]
    project = GrowingProject(bench.settings, seed)
    tests = {name: bench.sets[name]["test"] for name in (first, second)}
    found: dict[str, Any] = {"promoted": 0}
    for half, name in (("before", first), ("after", second)):
        for part in _in_rounds(bench.sets[name]["pool"], rounds_per_look, seed):
            found["promoted"] += project.learn(SCHEMA, part).promoted
        found[half] = {test: _dice(project, images) for test, images in tests.items()}
    found["fall"] = found["before"][first] - found["after"][first]
    return found


def _in_rounds(pool: Sequence[LabelledImage], n_rounds: int, seed: int) -> list[list[PaintedImage]]:
    n_images = min(len(pool), IMAGES_PER_ROUND * n_rounds)
    painted = paint(pool, OBJECTS_PER_IMAGE * n_images, np.random.default_rng(seed))
    return [[painted[i] for i in part] for part in np.array_split(np.arange(len(painted)), n_rounds)]


def _dice(project: GrowingProject, test: Sequence[LabelledImage]) -> float:
    return object_dice(project.answer([labelled.image for labelled in test]), test)[0]


def _new_class(bench: Bench, seed: int, n_before: int) -> dict[str, Any]:
    """Rounds on nuclei, then one more on images with painted bars; bars were never painted before."""
    rng = np.random.default_rng(seed)
    pool, test = draw_two_kinds(IMAGES_PER_ROUND * (n_before + 1), rng), draw_two_kinds(N_TEST, rng)
    old, new = pool[:-IMAGES_PER_ROUND], pool[-IMAGES_PER_ROUND:]
    project = GrowingProject(bench.settings, seed)
    for part in _in_rounds(old, n_before, seed):
        project.learn(SCHEMA, part)
    before = _class_dice(project, test)
    report = project.learn(BOTH, _paint_bars(new, rng))
    after = _class_dice(project, test)
    fall = {name: before[name] - after[name] for name in SCHEMA.names}
    return {
        "before": before,
        "after": after,
        "fall": fall,
        "promoted": report.promoted,
        "reason": report.reason,
    }


def _paint_bars(images: list[LabelledImage], rng: np.random.Generator) -> list[PaintedImage]:
    painted = paint(swap_kinds(images), OBJECTS_PER_IMAGE * len(images), rng)
    for p in painted:
        p.label_map[p.label_map == 1] = NEW_CLASS
    return painted


def _class_dice(project: GrowingProject, test: Sequence[LabelledImage]) -> dict[str, float]:
    """Dice per class name; the old classes are counted where no bar is, the new one everywhere."""
    old = np.zeros((len(BOTH), 3), np.int64)
    new = old.copy()
    for answer, labelled in zip(project.answer([t.image for t in test]), test, strict=True):
        truth = to_label_map(labelled.instances)[0]
        old += count_pixels(answer, truth, len(BOTH))
        truth[labelled.instances < 0] = NEW_CLASS
        new += count_pixels(answer, truth, len(BOTH))
    scores = [*dice(old)[:NEW_CLASS], dice(new)[NEW_CLASS]]
    return {name: float(score) for name, score in zip(BOTH.names, scores, strict=True)}


def _report(
    looks: Sequence[dict[str, Any]], classes: Sequence[dict[str, Any]], names: Sequence[str]
) -> PartResult:
    first, second = names[:2]
    fall = interval_of([one["fall"] for one in looks])
    falls = {name: interval_of([one["fall"][name] for one in classes]) for name in SCHEMA.names}
    rows: list[tuple[Any, ...]] = [
        (f"{test}, before and after {second} came", *_pair(looks, test), str(fall) if test == first else "")
        for test in (first, second)
    ]
    for name in BOTH.names:
        what = f"{name}, before and after {BOTH.names[NEW_CLASS]} came"
        rows.append((what, *_pair(classes, name), str(falls[name]) if name in falls else ""))
    goals = [Goal(f"{first} after {second}: Dice fell by {fall}, allowed {MAX_FALL}", fall.mean <= MAX_FALL)]
    goals += [
        Goal(
            f"{name} after a new class: Dice fell by {of}, allowed {MAX_FALL_BY_CLASS}",
            of.mean <= MAX_FALL_BY_CLASS,
        )
        for name, of in falls.items()
    ]
    learnt = sum(one["promoted"] for one in classes)
    # A model that was turned down forgets nothing, and learns nothing.
    goals.append(
        Goal(f"models with the new class that went live: {learnt} of {len(classes)}", learnt == len(classes))
    )
    record = {
        "looks": list(looks),
        "classes": list(classes),
        "fall": fall.to_record(),
        "class_falls": {name: of.to_record() for name, of in falls.items()},
    }
    return PartResult(
        (Figures("What is forgotten: Dice", ("", "before", "after", "fall"), tuple(rows)),),
        tuple(goals),
        record,
    )


def _pair(found: Sequence[dict[str, Any]], name: str) -> tuple[str, str]:
    before, after = (interval_of([one[half][name] for one in found]) for half in ("before", "after"))
    return str(before), str(after)
