"""The optimisation loop of a round: patches in, smoothed weights out, inside a budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from core.errors import NonFiniteLossError, RoundCancelledError
from core.network.device import Compute, choose_compute
from core.network.outputs import Network, Weights
from core.network.pixels import PixelStatistics
from core.network.unet import copy_weights
from core.schema import LabelSchema
from core.training.batches import Batch, Batches, Drawing
from core.training.loss import cross_entropy, outline_loss
from core.training.recipe import Recipe
from core.training.sampling import OpenExample

MAX_RESTORES = 3
"""After so many restorations a loss that is not finite is not bad luck."""

CURVE_POINTS = 50


@dataclass(frozen=True)
class Optimised:
    """Smoothed weights, and the loss of every step in nats."""

    weights: Weights
    losses: tuple[float, ...]


def optimise(
    network: Network,
    examples: Sequence[OpenExample],
    schema: LabelSchema,
    statistics: PixelStatistics,
    class_weight: NDArray[np.float32],
    recipe: Recipe,
    rng: np.random.Generator,
    *,
    peak_rate: float,
    progress: Callable[[int], float],
    should_stop: Callable[[], bool],
    on_step: Callable[[float], None],
    compute: Compute | None = None,
) -> Optimised:
    """Train `network` in place until `progress(steps made)` reaches 1; it ends up on the device.

    Raises
    ------
    RoundCancelledError
        `should_stop` said so.
    NonFiniteLossError
        The loss was not finite again and again, with the weights restored and the rate lowered each time.
    """
    compute = compute or choose_compute()
    network.to(compute.device).train()
    smoothed = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
    optimizer, scaler = _adamw(network, recipe), compute.scaler()
    batches = Batches(Drawing(examples, schema, statistics, class_weight, recipe), rng, compute.device)
    losses: list[float] = []
    restores = 0
    with batches:
        while (done := progress(len(losses))) < 1:
            if should_stop():
                raise RoundCancelledError(f"stopped after {len(losses)} steps")
            # A loss that stopped being a number is the mark of steps that are too long.
            rate = peak_rate * schedule(done, recipe.ramp_share) / 4**restores
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss = _step(network, optimizer, batches.draw(), recipe, compute, scaler)
            if not math.isfinite(loss):
                restores += 1
                if restores > MAX_RESTORES:
                    raise NonFiniteLossError(
                        f"the loss was {loss} after {len(losses)} steps, {restores} times"
                    )
                network.load_state_dict(smoothed)
                # A fresh optimiser: the moments of the old one are full of the steps that failed.
                optimizer, scaler = _adamw(network, recipe), compute.scaler()
                continue
            losses.append(loss)
            _smooth(smoothed, network, recipe.ema, len(losses))
            on_step(done)
    return Optimised(copy_weights(smoothed), tuple(losses))


def schedule(done: float, ramp_share: float) -> float:
    """Learning rate as a share of its peak when `done` of the round, 0..1, has passed.

    >>> [round(schedule(done, 0.2), 2) for done in (0.1, 0.2, 0.6, 1.0)]
    [0.55, 1.0, 0.51, 0.01]
    """
    lowest = 0.01
    if done < ramp_share:
        return max(lowest, 0.1 + 0.9 * done / ramp_share)
    fallen = (done - ramp_share) / (1 - ramp_share)
    return lowest + (1 - lowest) * (1 + math.cos(math.pi * fallen)) / 2


def thin_out(losses: Sequence[float], points: int = CURVE_POINTS) -> tuple[float, ...]:
    """Means over up to `points` equal stretches.

    >>> thin_out([4.0, 2.0, 1.0, 1.0], 2)
    (3.0, 1.0)
    """
    stretches = np.array_split(np.asarray(losses, np.float64), min(points, max(len(losses), 1)))
    return tuple(round(float(stretch.mean()), 5) for stretch in stretches if len(stretch))


def _adamw(network: Network, recipe: Recipe) -> torch.optim.AdamW:
    return torch.optim.AdamW(network.parameters(), weight_decay=recipe.weight_decay, fused=True)


def _step(
    network: Network,
    optimizer: torch.optim.AdamW,
    batch: Batch,
    recipe: Recipe,
    compute: Compute,
    scaler: torch.amp.GradScaler,
) -> float:
    """Make one step and return its loss; a loss or gradient that is not finite changes no weight."""
    batch = Batch(*map(compute.place, batch))
    with compute.autocast():
        logits = network(batch.images)
    logits = logits.float()
    loss = cross_entropy(logits[:, :-1], batch.label_maps, batch.weights)
    loss = loss + recipe.outline_share * outline_loss(logits[:, -1], batch.outlines)
    optimizer.zero_grad(set_to_none=True)
    scale = scaler.get_scale()
    scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    scaler.unscale_(optimizer)
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), recipe.largest_gradient)
    found, length = torch.stack([loss.detach(), norm.detach()]).tolist()  # a GPU is waited for once
    is_overflow = scale > 1 and not math.isfinite(length)  # float16 only: try a smaller scale next time
    if not math.isfinite(found) or not (math.isfinite(length) or is_overflow):
        return math.nan
    scaler.step(optimizer)
    scaler.update()
    return float(found)


def _smooth(smoothed: Weights, network: Network, decay: float, n_steps: int) -> None:
    """Exponential moving average that begins as a plain one, so that early weights are soon forgotten."""
    decay = min(decay, (1 + n_steps) / (10 + n_steps))
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                smoothed[name].lerp_(tensor, 1 - decay)
