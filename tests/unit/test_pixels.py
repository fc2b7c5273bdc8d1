"""Every image of a project is put on the same scale, whatever its channels."""

from __future__ import annotations

import numpy as np
import pytest

from core.network.pixels import PixelStatistics, conform_channels, measure_pixels, standardise
from core.threads import torch_threads


@pytest.mark.parametrize(("found", "wanted"), [(1, 3), (2, 2), (2, 1), (4, 4), (4, 3), (3, 1), (5, 2)])
def test_an_image_gets_the_channels_that_the_network_reads(found: int, wanted: int) -> None:
    image = np.full((2, 3, found), 7, np.uint8)
    conformed = conform_channels(image, wanted)
    assert conformed.shape == (2, 3, wanted)
    assert (conformed == 7).all()


@pytest.mark.parametrize(("found", "wanted"), [(2, 3), (2, 5), (3, 4), (3, 5), (4, 5)])
def test_an_image_with_fewer_channels_keeps_them_in_their_places(found: int, wanted: int) -> None:
    image = np.random.default_rng(0).integers(1, 255, (2, 3, found), np.uint8)
    conformed = conform_channels(image, wanted)
    assert np.array_equal(conformed[..., :found], image)
    assert not conformed[..., found:].any()


@pytest.mark.parametrize(("found", "wanted"), [(2, 1), (4, 3)])
def test_models_from_before_the_last_channel_was_kept_answer_as_before(found: int, wanted: int) -> None:
    image = np.random.default_rng(0).integers(0, 255, (2, 3, found), np.uint8)
    assert np.array_equal(conform_channels(image, wanted), image[..., :wanted])


def test_an_image_without_a_channel_axis_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 2\)"):
        conform_channels(np.zeros((2, 2)), 1)


def test_standardised_pixels_of_sixteen_bits_have_mean_zero_and_deviation_one() -> None:
    image = np.random.default_rng(0).integers(0, 60_000, (32, 32, 2), np.uint16)
    statistics = measure_pixels([image.reshape(-1, 2)], 2)
    values = standardise(image, statistics)
    np.testing.assert_allclose(values.mean((0, 1)), 0, atol=1e-3)
    np.testing.assert_allclose(values.std((0, 1)), 1, atol=1e-3)


def test_a_constant_channel_stays_finite() -> None:
    statistics = measure_pixels([np.full((4, 1), 5)], 1)
    assert np.isfinite(standardise(np.full((2, 2, 1), 200, np.uint8), statistics)).all()


def test_nothing_cannot_be_measured() -> None:
    with pytest.raises(ValueError, match="no annotated pixel"):
        measure_pixels([np.zeros((0, 1))], 1)
    with pytest.raises(ValueError, match="one mean"):
        PixelStatistics((1.0,), ())


def test_torch_threads_are_given_back() -> None:
    import torch

    before = torch.get_num_threads()
    with torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_colours_keep_their_proportions_and_other_channels_their_own_unit() -> None:
    samples = np.array([[0, 0, 0, 0], [10, 2, 4, 1000]], np.float64)
    assert measure_pixels([samples[:, :3]], 3).std == (5.0, 5.0, 5.0)
    assert measure_pixels([samples], 4).std == (5.0, 1.0, 2.0, 500.0)
