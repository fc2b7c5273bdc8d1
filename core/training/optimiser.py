"""The optimisation loop of a round: patches in, smoothed weights out, inside a budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.errors import NonFiniteLossError, RoundCancelledError
from core.network.device import Compute, choose_compute
from core.network.outputs import Network, Weights
from core.network.pixels import PixelStatistics, standardise
from core.network.unet import DEFAULT_WIDTHS, copy_weights
from core.schema import IGNORE_INDEX, LabelSchema
from core.training.augmentation import Augmentation, change_light, cut_patch, random_affine
from core.training.loss import border_weights, cross_entropy, outline_loss
from core.training.outlines import outline_targets
from core.training.sampling import OpenExample, Shares, draw_centres

MAX_RESTORES = 3
"""After so many restorations a loss that is not finite is not bad luck."""

CURVE_POINTS = 50


@dataclass(frozen=True)
class Recipe:
    """The knobs of optimisation; the defaults are the ones that measured best.

    Attributes
    ----------
    widths : channels per level of a network that starts from fresh weights
    patch_px, batch_size : what one step sees
    peak_rate, base_rate, warm_rate : largest learning rate of AdamW from fresh weights, from base weights,
        and from a trained model whose classes stayed; with a new class it lies between base and warm
    ramp_share : share of the round in which the rate rises; it then falls along a cosine
    ema : decay of the smoothed weights, reached gradually
    outline_share : weight of the outlines' loss against that of the classes
    base_share : of the base weights that a result goes back to, while few objects are painted
    head_steps : of the head on the encoder's maps
    """

    widths: tuple[int, ...] = DEFAULT_WIDTHS
    patch_px: int = 96
    batch_size: int = 8
    peak_rate: float = 3e-3
    base_rate: float = 1e-3
    warm_rate: float = 5e-4
    weight_decay: float = 1e-2
    ramp_share: float = 0.15
    largest_gradient: float = 5.0
    ema: float = 0.98
    outline_share: float = 0.5
    base_share: float = 0.3
    head_steps: int = 150
    shares: Shares = field(default_factory=Shares)
    augmentation: Augmentation = field(default_factory=Augmentation)


@dataclass(frozen=True)
class Optimised:
    """Smoothed weights, and the loss of every step in nats."""

    weights: Weights
    losses: tuple[float, ...]


class Batch(NamedTuple):
    """`N` patches: images `(N, C, p, p)`, and `(N, p, p)` label maps, pixel weights and outline targets."""

    images: Tensor
    label_maps: Tensor
    weights: Tensor
    outlines: Tensor


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
    draw = partial(draw_batch, examples, schema, statistics, class_weight, recipe, rng)
    losses: list[float] = []
    restores = 0
    # The next patches are drawn while the network learns from these; one thread keeps their order.
    with ThreadPoolExecutor(1) as ahead:
        coming = ahead.submit(draw)
        while (done := progress(len(losses))) < 1:
            if should_stop():
                raise RoundCancelledError(f"stopped after {len(losses)} steps")
            # A loss that stopped being a number is the mark of steps that are too long.
            rate = peak_rate * schedule(done, recipe.ramp_share) / 4**restores
            for group in optimizer.param_groups:
                group["lr"] = rate
            batch, coming = coming.result(), ahead.submit(draw)
            loss = _step(network, optimizer, batch, recipe, compute, scaler)
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


def draw_batch(
    examples: Sequence[OpenExample],
    schema: LabelSchema,
    statistics: PixelStatistics,
    class_weight: NDArray[np.float32],
    recipe: Recipe,
    rng: np.random.Generator,
) -> Batch:
    """Draw patches, change them at random and standardise them."""
    patches, label_maps = [], []
    for opened, row, column in draw_centres(examples, rng, recipe.batch_size, recipe.shares):
        affine = random_affine(rng, (row, column), recipe.patch_px, recipe.augmentation)
        example = opened.example
        patch, label_map = cut_patch(example.image, example.train_map, affine, recipe.patch_px)
        own = statistics.of(example.image.dtype)  # the patch is of floating point numbers already
        patches.append(change_light(standardise(patch, own), rng, recipe.augmentation))
        label_maps.append(label_map)
    weights = [border_weights(label_map) * _weight_of(label_map, class_weight) for label_map in label_maps]
    outlines = [outline_targets(label_map, schema.background_index) for label_map in label_maps]
    images = torch.from_numpy(np.stack(patches)).permute(0, 3, 1, 2)
    return Batch(
        images.contiguous(memory_format=torch.channels_last),
        torch.from_numpy(np.stack(label_maps)),
        torch.from_numpy(np.stack(weights)),
        torch.from_numpy(np.stack(outlines)),
    )


def thin_out(losses: Sequence[float], points: int = CURVE_POINTS) -> tuple[float, ...]:
    """Means over up to `points` equal stretches.

    >>> thin_out([4.0, 2.0, 1.0, 1.0], 2)
    (3.0, 1.0)
    """
    stretches = np.array_split(np.asarray(losses, np.float64), min(points, max(len(losses), 1)))
    return tuple(round(float(stretch.mean()), 5) for stretch in stretches if len(stretch))


def _weight_of(label_map: NDArray[np.uint8], class_weight: NDArray[np.float32]) -> NDArray[np.float32]:
    by_value = np.zeros(IGNORE_INDEX + 1, np.float32)
    by_value[: len(class_weight)] = class_weight
    return by_value[label_map]


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
    is_overflow = scale > 1 and not math.isfinite(float(norm))  # float16 only: try a smaller scale next time
    if not math.isfinite(float(loss.detach())) or not (math.isfinite(float(norm)) or is_overflow):
        return math.nan
    scaler.step(optimizer)
    scaler.update()
    return float(loss.detach())


def _smooth(smoothed: Weights, network: Network, decay: float, n_steps: int) -> None:
    """Exponential moving average that begins as a plain one, so that early weights are soon forgotten."""
    decay = min(decay, (1 + n_steps) / (10 + n_steps))
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                smoothed[name].lerp_(tensor, 1 - decay)
