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


def deal_images(painted: Painted, n_folds: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """The fold `(n,)` of each pixel, image by image; what few images show is spread over the folds.

    References: Sechidis et al. 2011, "On the stratification of multi-label data".

    Examples
    --------
    >>> image, labels = np.arange(8), np.array([0, 0, 0, 0, 0, 0, 1, 1], np.uint8)
    >>> fold = deal_images(Painted(image, np.zeros((8, 2), np.int64), labels), 2, np.random.default_rng(0))
    >>> sorted(fold[labels == 1].tolist()), np.bincount(fold).tolist()
    ([0, 1], [4, 4])
    """
    images, of_pixel = np.unique(painted.image, return_inverse=True)
    shows = np.zeros((len(images), int(painted.labels.max(initial=0)) + 1), bool)
    shows[of_pixel, painted.labels] = True
    fold = np.full(len(images), -1)
    dealt, n_dealt = np.zeros((n_folds, shows.shape[1]), int), np.zeros(n_folds, int)
    for label in np.argsort(shows.sum(0), kind="stable"):
        for image in rng.permutation(np.flatnonzero(shows[:, label] & (fold < 0))):
            fold[image] = np.lexsort((n_dealt, dealt[:, label]))[0]
            dealt[fold[image]] += shows[image]
            n_dealt[fold[image]] += 1
    return fold[of_pixel]


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
    labels, of_pixel = painted.labels[chosen], deal_images(painted[chosen], N_FOLDS, rng)
    logits: dict[str, list[NDArray[np.float32]]] = {HEAD: [], FOREST: []}
    asked: list[NDArray[np.intp]] = []
    for fold in np.unique(of_pixel):
        check()
        is_theirs = of_pixel == fold
        known = np.unique(labels[~is_theirs])
        # One class tells nothing about the real learners.
        if (len(asked) >= FEWEST_FOLDS and is_late()) or len(known) < 2:
            continue
        # Nor does a class that no other image shows: the real learners saw it.
        theirs = np.flatnonzero(is_theirs & np.isin(labels, known))
        ours, other = chosen[~is_theirs], chosen[theirs]
        head = train_head(
            columns[torch.from_numpy(ours)], labels[~is_theirs], n_classes, rng, progress, FOLD_BATCH_PX
        )
        forest = train_forest(
            features[ours],
            labels[~is_theirs],
            n_classes,
            int(rng.integers(2**31)),
            n_trees=FOLD_TREES,
            n_threads=n_threads,
        )
        votes = torch.from_numpy(forest.probabilities(features[other], n_threads))
        logits[HEAD].append(head.logits_of_rows(columns[torch.from_numpy(other)]).numpy())
        logits[FOREST].append(forest_logits(votes).numpy())
        asked.append(theirs)
    if not asked:
        return None
    answered = np.concatenate(asked)
    said = {name: np.concatenate(parts) for name, parts in logits.items()}
    return HeldBack(said, painted[chosen[answered]])
