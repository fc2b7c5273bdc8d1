"""How much each learner counts in a model's answer: what makes held-out truth most likely.

References: Wolpert 1992, "Stacked generalization"; Breiman 1996, "Stacked regressions".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from core.network.mixture import (
    FOREST,
    HEAD,
    NETWORK,
    SMALLEST_PROBABILITY,
    TUNED,
    Share,
    calibrated,
    mix_logits,
)
from core.training.calibration import fit_temperature

PRIOR = {NETWORK: 0.4, HEAD: 0.3, FOREST: 0.3, TUNED: 0.3}
"""What learners count before anything is known of a project; parts of their sum."""

PRIOR_BLOCKS = 0.5
"""How many held-out blocks the prior is worth: a few nats decide against it, chance does not."""

SMALLEST_WEIGHT = 0.05
"""A learner that counts less is not worth its time."""

MOST_PIXELS = 20_000
ITERATIONS = 40

Logits = Mapping[str, NDArray[np.float32]]
"""By learner name, `(n, C)` of the same pixels."""


def prior_shares(names: tuple[str, ...], seen: Mapping[str, float] | None = None) -> dict[str, Share]:
    """Shares of some learners where nothing is held out.

    `seen` is the part of its truth, 0..1, that a learner had the time to see, where that was not all: one
    that saw little on a busy machine is believed less.

    >>> {name: share.weight for name, share in prior_shares((HEAD, FOREST)).items()}
    {'head': 0.5, 'forest': 0.5}
    >>> {name: share.weight for name, share in prior_shares((HEAD, FOREST), {HEAD: 1 / 3}).items()}
    {'head': 0.25, 'forest': 0.75}
    """
    parts = {name: PRIOR[name] * (seen or {}).get(name, 1.0) for name in names}
    return {name: Share(part / sum(parts.values())) for name, part in parts.items()}


def fit_shares(
    logits: Logits,
    labels: NDArray[np.uint8],
    n_blocks: int,
    rng: np.random.Generator,
    prior: Mapping[str, Share] | None = None,
    *,
    rare_count_more: bool = False,
) -> tuple[dict[str, Share], float]:
    """Weights on the simplex and a temperature for each learner, and one for what they say together.

    Parameters
    ----------
    logits : of held-out pixels that none of the learners has seen
    labels : (n,) classes of the pixels
    n_blocks : the number of independent places that the pixels are from
    prior : by learner; `prior_shares` by default
    rare_count_more : for the weights a class counts as the root of its pixels, as in a forest

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> labels = rng.integers(0, 2, 4000).astype(np.uint8)
    >>> right = np.eye(2, dtype=np.float32)[labels] * 3
    >>> shares, _ = fit_shares({HEAD: right, FOREST: np.zeros_like(right)}, labels, 20, rng)
    >>> shares[HEAD].weight > 0.9
    True
    """
    names = tuple(logits)
    prior = prior or prior_shares(names)
    if len(labels) == 0:
        return dict(prior), 1.0
    drawn = rng.permutation(len(labels))[:MOST_PIXELS]
    picked = {name: values[drawn] for name, values in logits.items()}
    temperatures = {name: fit_temperature(values, labels[drawn]) for name, values in picked.items()}
    if len(names) == 1:
        return {names[0]: Share(1.0, temperatures[names[0]])}, 1.0
    tensors = {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in picked.items()}
    truth = torch.from_numpy(labels[drawn].astype(np.int64))
    counts = np.bincount(labels[drawn])[labels[drawn]]
    of_pixel = torch.from_numpy(np.asarray(counts**-0.5 if rare_count_more else np.ones(len(counts))))
    shares = _weigh(tensors, truth, of_pixel / of_pixel.sum(), temperatures, prior, n_blocks)
    if sum(share.weight > 0 for share in shares.values()) == 1:
        return shares, 1.0
    return shares, fit_temperature(mix_logits(picked, shares), labels[drawn])


def _weigh(
    logits: Mapping[str, Tensor],
    truth: Tensor,
    of_pixel: Tensor,
    temperatures: Mapping[str, float],
    prior: Mapping[str, Share],
    n_blocks: int,
) -> dict[str, Share]:
    """Weights that make the truth most likely, where pixels count `of_pixel`; those too small become 0."""
    names = tuple(logits)
    right = torch.stack(
        [calibrated(logits[name], temperatures[name]).gather(1, truth[:, None])[:, 0] for name in names]
    )  # (K, n): how probable each learner finds the truth
    before = torch.tensor([prior[name].weight for name in names])
    # Any numbers do: their softmax stays on the simplex, so the search needs no constraint.
    free = before.log().requires_grad_()

    def nats() -> Tensor:
        pooled = (torch.softmax(free, 0)[:, None] * right).sum(0)
        pull = -(before * torch.log_softmax(free, 0)).sum() * PRIOR_BLOCKS / n_blocks
        return -((pooled + SMALLEST_PROBABILITY).log() * of_pixel).sum() + pull

    _minimise(free, nats)
    weights = torch.softmax(free.detach(), 0)
    weights = torch.where(weights < SMALLEST_WEIGHT, 0.0, weights)
    weights = weights / weights.sum()
    return {name: Share(float(w), temperatures[name]) for name, w in zip(names, weights, strict=True)}


def _minimise(parameter: Tensor, nats: Callable[[], Tensor]) -> None:
    """Move a parameter to where `nats` is smallest."""

    def value_and_slope(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(values))
        loss = nats()
        (slope,) = torch.autograd.grad(loss, parameter)
        return float(loss.detach()), slope.numpy().astype(np.float64)

    start = parameter.detach().numpy().astype(np.float64)
    best = minimize(value_and_slope, start, jac=True, method="L-BFGS-B", options={"maxiter": ITERATIONS})
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(best.x))
