"""What a project's first round starts from: weights that `core.pretraining` made from drawn images.

They know things from what is around them in general, and no class in particular: a project's Background
starts as "around", each of its other classes as "thing", and the first round teaches the difference.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from core.errors import CheckpointError
from core.network.outputs import Weights
from core.network.regular_files import check_regular, read_regular
from core.network.unet import copy_weights
from core.schema import LabelSchema

FOLDER = Path(__file__).parent / "base"
WEIGHTS_FILE, CARD_FILE = "weights.safetensors", "card.json"

OBJECT_ROWS = 2
"""Outputs of the base network: what is around things, and things."""

CHANGEABLE = ("in_channels", "n_classes")
"""What base weights are conformed to, by `core.network.unet.conform_channels` and `base_for`."""


def fits_base(architecture: Mapping[str, Any], folder: Path | None = None) -> bool:
    """Whether a network can start from some base weights; its channels and classes may be others."""
    card = _read_card(folder or FOLDER)
    return all(card.get(name) == value for name, value in architecture.items() if name not in CHANGEABLE)


@lru_cache(maxsize=1)
def load_base(folder: Path | None = None) -> Weights:
    """Read the shipped weights or others: three input channels, `OBJECT_ROWS` outputs. Not to be changed.

    Raises
    ------
    CheckpointError
        The folder holds no weights.
    """
    path = (folder or FOLDER) / WEIGHTS_FILE
    try:
        check_regular(path)
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot read the base weights {path.name}: {error}") from error


def save_base(
    folder: Path, architecture: Mapping[str, Any], weights: Weights, made: Mapping[str, Any]
) -> None:
    """Write base weights with a card that says how they were `made`; the folder appears whole or not."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        save_file(copy_weights(weights), unfinished / WEIGHTS_FILE)
        card = json.dumps({**architecture, **made}, indent=1) + "\n"
        (unfinished / CARD_FILE).write_text(card, encoding="utf-8")
        unfinished.chmod(0o755)  # mkdtemp hides its folder from other users; web and worker may be two
        if folder.exists():
            shutil.rmtree(folder)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def base_for(schema: LabelSchema, folder: Path | None = None) -> Weights:
    """Copy the base weights with one output row per class of `schema`; still three input channels.

    Examples
    --------
    >>> base_for(LabelSchema.of("Background", "Nucleus", "Debris"))["head.bias"].shape
    torch.Size([3])
    """
    weights = load_base(folder)
    rows = torch.tensor([0 if label.role == "background" else 1 for label in schema.classes])
    return copy_weights(
        {n: tensor[rows] if n.startswith("head.") else tensor for n, tensor in weights.items()}
    )


def _read_card(folder: Path) -> dict[str, Any]:
    try:
        card = json.loads(read_regular(folder / CARD_FILE).decode())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read the card of the base weights: {error}") from error
    return dict(card)
