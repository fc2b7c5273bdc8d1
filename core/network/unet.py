"""The network: a small U-Net on the raw image, described by a plain dict and addressed by class name.

It has no normalisation layers: inputs are standardised once for the whole project, and layers that
scale every image by itself would throw away the brightness that tells the classes apart. Its deep part
reads the image folded two by two into channels, which costs half the time of full resolution; a single
layer at full resolution keeps the borders sharp.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.network.levels import BLOCK_REACH_PX, Levels
from core.network.outputs import DETAIL_WIDTH, HEAD, OUTLINE, Network, Weights
from core.network.plain_unet import PlainUNet
from core.network.timm_network import KIND, build_timm_network, margin_of_timm, stride_of_timm

DEFAULT_WIDTHS = (32, 64, 128)
"""Channels per level, from half resolution on."""

FOLD_PX = 2
"""Pixels of a side that are folded into the channels of one, before the first level."""

PLAIN = "plain_unet"
"""Kind of the network of checkpoints of format 1. It answers, and no round goes on from it."""


def build_architecture(
    in_channels: int, n_classes: int, widths: Sequence[int] = DEFAULT_WIDTHS
) -> dict[str, Any]:
    """Describe a network as plain JSON values.

    Examples
    --------
    >>> build_architecture(3, 2)
    {'kind': 'unet', 'in_channels': 3, 'n_classes': 2, 'widths': [32, 64, 128]}
    """
    return {"kind": "unet", "in_channels": in_channels, "n_classes": n_classes, "widths": list(widths)}


def stride_of(architecture: Mapping[str, Any]) -> int:
    """Pixels of the image per pixel of the deepest level; image sides must be multiples of it.

    >>> stride_of(build_architecture(3, 2))
    8
    """
    if architecture["kind"] == KIND:
        return stride_of_timm(architecture)
    return int(_fold_of(architecture) * 2 ** (len(architecture["widths"]) - 1))


def _fold_of(architecture: Mapping[str, Any]) -> int:
    return 1 if architecture["kind"] == PLAIN else FOLD_PX


def receptive_margin_px(architecture: Mapping[str, Any]) -> int:
    """How far away, at most, an input pixel can change an output pixel, in px, rounded up to the stride.

    For a network around a timm encoder it is a stated distance, see `core.network.timm_network.MARGIN_PX`.

    Follows the interval of pixels that one output pixel reads back to the input, for every position
    of that pixel within the stride.

    >>> receptive_margin_px(build_architecture(3, 2))
    56
    """
    if architecture["kind"] == KIND:
        return margin_of_timm(architecture)
    stride, depth, fold_px = stride_of(architecture), len(architecture["widths"]), _fold_of(architecture)
    reach = 0
    for position in range(stride):
        folded = position // fold_px
        low, high = _interval_read(folded, folded, level=0, depth=depth)
        reach = max(reach, position - fold_px * low, fold_px * high + fold_px - 1 - position)
    return math.ceil(reach / stride) * stride


def _interval_read(low: int, high: int, level: int, depth: int) -> tuple[int, int]:
    """First and last folded pixel that outputs `low..high` of a level depend on."""
    if level == depth - 1:
        return _encoder_interval(low, high, level)
    low, high = low - BLOCK_REACH_PX, high + BLOCK_REACH_PX
    # The decoder reads the skip at `low..high`, and bilinear enlargement the level below.
    below = _interval_read((low - 1) // 2, (high + 1) // 2, level + 1, depth)
    skip = _encoder_interval(low, high, level)
    return min(below[0], skip[0]), max(below[1], skip[1])


def _encoder_interval(low: int, high: int, level: int) -> tuple[int, int]:
    """The same for outputs of the encoder's block at `level`: two convolutions, then un-pooling."""
    for remaining in range(level, -1, -1):
        low, high = low - BLOCK_REACH_PX, high + BLOCK_REACH_PX
        if remaining:
            low, high = 2 * low, 2 * high + 1
    return low, high


def build_network(architecture: Mapping[str, Any], seed: int = 0) -> Network:
    """Build the network that an architecture describes, without drawing from torch's global generator.

    Its weights are to be loaded; only those that `Network.initialised` names have first values, from `seed`.

    Raises
    ------
    EncoderError
        The architecture needs an encoder of timm's that cannot be had.
    """
    if architecture["kind"] == KIND:
        network: Network = build_timm_network(architecture, seed)
    else:
        kind = PlainUNet if architecture["kind"] == PLAIN else UNet
        with torch.device("meta"):
            network = kind(architecture["in_channels"], architecture["n_classes"], architecture["widths"])
        network.to_empty(device="cpu")
    for parameter in network.parameters():
        if parameter.ndim == 4:  # the memory format that convolutions on processors are fastest in
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network


def initial_weights(architecture: Mapping[str, Any], rng: np.random.Generator) -> Weights:
    """Draw fresh weights: He-normal convolutions, zero biases, a head that starts undecided.

    References: He et al. 2015, "Delving deep into rectifiers", https://arxiv.org/abs/1502.01852
    """
    seed = int(rng.integers(2**31))
    generator = torch.Generator().manual_seed(seed)
    network = build_network(architecture, seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.startswith(network.initialised):
                continue
            if name.startswith((HEAD, OUTLINE)) or parameter.ndim == 1:
                parameter.zero_()
            else:
                nn.init.kaiming_normal_(parameter, nonlinearity="relu", generator=generator)
    return copy_weights(network.state_dict())


def copy_weights(weights: Mapping[str, Tensor]) -> Weights:
    """An independent, contiguous copy, e.g. of weights that training goes on changing."""
    return {name: tensor.detach().to("cpu").clone().contiguous() for name, tensor in weights.items()}


def conform_classes(weights: Mapping[str, Tensor], old: Sequence[str], new: Sequence[str]) -> Weights:
    """Rearrange the head's rows from the classes `old` to the classes `new`, matched by name.

    A kept class keeps its row bit for bit. A class that is new starts with a row of zeros and a bias
    one below the lowest one: it claims no pixel until it was taught, so the old classes' answers stay.

    Examples
    --------
    >>> w = {"head.weight": torch.ones(1, 4, 1, 1), "head.bias": torch.tensor([2.0])}
    >>> conform_classes(w, ["Nucleus"], ["Background", "Nucleus"])["head.bias"].tolist()
    [1.0, 2.0]
    """
    kernel, bias = weights[f"{HEAD}.weight"], weights[f"{HEAD}.bias"]
    row_of = {name: row for row, name in enumerate(old)}
    rows = [row_of.get(name) for name in new]
    new_kernel = torch.zeros(len(new), *kernel.shape[1:])
    new_bias = torch.full((len(new),), float(bias.min()) - 1.0)
    for position, row in enumerate(rows):
        if row is not None:
            new_kernel[position], new_bias[position] = kernel[row], bias[row]
    return {**copy_weights(weights), f"{HEAD}.weight": new_kernel, f"{HEAD}.bias": new_bias}


def conform_channels(weights: Mapping[str, Tensor], in_channels: int) -> Weights:
    """Change how many input channels the first layer reads, keeping its answer to grey images.

    Each new channel gets an equal part of the old channels' sum, so an image whose channels are all
    equal is answered as before.
    """

    def share(kernel: Tensor) -> Tensor:
        return kernel.sum(1, keepdim=True).repeat(1, in_channels, 1, 1, 1) / in_channels

    return _change_readers(weights, share, in_channels)


def widen_channels(weights: Mapping[str, Tensor], in_channels: int) -> Weights:
    """Let the first layer read more input channels, keeping its answer to the images that it knows.

    What read grey images reads the mean of all channels; what read several goes on reading them, and has no
    opinion of those that come behind.
    """

    def pad(kernel: Tensor) -> Tensor:
        return F.pad(kernel, (0,) * 6 + (0, in_channels - kernel.shape[1]))

    if _channels_of(weights) == 1:
        return conform_channels(weights, in_channels)
    return _change_readers(weights, pad, in_channels)


READERS = {"encoder.0.first.weight": FOLD_PX**2, "entry.weight": 1, "detail.weight": 1}
"""Layers that read the image, by name, and the pixels that are folded into one of theirs."""


def _change_readers(
    weights: Mapping[str, Tensor], change: Callable[[Tensor], Tensor], in_channels: int
) -> Weights:
    """Change each kernel `(out, channels, of a fold, h, w)` that does not read `in_channels` already."""
    adapted = copy_weights(weights)
    for name, folded_px in READERS.items():
        if name in weights:
            flat = weights[name]
            kernel = flat.reshape(len(flat), -1, folded_px, *flat.shape[2:])
            if kernel.shape[1] != in_channels:
                adapted[name] = change(kernel).flatten(1, 2).contiguous()
    return adapted


def _channels_of(weights: Mapping[str, Tensor]) -> int:
    return int(weights["detail.weight"].shape[1])


class UNet(Levels):
    """A U-Net on the folded image, and one layer at full resolution.

    References: Shi et al. 2016 for folding pixels into channels and back, https://arxiv.org/abs/1609.05158
    """

    def __init__(self, in_channels: int, n_classes: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.add_levels(in_channels * FOLD_PX**2, widths)
        self.unfold = nn.Conv2d(widths[0], DETAIL_WIDTH * FOLD_PX**2, 1)
        self.detail = nn.Conv2d(in_channels, DETAIL_WIDTH, 3, padding=1)
        self.add_outputs(n_classes)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`(N, DETAIL_WIDTH, H, W)`, what the outputs read, and `(N, widths[-1], h, w)`, the deepest."""
        around, deepest = self.context(F.pixel_unshuffle(x, FOLD_PX))
        context = F.pixel_shuffle(self.unfold(around), FOLD_PX)
        return F.relu(context + self.detail(x), inplace=True), deepest
