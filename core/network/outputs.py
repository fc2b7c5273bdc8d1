"""What every network ends in: features at full resolution, one output per class, and one for the outlines."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Weights = dict[str, Tensor]
"""Parameter name to tensor, as `nn.Module.state_dict` gives it."""

DETAIL_WIDTH = 16
"""Channels at full resolution, which the outputs are read from."""

HEAD = "head"
"""Name prefix of the only layer whose rows belong to classes."""

OUTLINE = "outline"
"""Name prefix of the layer that answers whether a pixel is at the rim of an object."""


class Network(nn.Module, ABC):
    """`(N, C, H, W)` standardised float image to `(N, n_classes + 1, H, W)` logits.

    The last output belongs to no class: it says whether a pixel of an object is at its rim.

    `initialised` holds name prefixes of parameters that are built with their first values.
    """

    initialised: tuple[str, ...] = ()

    head: nn.Conv2d
    outline: nn.Conv2d

    def add_outputs(self, n_classes: int) -> None:
        """Add the layers that read `features`; called last, so that they are the last parameters."""
        self.head = nn.Conv2d(DETAIL_WIDTH, n_classes, 1)
        self.outline = nn.Conv2d(DETAIL_WIDTH, 1, 1)

    @abstractmethod
    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`(N, DETAIL_WIDTH, H, W)`, what the outputs read, and `(N, D, h, w)`, the encoder's deepest."""

    def features(self, x: Tensor) -> Tensor:
        """`(N, DETAIL_WIDTH, H, W)`: what the outputs read."""
        return self.encode(x)[0]

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.features(x))

    def read(self, features: Tensor) -> Tensor:
        """`(N, n_classes + 1, H, W)` logits of what `features` gave."""
        # One product for both outputs.
        kernel = torch.cat([self.head.weight, self.outline.weight])
        bias = torch.cat([self.head.bias, self.outline.bias])  # type: ignore[list-item]
        return F.conv2d(features, kernel, bias)
