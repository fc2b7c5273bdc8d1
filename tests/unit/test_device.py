"""One choice of device and precision, which training and prediction share. No test needs a GPU."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from core.errors import DeviceError
from core.network.device import EXACT, Compute, choose_compute, half_of
from core.network.inference import infer_logits
from core.network.unet import UNet, build_architecture, build_network, copy_weights, initial_weights
from core.training.batches import Batch
from core.training.optimiser import _adamw, _step
from core.training.recipe import Recipe

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
FLOAT16 = Compute(CPU, torch.float16)
"""What a GPU without bfloat16 is asked to do, done on the processor."""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize(("n_gpus", "expected"), [(0, "cpu"), (1, "cuda")])
def test_auto_is_the_gpu_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, n_gpus: int, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: n_gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_gpus)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6))
    assert choose_compute("auto").device.type == expected


@pytest.mark.parametrize("name", ["cuda:3", "teapot", "meta"])
def test_a_device_that_cannot_be_used_is_refused_by_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(DeviceError, match=name):
        choose_compute(name)


@pytest.mark.parametrize(("capability", "half"), [((7, 5), torch.float16), ((8, 0), torch.bfloat16)])
def test_a_gpu_computes_in_bfloat16_only_where_it_has_it(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], half: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert half_of(CUDA) is half


@pytest.mark.parametrize(("multiplies_tiles", "half"), [(True, torch.bfloat16), (False, None)])
def test_a_processor_computes_in_bfloat16_only_where_it_multiplies_tiles_of_it(
    monkeypatch: pytest.MonkeyPatch, multiplies_tiles: bool, half: torch.dtype | None
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: multiplies_tiles)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert half_of(CPU) is half
    assert choose_compute("cpu").half is half


def test_only_float16_scales_its_gradients() -> None:
    assert FLOAT16.scaler().is_enabled()
    assert not Compute(CPU, torch.bfloat16).scaler().is_enabled()
    assert not EXACT.scaler().is_enabled()


def test_the_exact_twin_of_a_device_computes_in_float32() -> None:
    with FLOAT16.exact.autocast():
        assert (
            torch.nn.functional.conv2d(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 3, 3)).dtype is torch.float32
        )


def test_on_the_processor_a_batch_is_not_copied() -> None:
    batch = torch.zeros(1, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    assert EXACT.place(batch) is batch


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16, None])
def test_logits_come_back_as_float32_and_close_to_the_exact_ones(half: torch.dtype | None) -> None:
    network, x = _network(), torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    exact = infer_logits(network, x)
    found = infer_logits(network.to(half or torch.float32), x, Compute(CPU, half))
    assert found.dtype is torch.float32
    torch.testing.assert_close(found, exact, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("compute", [FLOAT16, Compute(CPU, torch.bfloat16)])
def test_training_goes_about_the_same_way_in_every_precision(compute: Compute) -> None:
    losses = []
    for how in (EXACT, compute):
        network = _network()
        optimizer, scaler = _adamw(network, Recipe()), how.scaler()
        losses.append([_step(network, optimizer, _batch(), Recipe(), how, scaler) for _ in range(5)])
    exact, found = losses
    assert exact[-1] < 0.99 * exact[0]
    assert found == pytest.approx(exact, rel=0.02)


def test_gradients_too_large_for_float16_lower_the_scale_and_change_no_weight() -> None:
    network, batch = _network(), _batch()
    before = copy_weights(network.state_dict())
    optimizer, scaler = _adamw(network, Recipe()), torch.amp.GradScaler("cpu", init_scale=2.0**40)
    loss = _step(network, optimizer, batch, Recipe(), FLOAT16, scaler)
    assert math.isfinite(loss)
    assert scaler.get_scale() == 2.0**39
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_a_loss_that_is_no_number_is_told_in_float16_too() -> None:
    network, batch = _network(), _batch()
    optimizer = _adamw(network, Recipe())
    broken = batch._replace(images=batch.images * math.nan)
    assert math.isnan(_step(network, optimizer, broken, Recipe(), FLOAT16, FLOAT16.scaler()))


def _network() -> UNet:
    architecture = build_architecture(1, 2, (4, 6))
    network = build_network(architecture)
    weights = initial_weights(architecture, np.random.default_rng(0))
    generator = torch.Generator().manual_seed(1)
    weights["head.weight"] = torch.randn(weights["head.weight"].shape, generator=generator)
    network.load_state_dict(weights)
    return network


def _batch() -> Batch:
    images = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(2))
    things = (images[:, 0] > 0).to(torch.uint8)
    return Batch(images, things, torch.ones(2, 16, 16), torch.zeros(2, 16, 16, dtype=torch.uint8))
