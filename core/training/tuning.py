"""Let the encoder itself learn, with a head on its maps: for training that nobody waits for.

A step takes a second of one core, so this is no part of a round. It sees large patches, for the encoder looks
far, and learns from painted pixels of them alone. What photographs taught it must not be lost: small steps,
and the head has learnt before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from core.errors import RoundCancelledError
from core.network.checkpoint import Checkpoint
from core.network.encoder import Encoder, colours_of, load_encoder
from core.network.head import Head, logits_with_dropout
from core.network.mixture import TUNED
from core.network.outputs import HEAD as OUTPUTS
from core.network.outputs import Weights
from core.network.pixels import PixelStatistics, standardise
from core.network.tuned import Tuned
from core.network.unet import conform_classes
from core.schema import IGNORE_INDEX, LabelSchema
from core.training.augmentation import Augmentation, change_light, cut_patch, draw_light, random_affine
from core.training.optimiser import schedule
from core.training.sampling import OpenExample, Shares, draw_centres

PATCH_PX, PATCHES = 256, 4
"""Side and number of the patches of a step, which are looked at one by one: memory is that of one."""

PIXELS = 1024
"""Painted pixels of a patch that are learnt from, at most."""

ENCODER_RATE, HEAD_RATE = 3e-4, 1e-3
"""Largest rates. Three times the first one cost .10 Dice where context decides, and gained .007 where texture
does."""

RAMP_SHARE, WEIGHT_DECAY, LARGEST_GRADIENT, SMOOTHING = 0.1, 1e-2, 5.0, 0.98

BALANCE = 0.75
"""A class counts as its painted pixels to the power of 1 minus this: nearly as much as any other."""

SHARES = Shares(class_uniform=1.0, border=0.0)

SMALLEST_DEVIATION, SMALLEST_SHARE = 1e-3, 0.1
"""Of a feature over painted pixels, and that as a share of the median one."""

MEASURED_PATCHES = 8

LEAST_COUNTED, LEAST_PART = 0.3, 0.2
"""Weight that an encoder is given at least when time is divided, and the least part for either."""


@dataclass(frozen=True)
class Tuning:
    """What an encoder learns from, and what tells it to end.

    Attributes
    ----------
    class_pixels : painted pixels per class of the whole project
    progress : the share of the training that is done after so many steps
    should_stop : asked before every step
    on_step : told the share that is done, after every step
    """

    examples: Sequence[OpenExample]
    statistics: PixelStatistics
    class_pixels: Sequence[int]
    progress: Callable[[int], float]
    should_stop: Callable[[], bool]
    device: torch.device
    augmentation: Augmentation
    on_step: Callable[[float], None] = lambda done: None


def tune(start: Tuned, work: Tuning, rng: np.random.Generator) -> tuple[Tuned, int]:
    """Train on from `start` until `progress` reaches 1: what came of it, and the number of steps.

    A step whose loss or gradient is not finite changes nothing.

    Raises
    ------
    RoundCancelledError
        `should_stop` said so.
    """
    if work.progress(0) >= 1:
        return start, 0
    # A copy: the shipped encoder belongs to the whole process.
    encoder = deepcopy(start.build_encoder()).to(work.device)
    rows = _first_rows(encoder, work, rng)
    if not len(rows):
        return start, 0
    encoder.requires_grad_(True)
    head = _LearningHead(start.head.to(work.device), rows, int(rng.integers(2**31)))
    learnt = [*encoder.parameters(), *head.layers]
    groups = [
        {"params": list(encoder.parameters()), "peak": ENCODER_RATE},
        {"params": head.layers, "peak": HEAD_RATE},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=WEIGHT_DECAY, fused=True)
    smoothed = [tensor.detach().clone() for tensor in learnt]
    n_steps = 0
    while (done := work.progress(n_steps)) < 1:
        if work.should_stop():
            raise RoundCancelledError(f"stopped after {n_steps} steps of the encoder")
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * schedule(done, RAMP_SHARE)
        optimizer.zero_grad(set_to_none=True)
        for opened, row, column in draw_centres(work.examples, rng, PATCHES, SHARES):
            patch, at, labels = _cut(opened, (row, column), work, rng)
            if len(at):  # where a patch is made smaller, a single pixel may fall between its own
                loss = _loss_of(encoder, head, patch, at, labels, work)
                (loss / PATCHES).backward()  # type: ignore[no-untyped-call]
        n_steps += 1
        work.on_step(done)
        if not math.isfinite(float(torch.nn.utils.clip_grad_norm_(learnt, LARGEST_GRADIENT))):
            continue
        optimizer.step()
        decay = min(SMOOTHING, (1 + n_steps) / (10 + n_steps))
        with torch.no_grad():
            for kept, tensor in zip(smoothed, learnt, strict=True):
                kept.lerp_(tensor, 1 - decay)
    with torch.no_grad():
        for kept, tensor in zip(smoothed, learnt, strict=True):
            tensor.copy_(kept)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.state_dict().items()}
    return Tuned(weights, head.fold()), n_steps


class _LearningHead:
    """The layers of a head for rows of mean 0 and deviation 1, where steps are of one size for all."""

    def __init__(self, head: Head, rows: Tensor, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._mean, deviation = rows.mean(0), rows.std(0, correction=0)
        # A feature that the first patches hardly show must not learn in leaps.
        self._deviation = deviation.clamp_min(
            max(SMALLEST_SHARE * float(deviation.median()), SMALLEST_DEVIATION)
        )
        kernel, bias = head.kernel * self._deviation, head.bias + head.kernel @ self._mean
        self.layers = [
            layer.clone().requires_grad_() for layer in (kernel, bias, head.out_kernel, head.out_bias)
        ]

    def logits(self, rows: Tensor) -> Tensor:
        """`(n, N_FEATURES)` to `(n, n_classes)`, with part of the hidden units left out at random."""
        return logits_with_dropout((rows - self._mean) / self._deviation, self.layers, self._generator)

    def fold(self) -> Head:
        """The head for rows as they are."""
        kernel, bias, out_kernel, out_bias = (layer.detach() for layer in self.layers)
        folded = kernel / self._deviation
        return Head(folded, bias - folded @ self._mean, out_kernel, out_bias).to(torch.device("cpu"))


def _first_rows(encoder: Encoder, work: Tuning, rng: np.random.Generator) -> Tensor:
    """`(n, N_FEATURES)` of painted pixels of some patches, as they are before anything is learnt."""
    rows = []
    with torch.no_grad():
        for opened, row, column in draw_centres(work.examples, rng, MEASURED_PATCHES, SHARES):
            patch, at, _ = _cut(opened, (row, column), work, rng)
            rows.append(_rows_at(encoder(patch.to(work.device)), torch.from_numpy(at).to(work.device)))
    return torch.cat(rows)


def _cut(
    opened: OpenExample, centre: tuple[int, int], work: Tuning, rng: np.random.Generator
) -> tuple[Tensor, NDArray[np.intp], NDArray[np.uint8]]:
    """A patch `(1, 3, p, p)` in other light as the encoder reads it, and `(n, 2)` painted pixels, labels."""
    example, statistics = opened.example, work.statistics
    affine = random_affine(rng, centre, PATCH_PX, work.augmentation)
    image, label_map = cut_patch(example.image, example.train_map, affine, PATCH_PX)
    light = draw_light(rng, statistics.n_channels, work.augmentation)
    values = torch.from_numpy(change_light(standardise(image, statistics.of(example.image.dtype)), light))
    patch = torch.einsum("hwc,kc->khw", values, torch.from_numpy(colours_of(statistics.n_channels)))[None]
    painted = np.argwhere(label_map != IGNORE_INDEX)
    at = painted[rng.permutation(len(painted))[:PIXELS]]
    return patch.contiguous(memory_format=torch.channels_last), at, label_map[at[:, 0], at[:, 1]]


def _loss_of(
    encoder: Encoder,
    head: _LearningHead,
    patch: Tensor,
    at: NDArray[np.intp],
    labels: NDArray[np.uint8],
    work: Tuning,
) -> Tensor:
    """Cross-entropy at painted pixels of a patch, in nats; classes count by `BALANCE`."""
    rows = _rows_at(encoder(patch.to(work.device)), torch.from_numpy(at).to(work.device))
    truth = torch.from_numpy(labels.astype(np.int64)).to(work.device)
    counts = torch.tensor(work.class_pixels, dtype=torch.float32, device=work.device).clamp_min(1.0)
    return F.cross_entropy(head.logits(rows), truth, weight=counts**-BALANCE)


def _rows_at(maps: Sequence[Tensor], at: Tensor) -> Tensor:
    """`(n, N_FEATURES)`: maps `(1, width, h, w)` of a patch, interpolated at `n` of its rows and columns."""
    place = 2 * (at.flip(1).float() + 0.5) / PATCH_PX - 1  # as grid_sample counts: x first, -1 to 1
    rows = [
        F.grid_sample(found, place[None, None], padding_mode="border", align_corners=False)[0, :, 0].T
        for found in maps
    ]
    return torch.cat(rows, dim=1)


def go_on_tuning(
    before: Tuned | None, head: Weights | None, work: Tuning, rng: np.random.Generator
) -> tuple[Tuned | None, int]:
    """Tune on from what was `before`, else from the shipped encoder and the tensors of a `head` on its maps.

    Neither may have seen the hold-out. Returns the result and its number of steps; without one what was
    before, and None where there was nothing.
    """
    if before is None and head is None:
        return None, 0
    start = before or Tuned(load_encoder().state_dict(), Head.from_tensors(head or {}))
    tuned, n_steps = tune(start, work, rng)
    return (tuned, n_steps) if n_steps else (before, 0)


def network_part(start: Checkpoint | None) -> float:
    """What the network gets of the time for it and the encoder, by what both count in a model.

    An encoder that counts nothing has learnt too little yet, so it is taken for one that counts.
    """
    if start is None:
        return 0.5
    tuned = start.shares[TUNED].weight if TUNED in start.shares else 0.0
    network = start.network_weight
    return min(max(network / (network + max(tuned, LEAST_COUNTED)), LEAST_PART), 1 - LEAST_PART)


def find_tuned(start: Checkpoint | None, schema: LabelSchema, n_channels: int) -> Tuned | None:
    """What a model has tuned, for the classes of a round; None where there is none, or for other channels."""
    if start is None or TUNED not in start.learners or start.statistics.n_channels != n_channels:
        return None
    tuned = Tuned.from_tensors(start.learners[TUNED])
    # Matched by name, as the network's: a class that is new is not answered until it was taught.
    outputs = {f"{OUTPUTS}.weight": tuned.head.out_kernel, f"{OUTPUTS}.bias": tuned.head.out_bias}
    conformed = conform_classes(outputs, start.schema.names, schema.names)
    head = replace(
        tuned.head, out_kernel=conformed[f"{OUTPUTS}.weight"], out_bias=conformed[f"{OUTPUTS}.bias"]
    )
    return replace(tuned, head=head)
