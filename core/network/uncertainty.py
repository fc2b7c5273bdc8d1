"""How unsure a model is, per pixel, from the probabilities of its stochastic samples.

Every function takes probabilities `(S, C, H, W)`, samples first and summing to 1 over the classes, and
never logits; and perhaps what each of the samples counts, `(S,)` and summing to 1. Entropies are in nats.

>>> import torch
>>> even, sure = torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.0])
>>> samples = torch.stack([even, sure]).reshape(2, 2, 1, 1)
>>> [round(f(samples).item(), 3) for f in (predictive_entropy, expected_entropy, mutual_information, margin)]
[0.562, 0.347, 0.216, 0.5]
"""

from __future__ import annotations

import torch
from torch import Tensor

SMALLEST_PROBABILITY = 1e-12
"""Keeps the logarithm finite; p log p is 0 there anyway."""


def predictive_entropy(probabilities: Tensor, weights: Tensor | None = None) -> Tensor:
    """`(H, W)`: entropy of the mean over the samples, between 0 and log C."""
    return _entropy(mean_of(probabilities, weights))


def expected_entropy(probabilities: Tensor, weights: Tensor | None = None) -> Tensor:
    """`(H, W)`: mean entropy of the samples; what is unclear in the image itself."""
    entropies = _entropy(_checked(probabilities).movedim(1, 0))
    return entropies.mean(0) if weights is None else torch.einsum("s,shw->hw", weights, entropies)


def mutual_information(probabilities: Tensor, weights: Tensor | None = None) -> Tensor:
    """`(H, W)`: how much the samples disagree; what more truth would settle. At least 0.

    References: Houlsby et al. 2011 (BALD), https://arxiv.org/abs/1112.5745
    """
    both = predictive_entropy(probabilities, weights) - expected_entropy(probabilities, weights)
    return both.clamp_min(0)


def margin(probabilities: Tensor, weights: Tensor | None = None) -> Tensor:
    """`(H, W)`: mean probability of the best class minus that of the second; 1 where there is one class."""
    mean = mean_of(probabilities, weights)
    if mean.shape[0] == 1:
        return mean[0]
    best = mean.topk(2, dim=0).values
    return best[0] - best[1]


def mean_of(probabilities: Tensor, weights: Tensor | None = None) -> Tensor:
    """`(C, H, W)`: what the samples say together."""
    _checked(probabilities)
    return probabilities.mean(0) if weights is None else torch.einsum("s,schw->chw", weights, probabilities)


def _entropy(probabilities: Tensor) -> Tensor:
    """Entropy over the first axis."""
    return -(probabilities * probabilities.clamp_min(SMALLEST_PROBABILITY).log()).sum(0)


def _checked(probabilities: Tensor) -> Tensor:
    if probabilities.ndim != 4:
        raise ValueError(f"probabilities are (S, C, H, W), got {tuple(probabilities.shape)}")
    return probabilities
