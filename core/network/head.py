"""A small head on the encoder's maps: one hidden layer, which knows a new kind of image within seconds.

It learns from the hypercolumns of painted pixels: all that the five maps say about one place. Its first
layer is linear, so an answer multiplies each map where it lives, and enlarges the sums alone.

References: Hariharan et al. 2015, "Hypercolumns", https://arxiv.org/abs/1411.5752
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from core.network.encoder import N_FEATURES, STRIDES, WIDTHS

HIDDEN = 128
DROPOUT = 0.5
BATCH_PX = 1024
PEAK_RATE = 3e-3
LOWEST_RATE = 0.02
"""Of the peak, at the end: the rate falls along a cosine."""
WEIGHT_DECAY = 1e-2
BETAS, SMALLEST_SPREAD = (0.9, 0.999), 1e-8
"""AdamW's usual decays, and what keeps its division finite."""

BALANCE = 1.0
"""Classes are drawn as often as their pixels to the power of 1 minus this: all equally often. Halfway to
as painted cost .065 where a class has one pixel in a hundred, and gained .024 where grey values decide."""

SMALLEST_DEVIATION = 1e-3

STRIP_PX = 8192
"""Places of the finest map that are answered together: 4 MB of the hidden layer. Twice and half as many take
as long; a whole tile takes three times as long."""


@dataclass(frozen=True)
class Head:
    """Layers that read hypercolumns as they are: the rows' mean and deviation are folded into the first one.

    Attributes
    ----------
    kernel : (HIDDEN, N_FEATURES), bias : (HIDDEN,)
    out_kernel : (n_classes, HIDDEN), out_bias : (n_classes,)
    """

    kernel: Tensor
    bias: Tensor
    out_kernel: Tensor
    out_bias: Tensor

    def __post_init__(self) -> None:
        n_classes = len(self.out_bias)
        shapes = [tuple(getattr(self, field.name).shape) for field in fields(self)]
        hidden = len(self.bias)
        if shapes != [(hidden, N_FEATURES), (hidden,), (n_classes, hidden), (n_classes,)]:
            raise ValueError(f"the layers of the head do not fit one another: {shapes}")

    def to_tensors(self) -> dict[str, Tensor]:
        """What safetensors can write."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Head:
        """Raises `ValueError` or `KeyError` where these are not the layers of a head."""
        return cls(**{field.name: tensors[field.name].float() for field in fields(cls)})

    def to(self, device: torch.device) -> Head:
        """The same head on a device."""
        return Head(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})

    def logits_of_rows(self, rows: Tensor) -> Tensor:
        """`(n, N_FEATURES)` hypercolumns to `(n, n_classes)` logits."""
        hidden = F.relu(F.linear(rows.float(), self.kernel, self.bias))
        return F.linear(hidden, self.out_kernel, self.out_bias)

    def logits_of_maps(self, maps: Sequence[Tensor]) -> Tensor:
        """The encoder's maps of a window to `(n_classes, H, W)` logits of its pixels."""
        kernels = [kernel[:, :, None, None] for kernel in torch.split(self.kernel, list(WIDTHS), dim=1)]
        (fine, *coarse), (fine_kernel, *coarse_kernels) = maps, kernels
        total: Tensor | None = None
        for features, kernel in list(zip(coarse, coarse_kernels, strict=True))[::-1]:  # coarse to fine
            here = F.conv2d(features.float()[None], kernel)
            total = here if total is None else here + _enlarge(total)
        assert total is not None, "the encoder has maps"  # noqa: S101
        total = total + self.bias[:, None, None]
        parts = [
            self._logits_of_sums(F.conv2d(strip.float()[None], fine_kernel) + enlarged)
            for strip, enlarged in _strips(fine, total)
        ]
        return _enlarge(torch.cat(parts, dim=2))[0]

    def _logits_of_sums(self, sums: Tensor) -> Tensor:
        return F.conv2d(F.relu(sums, inplace=True), self.out_kernel[:, :, None, None], self.out_bias)


def _strips(fine: Tensor, total: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows of the finest map, and the sums of the coarser ones enlarged to them, some at a time.

    What the hidden layer holds of a strip fits into a processor's cache: a third of the time.
    """
    is_traced = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    if fine.device.type != "cpu" or is_traced:  # a graph would repeat the strips of its example
        yield fine, _enlarge(total)
        return
    height = fine.shape[1]
    step = max(STRIP_PX // fine.shape[2] // 2 * 2, 2)
    for top in range(0, height, step):
        end = min(top + step, height)
        first = max(top // 2 - 1, 0)  # one row more on each side, from which the outermost ones are enlarged
        enlarged = _enlarge(total[:, :, first : end // 2 + 1])
        yield fine[:, top:end], enlarged[:, :, top - 2 * first : end - 2 * first]


def _enlarge(sums: Tensor) -> Tensor:
    """To twice the size: each map is half as large as the finer one."""
    return F.interpolate(sums, scale_factor=2, mode="bilinear", align_corners=False)


def train_head(
    rows: Tensor,
    labels: NDArray[np.uint8],
    n_classes: int,
    rng: np.random.Generator,
    progress: Callable[[int], float],
    batch_px: int = BATCH_PX,
) -> Head:
    """Learn from painted pixels until `progress(steps made)` reaches 1.

    Parameters
    ----------
    rows : (n, N_FEATURES) tensor
        Hypercolumns, as `hypercolumns` gives them; float16 is enough, and half the memory.
    labels : (n,) uint8
        Class indices below `n_classes`. A class without a pixel is never answered.
    batch_px : int
        Pixels that a step learns from.
    """
    mean, deviation = _measure(rows)
    classes = torch.from_numpy(labels.astype(np.int64))
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    layers = _first_layers(rows.shape[1], n_classes, generator)
    optimizer = _AdamW(layers)
    shares = _draw_shares(labels, n_classes)
    n_steps = 0
    while (done := progress(n_steps)) < 1:
        drawn = torch.multinomial(shares, batch_px, replacement=True, generator=generator)
        standard = (
            rows[drawn].float() - mean
        ) / deviation  # not of all: they are the largest array of a draft
        loss = F.cross_entropy(logits_with_dropout(standard, layers, generator), classes[drawn])
        optimizer.step(torch.autograd.grad(loss, layers), PEAK_RATE * _fall(done))
        n_steps += 1
    kernel, bias, out_kernel, out_bias = (layer.detach() for layer in layers)
    folded = kernel / deviation
    unseen = torch.bincount(classes, minlength=n_classes) == 0
    return Head(folded, bias - folded @ mean, out_kernel, out_bias.masked_fill(unseen, UNSEEN_BIAS))


MEASURED_TOGETHER = 64
"""Columns whose mean is found at once: all of them as float32 would be twice the rows."""


def _measure(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each column."""
    parts = (part.float() for part in torch.split(rows, MEASURED_TOGETHER, dim=1))
    means, deviations = zip(*((part.mean(0), part.std(0)) for part in parts), strict=True)
    return torch.cat(means), torch.cat(deviations) + SMALLEST_DEVIATION


UNSEEN_BIAS = -30.0
"""Logit of a class that nobody painted."""


class _AdamW:
    """AdamW for a few tensors: torch's own takes two seconds to import, which a draft does not have.

    References: Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101
    """

    def __init__(self, layers: Sequence[Tensor]) -> None:
        self._layers = layers
        self._means = [torch.zeros_like(layer) for layer in layers]
        self._squares = [torch.zeros_like(layer) for layer in layers]
        self._n_steps = 0

    def step(self, gradients: Sequence[Tensor], rate: float) -> None:
        self._n_steps += 1
        first, second = (1 - beta**self._n_steps for beta in BETAS)
        parts = zip(self._layers, gradients, self._means, self._squares, strict=True)
        with torch.no_grad():
            for layer, gradient, mean, square in parts:
                mean.lerp_(gradient, 1 - BETAS[0])
                square.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
                layer.mul_(1 - rate * WEIGHT_DECAY)
                spread = (square / second).sqrt_().add_(SMALLEST_SPREAD)
                layer.addcdiv_(mean, spread, value=-rate / first)


def hypercolumns(maps: Sequence[Tensor], rows: NDArray[np.integer], columns: NDArray[np.integer]) -> Tensor:
    """`(n, N_FEATURES)` float16: the maps of a window, interpolated at `n` of its pixels, on the processor.

    Examples
    --------
    >>> maps = [torch.ones(w, 32 // s, 64 // s, dtype=torch.half) for w, s in zip(WIDTHS, STRIDES)]
    >>> hypercolumns(maps, np.array([0, 31]), np.array([5, 63])).shape
    torch.Size([2, 512])
    """
    return torch.cat(
        [
            _interpolated(features, rows, columns, stride)
            for features, stride in zip(maps, STRIDES, strict=True)
        ],
        dim=1,
    ).cpu()


def _interpolated(
    found: Tensor, rows: NDArray[np.integer], columns: NDArray[np.integer], stride: int
) -> Tensor:
    """`(n, width)` values of a map at pixels, as `F.interpolate` would enlarge it."""
    (top, bottom, down), (left, right, along) = (
        [part.to(found.device) for part in _neighbours(at, stride, length)]
        for at, length in zip((rows, columns), found.shape[1:], strict=True)
    )
    corners = [found[:, y, x].float() for y in (top, bottom) for x in (left, right)]
    above = corners[0] * (1 - along) + corners[1] * along
    below = corners[2] * (1 - along) + corners[3] * along
    return (above * (1 - down) + below * down).T.half()


def _neighbours(at: NDArray[np.integer], stride: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """The cells before and after each pixel, and how far it is from the first one, 0..1."""
    place = torch.from_numpy((at.astype(np.float32) + 0.5) / stride - 0.5).clamp(0, length - 1)
    before = place.floor().long()
    return before, (before + 1).clamp(max=length - 1), place - before


def _first_layers(n_features: int, n_classes: int, generator: torch.Generator) -> list[Tensor]:
    """He-normal hidden units, and outputs that start undecided."""
    kernel = torch.randn(HIDDEN, n_features, generator=generator) * math.sqrt(2 / n_features)
    layers = [kernel, torch.zeros(HIDDEN), torch.zeros(n_classes, HIDDEN), torch.zeros(n_classes)]
    return [layer.requires_grad_() for layer in layers]


def _draw_shares(labels: NDArray[np.uint8], n_classes: int) -> Tensor:
    """How probable it is to draw each pixel: classes are balanced."""
    counts = np.maximum(np.bincount(labels, minlength=n_classes), 1)
    return torch.from_numpy((counts ** -float(BALANCE))[labels].astype(np.float32))


def logits_with_dropout(rows: Tensor, layers: Sequence[Tensor], generator: torch.Generator) -> Tensor:
    """Logits with part of the hidden units left out at random; `layers` are those of a head, in its order."""
    kernel, bias, out_kernel, out_bias = layers
    hidden = F.relu(F.linear(rows, kernel, bias))
    kept = (torch.rand(hidden.shape, generator=generator) >= DROPOUT).to(hidden.device)
    return F.linear(hidden * kept / (1 - DROPOUT), out_kernel, out_bias)


def _fall(done: float) -> float:
    return LOWEST_RATE + (1 - LOWEST_RATE) * (1 + math.cos(math.pi * done)) / 2
