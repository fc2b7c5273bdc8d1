"""The weights that a project's first round starts from; `core.pretrain` made them from drawn images.

They know things from what is around them in general, and no class in particular: a project's Background
starts as "around", each of its other classes as "thing", and the first round teaches the difference.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import torch
from safetensors.torch import load_file

from core.model import Weights, copy_weights
from core.schema import LabelSchema

FOLDER = Path(__file__).parent / "base"
WEIGHTS_FILE, CARD_FILE = "weights.safetensors", "card.json"

OBJECT_ROWS = 2
"""Outputs of the base network: what is around things, and things."""


def base_widths() -> tuple[int, ...]:
    """Channels per level of the shipped weights; a network of another shape cannot start from them."""
    card = json.loads((FOLDER / CARD_FILE).read_text(encoding="utf-8"))
    return tuple(card["widths"])


@lru_cache(maxsize=1)
def load_base() -> Weights:
    """Read the weights as shipped: three input channels, `OBJECT_ROWS` outputs. Not to be changed."""
    return load_file(FOLDER / WEIGHTS_FILE)


def base_for(schema: LabelSchema) -> Weights:
    """Copy the base weights with one output row per class of `schema`; still three input channels.

    Examples
    --------
    >>> base_for(LabelSchema.of("Background", "Nucleus", "Debris"))["head.bias"].shape
    torch.Size([3])
    """
    weights = load_base()
    rows = torch.tensor([0 if label.role == "background" else 1 for label in schema.classes])
    return copy_weights(
        {n: tensor[rows] if n.startswith("head.") else tensor for n, tensor in weights.items()}
    )
