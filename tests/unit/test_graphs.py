"""Compiled graphs answer as torch does, for all sizes and from many threads; without them torch answers."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from core.errors import DeviceError
from core.network import predict
from core.network.checkpoint import Checkpoint
from core.network.device import EXACT, Compute, choose_compute
from core.network.encoder import load_encoder
from core.network.encoder_copies import EncoderCopies
from core.network.feature_maps import FeatureMaps
from core.network.graphs import Graph, WholeNetwork, compile_graph
from core.network.inference import load_network
from core.network.pixels import PixelStatistics
from core.network.predict import Predictor
from core.network.unet import build_architecture, initial_weights
from core.schema import LabelSchema

needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="brushloop[fast] is not installed")

GRAPHS = Compute(torch.device("cpu"), graphs=True)
SHAPES = [(64, 64), (32, 96), (160, 128)]
CLOSE = 1e-4


def _checkpoint(n_channels: int) -> Checkpoint:
    architecture = build_architecture(n_channels, 2, (8, 12, 16))
    rng = np.random.default_rng(0)
    weights = initial_weights(architecture, rng)
    # Fresh heads answer 0 everywhere.
    drawn = {
        name: torch.from_numpy(rng.normal(0, 0.3, t.shape).astype(np.float32)) for name, t in weights.items()
    }
    heads = {name: drawn[name] for name in weights if name.startswith(("head", "outline"))}
    statistics = PixelStatistics((100.0,) * n_channels, (50.0,) * n_channels)
    return Checkpoint(LabelSchema.of("Background", "Cell"), architecture, {**weights, **heads}, statistics)


def _batch(n_channels: int, shape: tuple[int, int], seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(1, n_channels, *shape, generator=generator)
    return values.contiguous(memory_format=torch.channels_last)


@needs_openvino
@pytest.mark.parametrize("n_channels", [1, 3, 5])
def test_the_graph_of_a_network_gives_torchs_numbers(n_channels: int) -> None:
    whole = WholeNetwork(load_network(_checkpoint(n_channels)))
    graph = compile_graph(whole, n_channels, 1)
    for shape in SHAPES:
        batch = _batch(n_channels, shape)
        with torch.inference_mode():
            expected = whole(batch)
        assert expected[0].abs().max() > 0.1
        for own, true in zip(graph(batch), expected, strict=True):
            torch.testing.assert_close(own, true, rtol=0, atol=CLOSE)


@needs_openvino
def test_the_graph_of_the_encoder_gives_torchs_numbers() -> None:
    encoder = load_encoder()
    graph = compile_graph(encoder, 3, 1)
    for shape in SHAPES:
        with torch.inference_mode():
            expected = encoder(_batch(3, shape))
        for own, true in zip(graph(_batch(3, shape)), expected, strict=True):
            torch.testing.assert_close(own, true, rtol=0, atol=CLOSE)


@needs_openvino
def test_threads_that_ask_at_once_get_their_own_answers() -> None:
    graph = compile_graph(WholeNetwork(load_network(_checkpoint(1))), 1, 1)
    batches = [_batch(1, (64, 64), seed) for seed in range(12)]
    alone = [graph(batch)[0] for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda batch: graph(batch)[0], batches))
    assert all(torch.equal(*pair) for pair in zip(alone, together, strict=True))


@needs_openvino
def test_an_image_is_answered_alike_by_both_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "COMPILE_FROM_PX", 1)
    image = np.random.default_rng(1).integers(0, 255, (90, 70, 3), np.uint8)
    compiled = Predictor(_checkpoint(3), 1, compute=GRAPHS, tile_px=64)
    by_graph = compiled.predict(image, n_augmentations=2, keep_probabilities=True)
    by_torch = Predictor(_checkpoint(3), 1, compute=EXACT, tile_px=64).predict(
        image, n_augmentations=2, keep_probabilities=True
    )
    assert compiled.engine == "openvino"
    assert by_graph.probabilities is not None
    assert by_torch.probabilities is not None
    np.testing.assert_allclose(by_graph.probabilities, by_torch.probabilities, atol=1e-3)  # kept as float16
    np.testing.assert_allclose(by_graph.embedding, by_torch.embedding, atol=1e-3)


@needs_openvino
def test_a_model_is_compiled_once_it_was_asked_for_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "COMPILE_FROM_PX", 32 * 32 * 3)
    predictor = Predictor(_checkpoint(1), 1, compute=GRAPHS)
    image = np.zeros((32, 32, 1), np.uint8)
    engines = []
    for _ in range(3):
        predictor.predict(image, n_augmentations=1)
        engines.append(predictor.engine)
    assert engines == ["torch", "torch", "openvino"]


def test_torch_goes_on_answering_where_nothing_can_be_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(
        module: nn.Module, in_channels: int, n_threads: int | None = None
    ) -> Callable[[Tensor], object]:
        raise DeviceError("no such layer")

    monkeypatch.setattr(predict, "compile_graph", refuse)
    monkeypatch.setattr(predict, "COMPILE_FROM_PX", 1)
    reasons: list[str] = []
    predictor = Predictor(_checkpoint(1), 1, compute=GRAPHS, on_fallback=reasons.append)
    image = np.zeros((32, 32, 1), np.uint8)
    for _ in range(2):
        predictor.predict(image, n_augmentations=1)
    assert reasons == ["no such layer"]
    assert predictor.engine == "torch"


@needs_openvino
def test_what_cannot_be_compiled_is_a_device_error() -> None:
    class Strange(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("no picture for you")

    with pytest.raises(DeviceError, match="no picture for you"):
        compile_graph(Strange(), 1, 1)


def test_the_engine_is_chosen_by_what_is_installed() -> None:
    assert choose_compute("cpu", "auto").graphs is (find_spec("openvino") is not None)
    assert not choose_compute("cpu", "torch").graphs
    assert not choose_compute("cpu").graphs
    with pytest.raises(DeviceError, match="no engine called 'abacus'"):
        choose_compute("cpu", "abacus")


def test_an_engine_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.network.device.can_compile", lambda: False)
    assert not choose_compute("cpu", "auto").graphs
    with pytest.raises(DeviceError, match=r"brushloop\[fast\]"):
        choose_compute("cpu", "openvino")


@needs_openvino
def test_images_to_learn_from_are_looked_at_by_the_graph_from_the_first_one_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = np.random.default_rng(0).integers(0, 255, (70, 90, 3), np.uint8)
    statistics, window = PixelStatistics((100.0,) * 3, (50.0,) * 3), (slice(0, 70), slice(0, 90))
    expected = FeatureMaps(statistics).window(image, window)
    asked: list[int] = []
    calls = Graph.__call__
    monkeypatch.setattr(Graph, "__call__", lambda graph, batch: (asked.append(1), calls(graph, batch))[1])
    maps = FeatureMaps(statistics, compiles_for=1)
    assert maps.serves_threads
    for found, torchs in zip(maps.window(image, window), expected, strict=True):
        np.testing.assert_allclose(found, torchs, rtol=2e-3, atol=2e-3)
    assert asked == [1]


def test_without_openvino_torch_looks_at_images_to_learn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(copies: EncoderCopies, n_threads: int | None) -> Graph:
        raise DeviceError("OpenVINO cannot read the network")

    monkeypatch.setattr(EncoderCopies, "compile", refuse)
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 1), np.uint8)
    statistics, window = PixelStatistics((100.0,), (50.0,)), (slice(0, 64), slice(0, 64))
    maps = FeatureMaps(statistics, compiles_for=1)
    for found, torchs in zip(
        maps.window(image, window), FeatureMaps(statistics).window(image, window), strict=True
    ):
        np.testing.assert_array_equal(found, torchs)
    assert not maps.serves_threads


@needs_openvino
def test_several_threads_that_look_get_what_one_gets() -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (96, 64, 1), np.uint8) for _ in range(8)]
    statistics, window = PixelStatistics((100.0,), (50.0,)), (slice(0, 96), slice(0, 64))
    alone = [FeatureMaps(statistics, compiles_for=1).window(image, window) for image in images]
    shared = FeatureMaps(statistics, compiles_for=1)
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda image: shared.window(image, window), images))
    for one, other in zip(alone, together, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
