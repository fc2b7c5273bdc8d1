"""The pretrained encoder: EfficientNet-lite0, in plain torch, with weights that lie beside this file.

It has seen the million photographs of ImageNet, and never learns here. Batch normalisation is folded into the
convolutions, and the classifier is left out. `core.pretraining.convert_encoder` made the weights.

References: Tan & Le 2019, "EfficientNet", https://arxiv.org/abs/1905.11946; "EfficientNet-Lite" is the same
without squeeze-and-excitation and with ReLU6.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from core.errors import CheckpointError
from core.network.outputs import Weights
from core.network.regular_files import read_regular

FOLDER = Path(__file__).parent / "encoder_weights"
WEIGHTS_FILE, CARD_FILE = "weights.safetensors", "card.json"

IN_CHANNELS = 3
STEM_WIDTH = 32
LARGEST_ACTIVATION = 6.0


@dataclass(frozen=True)
class Stage:
    """Blocks of one width; the first of them has the stride. Each is `expand` times wider inside."""

    n_blocks: int
    kernel_px: int
    stride: int
    expand: int
    width: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)

TAPS = (0, 2, 4, 10, 15)
"""Blocks whose outputs are the feature maps: the last ones before the next stride."""

WIDTHS = (16, 24, 40, 112, 320)
STRIDES = (2, 4, 8, 16, 32)
STRIDE = STRIDES[-1]
"""The encoder reads windows whose sides are multiples of this."""

N_FEATURES = sum(WIDTHS)
"""Numbers that all maps together hold for a pixel: its hypercolumn."""


class Encoder(nn.Module):
    """`(N, 3, H, W)` standardised float image to maps `(N, WIDTHS[i], H / STRIDES[i], …)`, finest first."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(IN_CHANNELS, STEM_WIDTH, 3, stride=2)
        self.blocks = nn.ModuleList()
        width = STEM_WIDTH
        for stage in STAGES:
            for number in range(stage.n_blocks):
                stride = stage.stride if number == 0 else 1
                self.blocks.append(_Block(width, stage, stride))
                width = stage.width

    def forward(self, x: Tensor) -> list[Tensor]:
        x = _relu6(_convolve(self.stem, x))
        maps = []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in TAPS:
                maps.append(x)
        return maps


class _Block(nn.Module):
    """Widens pixels, convolves channel by channel, narrows, and adds to what came in where that fits."""

    def __init__(self, c_in: int, stage: Stage, stride: int) -> None:
        super().__init__()
        inside = c_in * stage.expand
        self.expand = nn.Conv2d(c_in, inside, 1) if stage.expand > 1 else None
        self.depthwise = nn.Conv2d(inside, inside, stage.kernel_px, stride=stride, groups=inside)
        self.project = nn.Conv2d(inside, stage.width, 1)
        self.adds = c_in == stage.width and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else _relu6(self.expand(x))
        y = _relu6(_convolve(self.depthwise, y))
        narrow: Tensor = self.project(y)
        return x + narrow if self.adds else narrow


def _convolve(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """Pad as TensorFlow does, where the weights were trained: with a stride, more at the end."""
    kernel, stride = layer.kernel_size[0], layer.stride[0]
    total = kernel - stride
    before = total // 2
    if total % 2:
        x, before = F.pad(x, (before, total - before, before, total - before)), 0
    return F.conv2d(x, layer.weight, layer.bias, layer.stride, before, groups=layer.groups)


def _relu6(x: Tensor) -> Tensor:
    return x.clamp_(0.0, LARGEST_ACTIVATION)


@lru_cache(maxsize=1)
def load_encoder() -> Encoder:
    """The shipped encoder in float32 on the processor, ready to answer; one for the whole process.

    Raises
    ------
    CheckpointError
        The weights are missing, or are not the ones of their card.
    """
    try:
        raw = read_regular(FOLDER / WEIGHTS_FILE)
        card = json.loads(read_regular(FOLDER / CARD_FILE).decode())
        weights = load(raw)
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"cannot read the encoder's weights: {error}") from error
    if hashlib.sha256(raw).hexdigest() != card["weights_sha256"]:
        raise CheckpointError("the encoder's weights are not the ones of their card")
    return build_encoder(weights)


def build_encoder(weights: Mapping[str, Tensor]) -> Encoder:
    """An encoder with some weights, of any precision."""
    with torch.device("meta"):
        encoder = Encoder()
    exact: Weights = {name: tensor.float() for name, tensor in weights.items()}
    encoder.load_state_dict(exact, assign=True)
    return encoder.to(memory_format=torch.channels_last).requires_grad_(False).eval()  # type: ignore[call-overload, no-any-return]


@lru_cache(maxsize=1)
def encoder_digest() -> str:
    """The first digits of the weights' sha256: feature maps of other weights have another name."""
    card = json.loads((FOLDER / CARD_FILE).read_text(encoding="utf-8"))
    return str(card["weights_sha256"])[:16]


def colours_of(n_channels: int) -> NDArray[np.float32]:
    """How the channels of an image become the encoder's three: a `(3, n_channels)` matrix.

    Grey is repeated, and colours stay. Two channels are followed by their mean. Of more than three, every
    third one is averaged, scaled so that independent channels keep a deviation of one: no channel is lost.

    Examples
    --------
    >>> colours_of(1).tolist()
    [[1.0], [1.0], [1.0]]
    >>> colours_of(2).tolist()
    [[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]
    >>> (colours_of(5) > 0).astype(int).tolist()
    [[1, 0, 0, 1, 0], [0, 1, 0, 0, 1], [0, 0, 1, 0, 0]]
    """
    if n_channels == 1:
        return np.ones((IN_CHANNELS, 1), np.float32)
    if n_channels == 2:
        return np.array([[1, 0], [0, 1], [0.5, 0.5]], np.float32)
    chosen = np.arange(n_channels)[None] % IN_CHANNELS == np.arange(IN_CHANNELS)[:, None]
    return np.asarray(chosen / np.sqrt(chosen.sum(1, keepdims=True)), np.float32)
