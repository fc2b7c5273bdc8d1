"""The levels of a U-Net, which both of our networks are made of, whatever their images look like."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.network.outputs import Network

BLOCK_REACH_PX = 2
"""How far two 3 x 3 convolutions reach, in pixels of their level."""


class Block(nn.Module):
    """Two 3 x 3 convolutions, each followed by a rectifier: (N, c_in, H, W) to (N, c_out, H, W)."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.second = nn.Conv2d(c_out, c_out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x), inplace=True)
        return F.relu(self.second(x), inplace=True)


class Levels(Network):
    """The U-Net proper, over an image of whatever resolution.

    References: Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597
    """

    def add_levels(self, n_read: int, widths: Sequence[int]) -> None:
        """Add the layers of each level; the first one reads `n_read` channels."""
        inputs = [n_read, *widths[:-1]]
        self.encoder = nn.ModuleList(Block(a, b) for a, b in zip(inputs, widths, strict=True))
        deep_to_shallow = list(zip(widths[1:], widths[:-1], strict=True))[::-1]
        # Narrowing before enlarging makes the most expensive level a third cheaper.
        self.narrow = nn.ModuleList(nn.Conv2d(deep, shallow, 1) for deep, shallow in deep_to_shallow)
        self.decoder = nn.ModuleList(Block(2 * shallow, shallow) for _, shallow in deep_to_shallow)

    def context(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`(N, n_read, H, W)` to `(N, widths[0], H, W)`, and the deepest level."""
        skips = []
        for level, block in enumerate(self.encoder):
            x = block(F.max_pool2d(x, 2) if level else x)
            skips.append(x)
        deepest = skips.pop()
        for narrow, block in zip(self.narrow, self.decoder, strict=True):
            enlarged = F.interpolate(narrow(x), scale_factor=2, mode="bilinear", align_corners=False)
            x = block(torch.cat([enlarged, skips.pop()], dim=1))
        return x, deepest
