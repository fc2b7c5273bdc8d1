"""Predictions do not depend on how an image was cut, and their maps fit each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from core.errors import ImageError, RoundCancelledError
from core.network.checkpoint import Checkpoint
from core.network.device import EXACT, Compute
from core.network.embedding import MAX_LENGTH, EmbeddingMean
from core.network.inference import load_network, to_batch
from core.network.pixels import PixelStatistics
from core.network.predict import Predictor, sample_logits
from core.network.unet import build_architecture, initial_weights
from core.schema import LabelSchema


def _checkpoint(names: tuple[str, ...] = ("Background", "A", "B"), channels: int = 1) -> Checkpoint:
    architecture = build_architecture(channels, len(names), (4, 6, 8))
    weights = initial_weights(architecture, np.random.default_rng(0))
    generator = torch.Generator().manual_seed(1)
    weights["head.weight"] = torch.randn(weights["head.weight"].shape, generator=generator)
    statistics = PixelStatistics((128.0,) * channels, (70.0,) * channels)
    return Checkpoint(LabelSchema.of(*names), architecture, weights, statistics)


def _image(height: int, width: int, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (height, width, channels), np.uint8)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_tiles_stitched_are_the_whole() -> None:
    image = _image(150, 131)
    kept = {"keep_probabilities": True, "n_augmentations": 4}
    whole = Predictor(_checkpoint(), compute=EXACT, tile_px=1024).predict(image, **kept)
    tiled = Predictor(_checkpoint(), compute=EXACT, tile_px=32).predict(image, **kept)
    np.testing.assert_allclose(whole.probabilities, tiled.probabilities, atol=2e-3)
    assert (whole.label_map != tiled.label_map).mean() < 1e-3


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 50), (33, 7)])
def test_images_of_any_size_have_maps_of_their_size(height: int, width: int) -> None:
    assert Predictor(_checkpoint()).predict(_image(height, width)).shape == (height, width)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_images_with_other_channels_than_the_model_s_are_read(channels: int) -> None:
    assert Predictor(_checkpoint(channels=3)).predict(_image(8, 8, channels)).shape == (8, 8)


def test_sixteen_bit_images_are_read() -> None:
    deep = _image(16, 16).astype(np.uint16)
    first, second = (Predictor(_checkpoint()).predict(i).label_map for i in (deep, deep.astype(np.uint8)))
    np.testing.assert_array_equal(first, second)


def test_the_maps_fit_the_probabilities() -> None:
    found = Predictor(_checkpoint()).predict(_image(40, 40), keep_probabilities=True)
    assert found.probabilities is not None
    order = np.argsort(found.probabilities.astype(np.float32), axis=0)
    sorted_ = np.sort(found.probabilities.astype(np.float32), axis=0)
    clear = (sorted_[-1] - sorted_[-2] > 0.01) & (sorted_[-2] - sorted_[-3] > 0.01)
    np.testing.assert_array_equal(found.label_map[clear], order[-1][clear])
    np.testing.assert_array_equal(found.runner_up[clear], order[-2][clear])
    np.testing.assert_allclose(found.confidence, sorted_[-1], atol=2e-3)
    np.testing.assert_allclose(found.margin, sorted_[-1] - sorted_[-2], atol=2e-3)
    np.testing.assert_allclose(
        found.mutual_information, found.predictive_entropy - found.expected_entropy, atol=3e-3
    )
    assert (found.mutual_information >= 0).all()
    assert found.mutual_information.max() > 0


def test_a_single_sample_disagrees_with_nobody() -> None:
    found = Predictor(_checkpoint()).predict(_image(20, 20), n_augmentations=1)
    assert found.mutual_information.max() == 0
    assert found.probabilities is None


def test_mirrored_samples_are_turned_back_before_they_are_compared() -> None:
    checkpoint = _checkpoint()
    image = _image(16, 12)
    batch = to_batch(image, checkpoint.statistics, 8)
    network = load_network(checkpoint)
    samples = sample_logits(network, batch, 4)
    mirrored = sample_logits(network, batch.flip(3), 4).flip(3)
    torch.testing.assert_close(samples[0], mirrored[1], atol=1e-5, rtol=1e-4)


def test_details_that_nobody_wants_take_no_memory_and_change_nothing_else() -> None:
    predictor, image = Predictor(_checkpoint()), _image(40, 24)
    whole, lean = predictor.predict(image), predictor.predict(image, keep_details=False)
    for name in ("expected_entropy", "mutual_information", "margin"):
        assert np.isnan(getattr(lean, name)).all()
        assert getattr(lean, name).strides == (0, 0)
    for name in ("label_map", "runner_up", "confidence", "predictive_entropy", "outline"):
        np.testing.assert_array_equal(getattr(lean, name), getattr(whole, name))


def test_the_outline_is_a_probability_of_every_pixel() -> None:
    found = Predictor(_checkpoint()).predict(_image(20, 24))
    assert found.outline is not None
    assert found.outline.shape == found.shape
    assert found.outline.dtype == np.float16
    assert 0 <= found.outline.min() <= found.outline.max() <= 1


def test_a_higher_temperature_lowers_confidence_and_changes_no_answer() -> None:
    from dataclasses import replace

    image = _image(24, 24)
    sharp = Predictor(_checkpoint()).predict(image, n_augmentations=1)
    soft = Predictor(replace(_checkpoint(), temperature=3.0)).predict(image, n_augmentations=1)
    assert soft.confidence.mean() < sharp.confidence.mean()
    np.testing.assert_array_equal(soft.label_map, sharp.label_map)


def test_bfloat16_is_close() -> None:
    image = _image(64, 64)
    exact, fast = (
        Predictor(_checkpoint(), compute=compute).predict(image, keep_probabilities=True).probabilities
        for compute in (EXACT, Compute(torch.device("cpu"), torch.bfloat16))
    )
    assert exact is not None
    assert fast is not None
    assert np.abs(exact.astype(np.float32) - fast.astype(np.float32)).mean() < 0.01


def test_a_project_with_one_class_has_that_class_everywhere() -> None:
    found = Predictor(_checkpoint(("Only",))).predict(_image(9, 9))
    assert (found.label_map == 0).all()
    assert (found.confidence == 1).all()
    assert (found.margin == 1).all()


def test_a_prediction_stops_when_asked_to() -> None:
    with pytest.raises(RoundCancelledError):
        Predictor(_checkpoint()).predict(_image(8, 8), should_stop=lambda: True)


@pytest.mark.parametrize("shape", [(4, 4), (0, 4, 1)])
def test_what_is_no_image_is_refused_with_its_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match=r"\("):
        Predictor(_checkpoint()).predict(np.zeros(shape, np.uint8))


def test_five_augmentations_cannot_be_had() -> None:
    with pytest.raises(ValueError, match="not 5"):
        Predictor(_checkpoint()).predict(_image(8, 8), n_augmentations=5)


def test_the_embedding_is_taken_on_the_way_and_does_not_depend_on_the_tiles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = _image(150, 131)
    whole = Predictor(_checkpoint(), compute=EXACT, tile_px=1024)
    encode, batches = whole._network.encode, []
    monkeypatch.setattr(whole._network, "encode", lambda x: batches.append(x) or encode(x))
    found = whole.predict(image, n_augmentations=2).embedding
    assert len(batches) == 2, "one pass for each mirrored sample, and none besides"
    tiled = Predictor(_checkpoint(), compute=EXACT, tile_px=32).predict(image, n_augmentations=1).embedding
    assert found is not None
    assert found.shape == (8,)
    assert found.dtype == np.float16
    assert np.linalg.norm(found.astype(np.float32)) == pytest.approx(1, abs=2e-3)
    np.testing.assert_allclose(tiled, found, atol=2e-3)


def test_images_that_look_alike_have_similar_embeddings() -> None:
    rng = np.random.default_rng(0)
    dark, bright = rng.integers(0, 60, (64, 64, 1), np.uint8), rng.integers(150, 256, (64, 64, 1), np.uint8)
    predictor = Predictor(_checkpoint())
    first, again, other = (
        predictor.predict(image, n_augmentations=1).embedding.astype(np.float32)
        for image in (dark, np.roll(dark, 9, axis=1), bright)
    )
    assert first @ again > 0.998
    assert first @ again > first @ other


def test_a_wide_encoder_has_a_short_embedding_too() -> None:
    seen = EmbeddingMean()
    with pytest.raises(ValueError, match="no tile"):
        seen.embedding()
    seen.add(torch.rand(1, 300, 2, 2), (slice(0, 32), slice(0, 32)), 32)
    assert seen.embedding().shape == (MAX_LENGTH,)
