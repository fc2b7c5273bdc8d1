"""Base weights that know a project's own images, before anybody painted in them.

Half of every batch is drawn scenes with their truth, so that "thing" and "around" are not forgotten; the
other half is patches of the project's images, of which blocks are hidden and have to be guessed from what
is left (He et al. 2022, https://arxiv.org/abs/2111.06377). The guessing layer is thrown away at the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from core.errors import ImageError, RoundCancelledError
from core.network.base_weights import OBJECT_ROWS, load_base
from core.network.device import Compute, choose_compute
from core.network.outputs import DETAIL_WIDTH, Network, Weights
from core.network.pixels import PixelStatistics, measure_pixels, standardise
from core.network.pixels import conform_channels as conform_image
from core.network.unet import build_architecture, build_network, copy_weights
from core.pretraining.pretrain import SIZE_PX, batches, loss_of
from core.threads import torch_threads
from core.training.augmentation import Augmentation, change_light, cut_patch, random_affine

BASE_CHANNELS = 3
"""Base weights read colours; grey images are repeated, as the first round takes it back."""

MAX_IMAGES = 64
"""Images of the pool that are looked at: more would hardly be visited twice in a few minutes."""

SCENES, PATCHES = 6, 6
"""Drawn scenes and patches of the pool in a batch."""

HIDDEN_BLOCK_PX = 8
"""Side of a hidden block: as wide as small structures, so that copying the neighbours is not enough."""

HIDDEN_SHARE = 0.4
GUESS_SHARE = 0.5
"""Weight of the guessing against what the scenes teach."""

RATE = 5e-4
"""A quarter of the rate that made the base weights: they shall be adapted and not made anew."""

EMA = 0.99
LATTICE = 64
"""Pixels per side of the lattice that an image's brightness is measured on."""


@dataclass(frozen=True)
class PoolBase:
    """Adapted base weights, and the mean losses of scenes and guesses over the last tenth of the steps."""

    weights: Weights
    architecture: dict[str, Any]
    n_steps: int
    scene_loss: float
    guess_loss: float


def pretrain_on_pool(
    images: Sequence[NDArray[Any]],
    seed: int,
    *,
    now: Callable[[], float],
    budget_s: float,
    max_steps: int | None = None,
    n_threads: int | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[float], object] = lambda done: None,
    base: Path | None = None,
    compute: Compute | None = None,
) -> PoolBase:
    """Adapt base weights to unlabelled images.

    Parameters
    ----------
    images : sequence of (H, W, C) uint8 or uint16
        May be memory maps; at most `MAX_IMAGES` of them are used.
    budget_s : float
        Seconds by `now`; with `max_steps`, 1 or more, these end it, and the same seed gives the same weights.
    base : Path, optional
        Where to start from instead of the shipped weights.

    Raises
    ------
    ImageError
        There is no image to learn from.
    RoundCancelledError
        `should_stop` said so; it is asked before every step.
    """
    if not images:
        raise ImageError("there is no image in the pool to learn from")
    began, compute = now(), compute or choose_compute()
    draw, choose = map(np.random.default_rng, np.random.SeedSequence(seed).spawn(2))
    chosen = [images[i] for i in sorted(choose.permutation(len(images))[:MAX_IMAGES])]
    statistics = measure_pixels([_sample(image) for image in chosen], BASE_CHANNELS)
    architecture = build_architecture(BASE_CHANNELS, OBJECT_ROWS)
    network = build_network(architecture)
    network.load_state_dict(load_base(base))
    guesser = _guesser()
    parameters = [*network.to(compute.device).parameters(), *guesser.to(compute.device).parameters()]
    optimizer, scaler = torch.optim.AdamW(parameters, weight_decay=1e-4, fused=True), compute.scaler()
    smoothed = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
    scenes = batches(draw, SCENES)
    losses: list[tuple[float, float]] = []

    def done() -> float:
        return len(losses) / max_steps if max_steps is not None else (now() - began) / budget_s

    with torch_threads(n_threads):
        while (share := done()) < 1:
            if should_stop():
                raise RoundCancelledError("the pretraining was asked to stop")
            for group in optimizer.param_groups:
                group["lr"] = RATE * (1 + math.cos(math.pi * share)) / 2
            pictures, things, outlines = map(compute.place, next(scenes))
            patches, hidden = map(compute.place, _hide(_draw_patches(chosen, statistics, choose), choose))
            scene_loss, guess_loss = _losses(
                network, guesser, compute, pictures, patches, hidden, things, outlines
            )
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(scene_loss + GUESS_SHARE * guess_loss).backward()  # type: ignore[no-untyped-call]
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            scaler.step(optimizer)
            scaler.update()
            losses.append((float(scene_loss.detach()), float(guess_loss.detach())))
            _follow(smoothed, network, len(losses))
            on_progress(share)
    last = np.mean(losses[-max(len(losses) // 10, 1) :], axis=0) if losses else (math.nan, math.nan)
    return PoolBase(copy_weights(smoothed), architecture, len(losses), float(last[0]), float(last[1]))


def _sample(image: NDArray[Any]) -> NDArray[Any]:
    """Pixels of a coarse lattice, `(h, w, BASE_CHANNELS)`."""
    rows, columns = (max(1, side // LATTICE) for side in image.shape[:2])
    return conform_image(np.asarray(image[::rows, ::columns]), BASE_CHANNELS)


def _draw_patches(
    images: Sequence[NDArray[Any]], statistics: PixelStatistics, rng: np.random.Generator
) -> Tensor:
    """`(PATCHES, BASE_CHANNELS, SIZE_PX, SIZE_PX)`: turned, resized and standardised pieces of the pool."""
    settings, patches = Augmentation(), []
    for _ in range(PATCHES):
        image = images[int(rng.integers(len(images)))]
        centre = (float(rng.integers(image.shape[0])), float(rng.integers(image.shape[1])))
        unlabelled = np.broadcast_to(np.uint8(0), image.shape[:2])
        patch, _labels = cut_patch(image, unlabelled, random_affine(rng, centre, SIZE_PX, settings), SIZE_PX)
        patches.append(change_light(standardise(patch, statistics), rng, settings))
    batch = torch.from_numpy(np.stack(patches)).permute(0, 3, 1, 2)
    return batch.contiguous(memory_format=torch.channels_last)


def _hide(patches: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """The patches, and where they are to be guessed: `(N, 1, s, s)` of 0 and 1."""
    blocks = SIZE_PX // HIDDEN_BLOCK_PX
    drawn = (rng.random((len(patches), 1, blocks, blocks)) < HIDDEN_SHARE).astype(np.float32)
    return patches, torch.from_numpy(drawn.repeat(HIDDEN_BLOCK_PX, 2).repeat(HIDDEN_BLOCK_PX, 3))


def _losses(
    network: Network,
    guesser: nn.Conv2d,
    compute: Compute,
    pictures: Tensor,
    patches: Tensor,
    hidden: Tensor,
    things: Tensor,
    outlines: Tensor,
) -> tuple[Tensor, Tensor]:
    """What the scenes say, and the mean squared error of the hidden pixels, in units of the deviation."""
    with compute.autocast():
        logits = network(pictures)
        guessed = guesser(network.features(patches * (1 - hidden)))
    error = ((guessed.float() - patches) ** 2).mean(1, keepdim=True)
    return loss_of(logits.float(), things, outlines), (error * hidden).sum() / hidden.sum().clamp_min(1)


def _guesser() -> nn.Conv2d:
    """A layer of zeros, which guesses the project's mean at first; built without torch's global chance."""
    with torch.device("meta"):
        layer = nn.Conv2d(DETAIL_WIDTH, BASE_CHANNELS, 1)
    layer.to_empty(device="cpu")
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def _follow(smoothed: Weights, network: Network, n_steps: int) -> None:
    """Exponential moving average that begins as a plain one."""
    decay = min(EMA, (1 + n_steps) / (10 + n_steps))
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            smoothed[name].lerp_(tensor, 1 - decay)
