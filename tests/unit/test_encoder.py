"""The pretrained encoder: what its card says, what it sees, and which channels it is shown."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from core.errors import CheckpointError
from core.network import encoder
from core.network.encoder import CARD_FILE, FOLDER, STRIDES, WEIGHTS_FILE, WIDTHS, colours_of, load_encoder
from core.pretraining.convert_encoder import BATCH_NORM_EPSILON, convert, fold_weights

MEBIBYTE = 2**20


def test_the_weights_are_small_and_their_card_names_source_licence_and_checksum() -> None:
    card = json.loads((FOLDER / CARD_FILE).read_text())
    assert (FOLDER / WEIGHTS_FILE).stat().st_size < 20 * MEBIBYTE
    assert "Apache-2.0" in card["licence"]
    assert "0.1.0" in card["source"]
    assert encoder.encoder_digest() == card["weights_sha256"][:16]


def test_weights_that_are_not_those_of_the_card_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = bytearray((FOLDER / WEIGHTS_FILE).read_bytes())
    raw[-1] ^= 1
    (tmp_path / WEIGHTS_FILE).write_bytes(raw)
    (tmp_path / CARD_FILE).write_text((FOLDER / CARD_FILE).read_text())
    monkeypatch.setattr(encoder, "FOLDER", tmp_path)
    with pytest.raises(CheckpointError, match="card"):
        load_encoder.__wrapped__()


def test_the_maps_have_the_stated_widths_and_strides() -> None:
    with torch.inference_mode():
        maps = load_encoder()(torch.zeros(1, 3, 64, 96))
    assert [tuple(found.shape[1:]) for found in maps] == [
        (width, 64 // stride, 96 // stride) for width, stride in zip(WIDTHS, STRIDES, strict=True)
    ]


def test_the_deep_maps_tell_textures_apart_whatever_their_place() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(4, 96, 96)).astype(np.float32)
    stripes = np.broadcast_to(np.sin(np.arange(96) / 2), (4, 96, 96)) + noise / 10
    batch = torch.from_numpy(np.concatenate([noise, stripes]).astype(np.float32))[:, None].repeat(1, 3, 1, 1)
    with torch.inference_mode():
        deepest = load_encoder()(batch)[-1].mean((2, 3))
    unit = nn.functional.normalize(deepest - deepest.mean(0))
    alike = (unit @ unit.T).numpy()
    assert alike[:4, :4].min() > alike[:4, 4:].max()


def test_folding_a_normalisation_changes_no_answer(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    convolution, norm = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4, eps=BATCH_NORM_EPSILON)
    source = {
        "_conv_stem.weight": convolution.weight.detach(),
        **{f"_bn0.{name}": torch.rand(4, generator=generator) + 0.5 for name in ("weight", "running_var")},
        **{f"_bn0.{name}": torch.randn(4, generator=generator) for name in ("bias", "running_mean")},
    }
    norm.load_state_dict({name[5:]: value for name, value in source.items() if "_bn0" in name}, strict=False)
    source |= {
        "_blocks.0._project_conv.weight": torch.ones(1, 1, 1, 1),
        **{f"_blocks.0._bn2.{name}": torch.ones(1) for name in ("weight", "bias", "running_mean")},
        "_blocks.0._bn2.running_var": torch.ones(1),
    }
    folded = fold_weights(source)
    image = torch.randn(1, 3, 8, 8, generator=generator)
    answer = nn.functional.conv2d(image, folded["stem.weight"].float(), folded["stem.bias"].float())
    assert torch.allclose(answer, norm.eval()(convolution(image)), atol=1e-2)
    torch.save(source, tmp_path / "published.pth")
    convert(tmp_path / "published.pth", tmp_path / "ours")
    assert json.loads((tmp_path / "ours" / CARD_FILE).read_text())["weights_sha256"]


@pytest.mark.parametrize("n_channels", [1, 2, 3, 4, 5, 12])
def test_every_channel_reaches_the_encoder(n_channels: int) -> None:
    matrix = colours_of(n_channels)
    assert matrix.shape == (3, n_channels)
    assert (matrix.sum(0) > 0).all()


def test_colours_are_shown_as_they_are() -> None:
    assert (colours_of(3) == np.eye(3)).all()
