"""One answer from several learners: their calibrated probabilities, averaged with weights.

Learners that err differently correct one another. Each one's logits are divided by a temperature of its
own, and what is averaged are probabilities, so how much the learners disagree is the mutual information of
the mixture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

NETWORK, HEAD, FOREST, TUNED = "network", "head", "forest", "tuned"
"""Names of the learners: the U-Net or another network, `core.network.head`, `core.learners.forest`, and
`core.network.tuned`."""

QUICK = (HEAD, FOREST)
"""What learns within seconds, from nothing, in every round."""

LARGEST_LOGIT = 1e4
"""Stands for infinity: a class that a learner does not know has a finite gradient."""

SMALLEST_PROBABILITY = 1e-6


@dataclass(frozen=True)
class Share:
    """What a learner counts, 0..1, and what its logits are divided by."""

    weight: float
    temperature: float = 1.0

    def to_record(self) -> dict[str, float]:
        return asdict(self)


def network_weight(shares: Mapping[str, Share]) -> float:
    """What is left for the network beside the quick learners.

    >>> round(network_weight({HEAD: Share(0.3), FOREST: Share(0.5)}), 3)
    0.2
    """
    left = 1 - sum(share.weight for share in shares.values())
    return left if left > SMALLEST_PROBABILITY else 0.0


def pool_probabilities(logits: Mapping[str, Tensor], shares: Mapping[str, Share], axis: int = 1) -> Tensor:
    """The mean of the learners' probabilities: `{name: (n, C)}` logits and the shares of all to `(n, C)`.

    Examples
    --------
    >>> sure, even = torch.tensor([[-20.0, 20.0]]), torch.zeros(1, 2)
    >>> pooled = pool_probabilities({HEAD: sure, FOREST: even}, {HEAD: Share(0.5), FOREST: Share(0.5)})
    >>> [round(p, 2) for p in pooled[0].tolist()]
    [0.25, 0.75]
    """
    terms = [
        share.weight * calibrated(logits[name], share.temperature, axis)
        for name, share in shares.items()
        if share.weight
    ]
    return torch.stack(terms).sum(0)


def mix_logits(
    logits: Mapping[str, NDArray[np.float32]], shares: Mapping[str, Share], temperature: float = 1.0
) -> NDArray[np.float32]:
    """Logarithms of the mixed probabilities, divided by `temperature`.

    Minus infinity where no learner knows a class.
    """
    alone = [name for name, share in shares.items() if share.weight]
    if len(alone) == 1:  # dividing by the temperature changes no order; a class nobody knows stays so
        return np.asarray(logits[alone[0]] / (shares[alone[0]].temperature * temperature), np.float32)
    tensors = {name: torch.from_numpy(logits[name]) for name in alone}
    pooled = pool_probabilities(tensors, {name: shares[name] for name in alone})
    return np.asarray((pooled.log() / temperature).numpy())


def sharpen(probabilities: Tensor, temperature: float) -> Tensor:
    """`(C, ...)` mixed probabilities as sure as they should be: a mean of honest learners is too cautious.

    References: Ranjan & Gneiting 2010, "Combining probability forecasts"; Rahaman & Thiery 2021, "Uncertainty
    quantification and deep ensembles", https://arxiv.org/abs/2007.08792

    >>> [round(p, 2) for p in sharpen(torch.tensor([0.75, 0.25]), 0.5).tolist()]
    [0.9, 0.1]
    """
    if temperature == 1.0:
        return probabilities
    return torch.softmax(probabilities.clamp_min(SMALLEST_PROBABILITY).log() / temperature, dim=0)


def calibrated(logits: Tensor, temperature: float | Tensor, axis: int = 1) -> Tensor:
    """Probabilities; a logit of minus infinity is a class that is never answered."""
    return torch.softmax(logits.clamp(-LARGEST_LOGIT, LARGEST_LOGIT) / temperature, dim=axis)
