"""What a model learns from clicked objects beside the same objects painted: Dice after one round of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import Figures
from bench.annotator import OBJECT, SCHEMA, LabelledImage, PaintedImage
from bench.click_prompts import Answer, click_and_correct
from bench.click_seconds import GOOD_ENOUGH, HandSeconds, hand_seconds
from bench.painted_source import PaintedSource
from bench.peers import N_THREADS
from bench.scores import object_dice
from core.network.predict import Predictor
from core.painting import Mask
from core.prompts.prompt import Prompt
from core.rounds import RoundSettings
from core.schema import IGNORE_INDEX
from core.training.trainer import train_round

Open = Callable[[LabelledImage], Answer]
"""An image to what answers prompts in it."""

COLUMNS = (
    "set",
    "objects",
    "Dice painted",
    "Dice clicked",
    "s painted",
    "s clicked",
    "of painting",
    "IoU clicked",
)


def click_objects(
    painted: Sequence[PaintedImage], pool: Sequence[LabelledImage], open_image: Open, n_clicks: int
) -> tuple[list[PaintedImage], list[HandSeconds], list[float]]:
    """The same objects clicked: answers that nobody corrects further are kept with their errors.

    Where no click leads to an answer that is good enough, the object is painted after all.
    """
    truths = {one.name: one for one in pool}
    clicked, hand, overlaps = [], [], []
    for one in painted:
        truth, answer = truths[one.name].instances, open_image(truths[one.name])
        label_map = one.label_map.copy()
        for number in np.unique(truth[(one.label_map == OBJECT) & (truth > 0)]):
            found, scores = _click(truth == number, answer, n_clicks)
            hand.append(hand_seconds(truth == number, scores))
            overlaps.append(scores[-1] if scores[-1] >= GOOD_ENOUGH else 1.0)
            _replace(label_map, truth, int(number), found)
        clicked.append(replace(one, label_map=label_map))
    return clicked, hand, overlaps


def _click(truth: Mask, answer: Answer, n_clicks: int) -> tuple[Mask, list[float]]:
    """The mask that a hand accepts, and the IoU after each click up to that one."""
    answers: list[Mask] = []

    def remember(prompt: Prompt) -> Mask:
        answers.append(answer(prompt))
        return answers[-1]

    scores = click_and_correct(truth, remember, n_clicks)
    good = [n for n, score in enumerate(scores) if score >= GOOD_ENOUGH]
    return (answers[good[0]], scores[: good[0] + 1]) if good else (truth, scores)


def _replace(label_map: NDArray[np.uint8], truth: NDArray[np.int32], number: int, found: Mask) -> None:
    """Take a painted object away and put the clicked one there; other painted objects stay whole."""
    here = truth == number
    others = (label_map == OBJECT) & ~here
    label_map[here & ~found & (label_map == OBJECT)] = IGNORE_INDEX
    label_map[found & ~others] = OBJECT


def learn(painted: Sequence[PaintedImage], seed: int, round_s: float, steps: int | None) -> Predictor:
    """The model of one first round of so many seconds, or of so many steps where they are told."""
    rounds = RoundSettings(budget_s=round_s, n_threads=N_THREADS, seed=seed)
    if steps is not None:
        rounds = replace(rounds, max_steps=steps, budget_s=3600.0)
    result = train_round(PaintedSource(painted), SCHEMA, None, rounds, now=time.perf_counter)
    return Predictor(result.checkpoint, N_THREADS)


def dice_of(predictor: Predictor, test: Sequence[LabelledImage]) -> float:
    """Mean over the images that hold objects."""
    judged = [one for one in test if (one.instances > 0).any()]
    maps = [predictor.predict(one.image, n_augmentations=1, keep_details=False).label_map for one in judged]
    return object_dice(maps, judged)[0]


def to_measurement(
    painted_dice: float, clicked_dice: float, hand: Sequence[HandSeconds], overlaps: Sequence[float]
) -> dict[str, Any]:
    return {
        "objects": len(hand),
        "dice": {"painted": round(painted_dice, 4), "clicked": round(clicked_dice, 4)},
        "hand_s": {
            "painted": round(sum(one.painted_s for one in hand), 1),
            "clicked": round(sum(one.clicked_s for one in hand), 1),
        },
        "mean_iou": round(float(np.mean(overlaps)), 4),
    }


def dice_table(learnt: Sequence[dict[str, Any]]) -> Figures:
    rows = [
        (one["set"], one["objects"], one["dice"]["painted"], one["dice"]["clicked"], one["hand_s"]["painted"],
         one["hand_s"]["clicked"], one["hand_s"]["clicked"] / one["hand_s"]["painted"], one["mean_iou"])
        for one in learnt
    ]  # fmt: skip
    return Figures("A round on painted objects, and one on the same objects clicked", COLUMNS, tuple(rows))
