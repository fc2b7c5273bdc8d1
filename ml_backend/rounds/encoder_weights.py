"""Published weights of a timm encoder, downloaded once, and only because `ENCODER_WEIGHTS` asks for them."""

from __future__ import annotations

from pathlib import Path

import httpx
import numpy as np

from core.errors import CheckpointError, MachineError
from core.network.base_weights import OBJECT_ROWS, fits_base, load_base, save_base
from core.network.timm_network import ENCODER_CHANNELS, build_timm_architecture, create_encoder
from core.network.unet import initial_weights
from ml_backend.config import Settings
from ml_backend.processes.scratch import remove


def find_encoder_base(settings: Settings) -> Path | None:
    """Where the base weights around a pretrained encoder belong, or None where none is asked for."""
    if not settings.encoder or settings.encoder_weights != "pretrained":
        return None
    return settings.data_dir / "encoders" / settings.encoder.replace("/", "_")


def fetch_encoder(settings: Settings) -> None:
    """Have the pretrained encoder that the settings ask for on disk, as base weights that rounds start from.

    Raises
    ------
    EncoderError
        timm is not installed or does not know the encoder.
    MachineError
        The weights could not be downloaded.
    """
    folder = find_encoder_base(settings)
    if folder is None or _is_readable(folder):
        return
    architecture = build_timm_architecture(settings.encoder, ENCODER_CHANNELS, OBJECT_ROWS)
    try:
        encoder = create_encoder(settings.encoder, architecture["stages"], is_pretrained=True)
    except (OSError, httpx.HTTPError) as error:
        raise MachineError(f"the weights of {settings.encoder!r} could not be downloaded: {error}") from error
    remove(folder)
    learnt = {f"encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}
    weights = initial_weights(architecture, np.random.default_rng(0)) | learnt
    save_base(folder, architecture, weights, {"made_from": f"timm's published weights of {settings.encoder}"})


def _is_readable(folder: Path) -> bool:
    """Whether the weights can be used; damaged ones are downloaded again."""
    try:
        return bool(load_base(folder)) and fits_base({}, folder)
    except CheckpointError:
        return False
