"""Two copies of the quick learners: one that the hold-out judges, and one that answers, from all truth.

Quick learners start from nothing in every round. So a copy that never saw the hold-out can tell how good they
are, and what is held out need not be missing from the answer: of few strokes it may be most of a rare class.
The network goes on from round to round, and never sees it.

References: Hastie, Tibshirani & Friedman 2009, "The Elements of Statistical Learning", 7.10.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from core.network.outputs import Weights
from core.rounds import ExampleSummary
from core.training.quick_learners import QuickLearnt, QuickRound, train_quick
from core.training.sampling import with_held_out

JUDGED_SHARE = 0.45
"""Of the time for quick learners, for the copy that is judged; the other one finds maps of images made."""

LEAST_REST = 0.25
"""Of that time, for the copy that answers, however long the first one took."""


@dataclass(frozen=True)
class QuickCopies:
    """Learners that answer, and by the same names those that the hold-out judges.

    Where nothing is held out, `judged` is empty.
    """

    answering: QuickLearnt
    judged: Mapping[str, Weights]


def train_copies(
    names: Collection[str], work: QuickRound, held_out: Sequence[ExampleSummary], rng: np.random.Generator
) -> QuickCopies:
    """Train the learners `names`, twice where some truth is held out.

    Parameters
    ----------
    work : QuickRound
        Its examples say what is held out of them; its `class_pixels` are without that.
    held_out : of all images, for their held-out pixels; empty where nothing is held out

    Raises
    ------
    RoundCancelledError
        `should_stop` said so.
    """
    held_out_pixels = [sum(counts) for counts in zip(*(s.held_out_pixels for s in held_out), strict=True)]
    if not any(held_out_pixels):
        return QuickCopies(train_quick(names, replace(work, needs_folds=True), rng), {})
    judged = train_quick(names, replace(work, pace=lambda: work.pace() / JUDGED_SHARE), rng)
    spent = work.pace()
    everything = replace(
        work,
        examples=[with_held_out(opened) for opened in work.examples],
        class_pixels=[ours + held for ours, held in zip(work.class_pixels, held_out_pixels, strict=True)],
        pace=lambda: (work.pace() - spent) / max(1 - spent, LEAST_REST),
        needs_folds=True,
    )
    return QuickCopies(train_quick(names, everything, rng), judged.learners)
