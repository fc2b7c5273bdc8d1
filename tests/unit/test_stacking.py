"""Several learners, one answer: probabilities averaged with weights from the hold-out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from core.network import uncertainty
from core.network.mixture import FOREST, HEAD, NETWORK, Share, mix_logits, network_weight, pool_probabilities
from core.training.stacking import fit_shares, prior_shares

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 3, 3000).astype(np.uint8)
TRUTH = np.eye(3, dtype=np.float32)[LABELS]


def _noisy(strength: float, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=TRUTH.shape)
    return (TRUTH * strength + noise).astype(np.float32)


def _nats(shares: dict[str, Share], logits: dict[str, np.ndarray]) -> float:
    mixed = mix_logits(logits, shares)
    normal = mixed - np.log(np.exp(mixed).sum(1, keepdims=True))
    return -float(normal[np.arange(len(LABELS)), LABELS].mean())


def test_a_learner_that_knows_nothing_earns_no_weight() -> None:
    shares, _ = fit_shares({NETWORK: _noisy(4, 1), HEAD: _noisy(0, 2)}, LABELS, 50, RNG)
    assert shares[HEAD].weight == 0
    assert shares[NETWORK].weight == 1


def test_learners_that_err_differently_both_count_and_are_better_together() -> None:
    logits = {NETWORK: _noisy(2, 1), HEAD: _noisy(2, 2), FOREST: _noisy(2, 3)}
    shares, _ = fit_shares(logits, LABELS, 50, RNG)
    alone = min(
        _nats(fit_shares({name: own}, LABELS, 50, RNG)[0], {name: own}) for name, own in logits.items()
    )
    assert all(share.weight > 0.2 for share in shares.values())
    assert _nats(shares, logits) < alone - 0.03


def test_where_rare_classes_count_more_the_learner_that_finds_them_does_too() -> None:
    labels = np.repeat(np.array([0, 1], np.uint8), [9900, 100])
    noise = np.random.default_rng(5).normal(size=(len(labels), 2))
    finds_the_rare_one = np.stack([0 * labels, 4.0 * labels - 1.5], 1) + noise
    knows_how_rare_it_is = np.stack([0 * labels, 0 * labels - 4.6], 1) + 0.1 * noise
    logits = {
        HEAD: finds_the_rare_one.astype(np.float32),
        FOREST: knows_how_rare_it_is.astype(np.float32),
    }
    as_painted, _ = fit_shares(logits, labels, 50, RNG)
    by_roots, _ = fit_shares(logits, labels, 50, RNG, rare_count_more=True)
    assert by_roots[HEAD].weight > as_painted[HEAD].weight + 0.1


def test_weights_sum_to_one_and_a_single_block_hardly_moves_the_prior() -> None:
    few = {name: own[:20] for name, own in {NETWORK: _noisy(1, 1), HEAD: _noisy(1.2, 2)}.items()}
    shares, _ = fit_shares(few, LABELS[:20], 1, RNG)
    assert sum(share.weight for share in shares.values()) == pytest.approx(1)
    prior = prior_shares((NETWORK, HEAD))
    assert abs(shares[HEAD].weight - prior[HEAD].weight) < 0.25


def test_without_held_out_truth_the_prior_alone_speaks() -> None:
    nothing = {HEAD: np.zeros((0, 3), np.float32), FOREST: np.zeros((0, 3), np.float32)}
    assert fit_shares(nothing, np.zeros(0, np.uint8), 0, RNG) == (prior_shares((HEAD, FOREST)), 1.0)


def test_a_class_that_a_learner_does_not_know_is_left_to_the_others() -> None:
    blind = _noisy(4, 1)
    blind[:, 2] = -np.inf
    shares, _ = fit_shares({NETWORK: blind, HEAD: _noisy(3, 2)}, LABELS, 50, RNG)
    mixed = mix_logits({NETWORK: blind, HEAD: _noisy(3, 2)}, shares)
    assert np.isfinite(mixed).all()
    assert shares[HEAD].weight > 0.5


def test_the_mixture_is_calibrated() -> None:
    logits = {NETWORK: 5 * _noisy(2, 1), HEAD: 2 * _noisy(2, 2)}
    mixed = mix_logits(logits, *fit_shares(logits, LABELS, 50, RNG))
    sure = np.exp(mixed) / np.exp(mixed).sum(1, keepdims=True)
    confidence, right = sure.max(1), sure.argmax(1) == LABELS
    assert abs(confidence.mean() - right.mean()) < 0.03


def test_learners_that_disagree_have_mutual_information() -> None:
    one, other = (torch.tensor(p).reshape(1, 2, 1, 1) for p in ([1.0, 0.0], [0.0, 1.0]))
    weights = torch.tensor([0.25, 0.75])
    apart = uncertainty.mutual_information(torch.cat([one, other]), weights)
    assert apart.item() == pytest.approx(-(0.25 * np.log(0.25) + 0.75 * np.log(0.75)), abs=1e-5)
    assert uncertainty.mutual_information(torch.cat([one, one]), weights).item() == pytest.approx(0, abs=1e-6)


def test_what_the_quick_learners_leave_is_the_networks() -> None:
    assert network_weight({HEAD: Share(0.25), FOREST: Share(0.25)}) == pytest.approx(0.5)
    assert network_weight({}) == 1
    assert network_weight({HEAD: Share(0.4), FOREST: Share(0.6)}) == 0


def test_pooled_probabilities_sum_to_one() -> None:
    logits = {NETWORK: torch.randn(5, 4), HEAD: torch.randn(5, 4)}
    pooled = pool_probabilities(logits, {NETWORK: Share(0.3, 2.0), HEAD: Share(0.7, 0.5)})
    assert pooled.sum(1).tolist() == pytest.approx([1] * 5)
