"""How good the quick learners are, asked of themselves: some of the images answer for the others.

Learners of most images answer for the rest, in turn, and so say which kind to trust. A hold-out lies in
images that the learners saw the rest of, and says little about another image.

References: Stone 1974, "Cross-validatory choice and assessment of statistical predictions".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.learners.forest_growth import train_forest
from core.network.head import train_head
from core.network.mixture import FOREST, HEAD
from core.network.quick import forest_logits
from core.training.painted_pixels import Painted

N_FOLDS, FEWEST_FOLDS = 4, 2
"""The fewest are asked however late it is: even weights in their place cost .03 where grey values decide."""

FOLD_STEPS, FOLD_BATCH_PX, FOLD_TREES, FOLD_PIXELS = 60, 256, 15, 4_000
"""The learners of a fold only tell how good the real ones are, so a part of the work has to do."""


@dataclass(frozen=True)
class HeldBack:
    """What learners said, `{name: (n, C)}` logits, of `n` painted pixels that they did not see."""

    logits: dict[str, NDArray[np.float32]]
    painted: Painted


def ask_folds(
    painted: Painted,
    columns: Tensor,
    features: NDArray[np.float32],
    n_classes: int,
    rng: np.random.Generator,
    *,
    n_threads: int,
    is_late: Callable[[], bool],
    check: Callable[[], None],
) -> HeldBack | None:
    """Let learners of most images answer for the others; None where that cannot be done or there is no time.

    Parameters
    ----------
    columns : (n, N_FEATURES) hypercolumns of the painted pixels, for the head
    features : (n, F) their pixel features, for the forest
    is_late : asked before each fold but the fewest, and where it says so the folds so far have to do
    check : called before each fold and each step of its head; what it raises goes on to the caller
    """

    def progress(done: int) -> float:
        check()
        return done / FOLD_STEPS

    chosen = rng.permutation(len(painted))[:FOLD_PIXELS]
    labels, image = painted.labels[chosen], painted.image[chosen]
    images = rng.permutation(np.unique(image))
    n_folds = min(N_FOLDS, len(images))
    logits: dict[str, list[NDArray[np.float32]]] = {HEAD: [], FOREST: []}
    asked: list[NDArray[np.intp]] = []
    for fold in range(n_folds if n_folds > 1 else 0):
        check()
        theirs = np.isin(image, images[fold::n_folds])
        # One class tells nothing about the real learners.
        if (len(asked) >= FEWEST_FOLDS and is_late()) or len(np.unique(labels[~theirs])) < 2:
            continue
        ours, other = chosen[~theirs], chosen[theirs]
        head = train_head(
            columns[torch.from_numpy(ours)], labels[~theirs], n_classes, rng, progress, FOLD_BATCH_PX
        )
        forest = train_forest(
            features[ours],
            labels[~theirs],
            n_classes,
            int(rng.integers(2**31)),
            n_trees=FOLD_TREES,
            n_threads=n_threads,
        )
        votes = torch.from_numpy(forest.probabilities(features[other], n_threads))
        logits[HEAD].append(head.logits_of_rows(columns[torch.from_numpy(other)]).numpy())
        logits[FOREST].append(forest_logits(votes).numpy())
        asked.append(np.flatnonzero(theirs))
    if not asked:
        return None
    answered = np.concatenate(asked)
    said = {name: np.concatenate(parts) for name, parts in logits.items()}
    return HeldBack(said, painted[chosen[answered]])
