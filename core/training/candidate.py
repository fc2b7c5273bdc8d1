"""What a round makes of what it has trained: how much each learner counts, checked on the hold-out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from core.learners.forest import Forest
from core.network.checkpoint import Checkpoint
from core.network.device import Compute
from core.network.feature_maps import FeatureMaps
from core.network.mixture import FOREST, NETWORK, TUNED, Share, mix_logits
from core.network.outputs import Weights
from core.schema import LabelSchema
from core.training.calibration import fit_temperature
from core.training.evaluation import HeldOutBlock, HeldOutScore, ask_learners, score_logits
from core.training.folds import N_FOLDS, HeldBack
from core.training.stacking import fit_shares, prior_shares

Logits = dict[str, NDArray[np.float32]]

TREES_BY_WEIGHT = ((0.3, 8), (0.5, 16))
"""Up to which weight how many of a forest's 32 trees are kept: what the others would change drowns beside the
other learners, and they take most of an answer's time. Measured beside a head on four sets: 8 for 32 change
Dice by -.0001 to +.0001 with a weight of .1 and -.0009 to +.0009 with .3, 16 for 32 by -.0004 to +.0006 with
.5 (and by -.003 on street scenes, where the hold-out gives a forest .1)."""


MOST_BY_BLOCKS = 0.3
"""What held-out blocks may give a network, and a tuned encoder. They lie in images that these saw the rest
of: on nerve fibres of other animals the network answered .67 Dice and a head .75, after blocks had given the
network .82 of the answer."""


@dataclass(frozen=True)
class Judges:
    """What learners are judged by: held-out blocks, and what learners like them say of images not seen.

    The latter decides among the quick learners: blocks lie in images that they saw the rest of, and tell
    little about an image of another look. About the network and a tuned encoder, which no fold can train
    again, blocks decide up to `MOST_BY_BLOCKS`. Beyond it a network counts what its base weights earn on
    images that they never saw.

    `seen` is the part of its truth that a learner had the time to see. `base` are logits of the network's
    base weights for the pixels that were held back, NaN where they were not asked.
    """

    blocks: Sequence[HeldOutBlock]
    held_back: HeldBack | None = None
    seen: Mapping[str, float] = field(default_factory=dict)
    base: NDArray[np.float32] | None = None

    @property
    def labels(self) -> NDArray[np.uint8]:
        return np.concatenate([np.zeros(0, np.uint8), *(block.labels for block in self.blocks)])


def settle(
    checkpoint: Checkpoint,
    other: Weights,
    judges: Judges,
    schema: LabelSchema,
    compute: Compute,
    maps: FeatureMaps,
    rng: np.random.Generator,
    *,
    has_network: bool,
) -> tuple[Checkpoint, HeldOutScore]:
    """Choose between two states of the network, and the weights and temperatures of all learners.

    Parameters
    ----------
    checkpoint : Checkpoint
        Its learners do not count anything yet.
    other : Weights
        Of the network, instead of the checkpoint's, where the hold-out finds them better.
    has_network : bool
        Whether this round has trained the network; else it has no part in the answer.
    """
    names = ((NETWORK,) if has_network else ()) + tuple(checkpoint.learners)
    checkpoint = _with_shares(checkpoint, prior_shares(names))
    known: Logits = {}
    if has_network and judges.blocks and other is not checkpoint.weights:
        checkpoint, known = _better_network(checkpoint, other, judges, schema, compute, maps)
    logits = ask_learners(checkpoint, judges.blocks, schema, compute, maps, known)
    shares, temperature = find_shares(names, logits, judges, rng)
    whole = replace(_with_shares(checkpoint, shares), mixture_temperature=temperature)
    checkpoint = thin_forest(whole)
    if checkpoint is not whole:  # what is scored is what will answer, and what the next round compares with
        forest = checkpoint.as_judged.learners[FOREST]
        alone = replace(checkpoint, learners={FOREST: forest}, judged={}, shares={FOREST: Share(1.0)})
        logits = {**logits, **ask_learners(alone, judges.blocks, schema, compute, maps)}
    return checkpoint, score_logits(checkpoint, logits, judges.blocks, schema)


def thin_forest(checkpoint: Checkpoint) -> Checkpoint:
    """Keep as many trees as what their forest counts makes worth their time."""
    weight = checkpoint.shares[FOREST].weight if FOREST in checkpoint.shares else 1.0
    n_trees = next((n for most, n in TREES_BY_WEIGHT if weight <= most), None)
    if n_trees is None:
        return checkpoint
    learners, judged = (
        {
            name: Forest.from_tensors(own).first_trees(n_trees).to_tensors() if name == FOREST else own
            for name, own in copies.items()
        }
        for copies in (checkpoint.learners, checkpoint.judged)
    )
    return replace(checkpoint, learners=learners, judged=judged)


def find_shares(
    names: tuple[str, ...], logits: Logits, judges: Judges, rng: np.random.Generator
) -> tuple[dict[str, Share], float]:
    """What each learner counts, and the temperature of what they say together.

    Parameters
    ----------
    logits : `(n, C)` of the held-out pixels, by name; of no pixels where nothing is held out
    """
    shares, temperature, evidence = prior_shares(names, judges.seen), 1.0, judges.held_back
    if judges.blocks:
        shares, temperature = fit_shares(logits, judges.labels, len(judges.blocks), rng, shares)
    if evidence is None:
        return shares, temperature
    # No fold had a network or tuned an encoder: the quick learners divide among them what is left.
    labels, prior = evidence.painted.labels, prior_shares(tuple(evidence.logits), judges.seen)
    fitted, temperature = fit_shares(evidence.logits, labels, N_FOLDS, rng, prior, rare_count_more=True)
    earned, sharpened = _earned_by_base(evidence, judges, rng)
    if judges.blocks:
        most = {NETWORK: max(MOST_BY_BLOCKS, earned.weight), TUNED: MOST_BY_BLOCKS}
        shares = {n: replace(s, weight=min(s.weight, most.get(n, 1.0))) for n, s in shares.items()}
    elif earned.weight:
        # A network that was not taught is the base and no more: otherwise it does not count.
        left = 1 - (shares[TUNED].weight if TUNED in shares else 0.0)
        shares = {**shares, NETWORK: replace(shares.get(NETWORK, earned), weight=earned.weight * left)}
        temperature = sharpened
    rest = 1 - sum(share.weight for name, share in shares.items() if name not in evidence.logits)
    quick = {name: replace(share, weight=share.weight * rest) for name, share in fitted.items()}
    shares = {**shares, **quick}
    if judges.blocks and set(shares) != set(quick):
        # Blocks have all learners, of images that they know; folds have other images, but not all learners.
        temperature = math.sqrt(temperature * fit_temperature(mix_logits(logits, shares), judges.labels))
    return shares, temperature


def _earned_by_base(evidence: HeldBack, judges: Judges, rng: np.random.Generator) -> tuple[Share, float]:
    """What base weights earn beside the quick learners on images that neither saw, where that is much.

    A network that they were the beginning of knows at least as much. The second number is the temperature of
    what they say together.
    """
    if judges.base is None:
        return Share(0.0), 1.0
    asked = np.isfinite(judges.base).all(1)
    said = {NETWORK: judges.base[asked], **{name: own[asked] for name, own in evidence.logits.items()}}
    prior = prior_shares(tuple(said), judges.seen)
    labels = evidence.painted.labels[asked]
    fitted, temperature = fit_shares(said, labels, N_FOLDS, rng, prior, rare_count_more=True)
    earns = fitted[NETWORK].weight > prior[NETWORK].weight
    return (fitted[NETWORK], temperature) if earns else (Share(0.0), 1.0)


def _with_shares(checkpoint: Checkpoint, shares: Mapping[str, Share]) -> Checkpoint:
    """A learner that counts nothing is not kept: nobody would ask it. One that goes on learning is."""
    learners, judged = (
        {name: own for name, own in copies.items() if shares[name].weight or name == TUNED}
        for copies in (checkpoint.learners, checkpoint.judged)
    )
    temperature = shares[NETWORK].temperature if NETWORK in shares else checkpoint.temperature
    return replace(
        checkpoint,
        learners=learners,
        judged=judged,
        shares={name: shares[name] for name in learners},
        temperature=temperature,
    )


def _better_network(
    checkpoint: Checkpoint,
    other: Weights,
    judges: Judges,
    schema: LabelSchema,
    compute: Compute,
    maps: FeatureMaps,
) -> tuple[Checkpoint, Logits]:
    """The state that the hold-out finds better, and what it said there."""
    # Without the quick learners: what they say is the same for both.
    alone = replace(checkpoint, learners={}, judged={}, shares={})
    candidates = (alone, replace(alone, weights=other))
    said = [ask_learners(one, judges.blocks, schema, compute, maps) for one in candidates]
    best = int(np.argmin([_balanced_nats(logits[NETWORK], judges.labels) for logits in said]))
    return replace(checkpoint, weights=candidates[best].weights), said[best]


def _balanced_nats(logits: NDArray[np.float32], labels: NDArray[np.uint8]) -> float:
    """Mean over the classes of how unlikely the truth is, with the best temperature."""
    likely = log_softmax(logits / fit_temperature(logits, labels), axis=1)[np.arange(len(labels)), labels]
    return -float(np.mean([likely[labels == label].mean() for label in np.unique(labels)]))
