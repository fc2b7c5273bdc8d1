"""A model without training whose answers can be told in advance: what is bright is a nucleus."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from core.network.checkpoint import Checkpoint, save_checkpoint
from core.network.pixels import PixelStatistics
from core.network.unet import build_architecture, initial_weights
from core.schema import LabelSchema

SCHEMA = LabelSchema.of("Background", "Nucleus")


def bright_is_nucleus() -> Checkpoint:
    """A network whose every weight is zero but those that tell bright pixels from dark ones."""
    architecture = build_architecture(1, 2, (2, 4))
    drawn = initial_weights(architecture, np.random.default_rng(0))
    weights = {name: torch.zeros_like(tensor) for name, tensor in drawn.items()}
    weights["detail.weight"][0, 0, 1, 1] = 1
    weights["head.weight"][1, 0] = 10
    weights["head.bias"][1] = -5
    return Checkpoint(SCHEMA, architecture, weights, PixelStatistics((100.0,), (50.0,)))


def save_bright_model(folder: Path) -> Path:
    return save_checkpoint(bright_is_nucleus(), folder / "r0001-0a1b2c3d")


def squares(n_squares: int = 2) -> NDArray[np.uint8]:
    """Dark, with bright squares of 20 px in a row."""
    image = np.zeros((60, 40 * n_squares + 10), np.uint8)
    for index in range(n_squares):
        image[10:30, 10 + 40 * index : 30 + 40 * index] = 250
    return image
