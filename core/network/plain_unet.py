"""The network of checkpoints of format 1, so that what an earlier version trained still answers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from core.network.levels import Levels

NO_RIM = -20.0
"""A logit whose probability is nothing."""


class PlainUNet(Levels):
    """The U-Net of checkpoints of format 1: the image as it is, and no outlines."""

    def __init__(self, in_channels: int, n_classes: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.add_levels(in_channels, widths)
        self.head = nn.Conv2d(widths[0], n_classes, 1)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`(N, widths[0], H, W)`, what the head reads, and `(N, widths[-1], h, w)`, the deepest level."""
        return self.context(x)

    def read(self, features: Tensor) -> Tensor:
        """`(N, n_classes + 1, H, W)` logits; that of the outlines says that no pixel is at a rim."""
        classes = self.head(features)
        return torch.cat([classes, torch.full_like(classes[:, :1], NO_RIM)], dim=1)
