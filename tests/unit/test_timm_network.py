"""A network around an encoder of timm's, tried with a small stand-in that keeps timm's documented promises.

timm itself needs torchvision, of which there is no build for every torch; see docs/decisions.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from loop_fakes import make_bench
from torch import Tensor, nn

from core.errors import CheckpointError, EncoderError
from core.network.base_weights import fits_base, load_base, save_base
from core.network.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from core.network.pixels import PixelStatistics
from core.network.predict import Predictor
from core.network.timm_network import build_timm_architecture
from core.network.unet import (
    build_network,
    conform_channels,
    conform_classes,
    initial_weights,
    receptive_margin_px,
    stride_of,
)
from core.rounds import RoundSettings
from core.schema import LabelSchema
from ml_backend.config import Settings
from ml_backend.rounds.encoder_weights import fetch_encoder, find_encoder_base

CHANNELS, REDUCTIONS = (4, 6, 8, 10), (2, 4, 8, 32)
SCHEMA = LabelSchema.of("Background", "Cell")


class SmallEncoder(nn.Module):
    """`timm.create_model(..., features_only=True)`: a list of feature maps, finest first."""

    def __init__(self, stages: Sequence[int], is_pretrained: bool) -> None:
        super().__init__()
        self.stages = list(stages)
        chosen = [(CHANNELS[i], REDUCTIONS[i]) for i in stages]
        self.feature_info = SimpleNamespace(
            channels=lambda: [c for c, _ in chosen], reduction=lambda: [r for _, r in chosen]
        )
        self.convolutions = nn.ModuleList(nn.Conv2d(3, c, 3, padding=1) for c in CHANNELS)
        self.norm = nn.BatchNorm2d(3)
        if is_pretrained:
            nn.init.constant_(self.convolutions[0].weight, 0.5)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.norm(x)
        found = [
            nn.functional.avg_pool2d(c(x), r) for c, r in zip(self.convolutions, REDUCTIONS, strict=True)
        ]
        return [found[i] for i in self.stages]


class FixedSize(SmallEncoder):
    def forward(self, x: Tensor) -> list[Tensor]:
        assert x.shape[-2:] == (224, 224), "Input size doesn't match model"
        return super().forward(x)


def create_model(
    name: str, pretrained: bool = False, features_only: bool = False, out_indices: Any = range(4)
) -> nn.Module:
    assert features_only
    kinds = {"small": SmallEncoder, "fixed": FixedSize}
    if name not in kinds:
        raise RuntimeError(f"Unknown model ({name})")
    return kinds[name](out_indices, pretrained)


@pytest.fixture(autouse=True)
def _timm(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    timm = ModuleType("timm")
    timm.create_model = create_model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "timm", timm)


def _architecture(in_channels: int = 3, n_classes: int = 2) -> dict[str, Any]:
    return build_timm_architecture("small", in_channels, n_classes)


def _weights(architecture: dict[str, Any], seed: int = 0) -> dict[str, Tensor]:
    weights = initial_weights(architecture, np.random.default_rng(seed))
    generator = torch.Generator().manual_seed(1)
    return weights | {"head.weight": torch.randn(weights["head.weight"].shape, generator=generator)}


def _logits(architecture: dict[str, Any], weights: dict[str, Tensor], x: Tensor) -> Tensor:
    network = build_network(architecture)
    network.load_state_dict(weights)
    with torch.no_grad():
        return network.eval()(x)  # type: ignore[no-any-return]


def _image(channels: int, seed: int = 0) -> Tensor:
    return torch.randn(1, channels, 64, 32, generator=torch.Generator().manual_seed(seed))


def test_stages_too_coarse_for_small_objects_are_left_out_but_keep_their_stride() -> None:
    architecture = _architecture()
    assert architecture["reductions"] == [2, 4, 8]
    assert stride_of(architecture) == 32
    assert receptive_margin_px(architecture) % 32 == 0


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_any_number_of_channels_gives_one_logit_per_pixel_and_class_and_outline(channels: int) -> None:
    architecture = _architecture(channels, 4)
    assert _logits(architecture, _weights(architecture), _image(channels)).shape == (1, 5, 64, 32)


def test_the_same_seed_gives_the_same_weights_and_torch_s_own_chance_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    first, again, other = (_weights(_architecture(), seed) for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    name = "encoder.convolutions.0.weight"
    assert not torch.equal(first[name], other[name])
    assert torch.equal(before, torch.random.get_rng_state())


def test_kept_classes_keep_their_logits_and_grey_images_their_answers() -> None:
    grey, wide = _architecture(1), _architecture(3, 3)
    weights, x = _weights(grey), _image(1)
    was = _logits(grey, weights, x)
    changed = conform_channels(conform_classes(weights, ["A", "B"], ["New", "B", "A"]), 3)
    now = _logits(wide, changed, x.repeat(1, 3, 1, 1))
    torch.testing.assert_close(now[:, [2, 1, 3]], was)


def test_training_leaves_the_statistics_of_the_encoder_alone() -> None:
    network = build_network(_architecture()).train()
    before = network.state_dict()["encoder.norm.running_mean"].clone()
    network(_image(3) + 5)
    assert torch.equal(network.state_dict()["encoder.norm.running_mean"], before)


def test_a_checkpoint_comes_back_and_predicts_images_of_any_size(tmp_path: Any) -> None:
    architecture = _architecture(1)
    statistics = PixelStatistics((100.0,), (50.0,))
    save_checkpoint(Checkpoint(SCHEMA, architecture, _weights(architecture), statistics), tmp_path / "m")
    image = np.random.default_rng(0).integers(0, 256, (45, 70, 1), np.uint8)
    assert Predictor(load_checkpoint(tmp_path / "m")).predict(image).shape == (45, 70)


def test_a_checkpoint_without_timm_says_what_to_install(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    architecture = _architecture(1)
    statistics = PixelStatistics((100.0,), (50.0,))
    save_checkpoint(Checkpoint(SCHEMA, architecture, _weights(architecture), statistics), tmp_path / "m")
    monkeypatch.setitem(sys.modules, "timm", None)  # as if it were not installed
    with pytest.raises(CheckpointError, match=r"pip install 'brushloop\[timm\]'"):
        load_checkpoint(tmp_path / "m")


@pytest.mark.parametrize(("name", "cause"), [("nobody", "Unknown model"), ("fixed", "images of any size")])
def test_an_encoder_that_cannot_be_used_is_refused_with_the_cause(name: str, cause: str) -> None:
    with pytest.raises(EncoderError, match=cause):
        build_timm_architecture(name, 3, 2)


def test_published_weights_are_fetched_once_and_only_when_asked_for(tmp_path: Any) -> None:
    plain = Settings(data_dir=tmp_path, encoder="small")
    fetch_encoder(plain)
    assert find_encoder_base(plain) is None
    assert not any(tmp_path.iterdir())
    asked = Settings(data_dir=tmp_path, encoder="small", encoder_weights="pretrained")
    fetch_encoder(asked)
    base = find_encoder_base(asked)
    assert base is not None
    assert fits_base(_architecture(1, 5), base)
    assert RoundSettings(encoder=asked.encoder, base=base).base == base
    written = (base / "weights.safetensors").stat().st_mtime_ns
    fetch_encoder(asked)
    assert (base / "weights.safetensors").stat().st_mtime_ns == written
    for name in ("weights.safetensors", "card.json"):  # damaged ones are fetched again
        (base / name).write_bytes(b"garbage")
        load_base.cache_clear()
        fetch_encoder(asked)
        assert fits_base(_architecture(1, 5), base)
        assert load_base(base)


def test_a_project_learns_with_an_encoder_and_goes_on_from_there(tmp_path: Any) -> None:
    bench = make_bench(tmp_path, encoder="small", encoder_weights="pretrained")
    fetch_encoder(bench.parts.settings)
    for task_id in (1, 2):
        bench.submit(task_id)
        bench.loop.build_truth(1)
        version = bench.loop.run_round(1)
        assert version is not None
    (folder,) = (tmp_path / "projects").glob(f"*/models/{version}")
    checkpoint = load_checkpoint(folder)
    assert checkpoint.architecture["encoder"] == "small"
    assert [entry["origin"] for entry in bench.loop.rounds(1)] == ["warm", "base"]
    bench.close()


def test_base_weights_of_another_network_do_not_fit(tmp_path: Any) -> None:
    architecture = _architecture()
    save_base(tmp_path / "base", architecture, _weights(architecture), {"made_from": "nothing"})
    assert not fits_base({**architecture, "encoder": "other"}, tmp_path / "base")
    assert not fits_base(architecture)  # the shipped weights are for our own network


def test_its_deepest_stage_is_what_images_are_compared_by() -> None:
    architecture = _architecture()
    network = build_network(architecture).eval()
    with torch.no_grad():
        features, deepest = network.encode(_image(3))
        assert torch.equal(network.read(features), network(_image(3)))
    assert deepest.shape == (1, architecture["channels"][-1], 64 // 8, 32 // 8)
