"""What the features of single pixels are, and that tiles leave no seam in them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from core.learners import pixel_features as module
from core.learners.feature_plan import MOST_FEATURES, SCALES_PX, count_features, plan_features
from core.learners.pixel_features import MARGIN_PX, features_at, pixel_features

VALUE, SMOOTH, GRADIENT, LAPLACIAN, DIFFERENCE, HESSIAN_1, HESSIAN_2, STRUCTURE_1, STRUCTURE_2 = range(9)
"""Places of the value, and of the families of the finest scale."""


def noise(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(3).normal(size=shape).astype(np.float32)


def test_the_value_of_a_pixel_is_its_first_feature() -> None:
    image = noise(20, 30, 1)
    assert np.array_equal(pixel_features(image)[..., VALUE], image[..., 0])


@pytest.mark.parametrize("number", range(len(SCALES_PX)))
def test_gaussians_are_those_of_scipy_at_every_scale(number: int) -> None:
    image, inner = ndimage.gaussian_filter(noise(200, 210, 1), (2, 2, 0)), slice(40, 160)
    found = pixel_features(image)[inner, inner, 1 + 8 * number]
    true = ndimage.gaussian_filter(image[..., 0], SCALES_PX[number])[inner, inner]
    assert np.abs(found - true).max() < 0.06 * np.abs(true).max()


def test_an_even_image_has_no_structure() -> None:
    seen = pixel_features(np.full((40, 40, 1), 5, np.float32)).reshape(-1, 49)
    flat = [1 + 8 * scale for scale in range(len(SCALES_PX))]
    assert np.allclose(seen[:, [VALUE, *flat]], 5, atol=1e-4)
    assert np.allclose(np.delete(seen, [VALUE, *flat], axis=1), 0, atol=1e-3)


def test_a_slope_has_a_gradient_and_no_curvature() -> None:
    slope = np.repeat(np.arange(40, dtype=np.float32)[:, np.newaxis], 41, axis=1)[..., np.newaxis]
    middle = pixel_features(slope)[20, 20]
    assert middle[GRADIENT] == pytest.approx(SCALES_PX[0], rel=1e-3)
    assert middle[STRUCTURE_1] == pytest.approx(SCALES_PX[0] ** 2, rel=1e-3)
    assert np.allclose(middle[[LAPLACIAN, HESSIAN_1, HESSIAN_2, STRUCTURE_2]], 0, atol=1e-4)


def test_a_ridge_curves_across_and_not_along() -> None:
    ridge = np.zeros((41, 41, 1), np.float32)
    ridge[:, 20] = 1
    middle = pixel_features(ridge)[20, 20]
    assert middle[HESSIAN_2] < -0.1
    assert middle[HESSIAN_1] == pytest.approx(0, abs=1e-6)
    assert middle[LAPLACIAN] == pytest.approx(middle[HESSIAN_1] + middle[HESSIAN_2], abs=1e-6)


def test_turning_an_image_turns_its_features() -> None:
    image = noise(65, 65, 1)
    turned = pixel_features(np.ascontiguousarray(np.rot90(image)))
    assert np.allclose(turned, np.rot90(pixel_features(image)), atol=1e-4)


def test_tiles_leave_no_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    image = noise(150, 210, 2)
    whole = pixel_features(image)
    monkeypatch.setattr(module, "TILE_PX", 36)
    assert np.allclose(pixel_features(image, n_threads=2), whole, atol=1e-5)


def test_no_pixel_beyond_the_margin_changes_a_feature() -> None:
    image = noise(2 * MARGIN_PX + 9, 2 * MARGIN_PX + 9, 1)
    other = image.copy()
    other[0], other[:, 0], other[-1], other[:, -1] = 50, 50, 50, 50
    middle = slice(MARGIN_PX + 1, MARGIN_PX + 8)
    assert np.array_equal(pixel_features(image)[middle, middle], pixel_features(other)[middle, middle])


def test_features_at_pixels_are_those_of_the_whole_image(monkeypatch: pytest.MonkeyPatch) -> None:
    image = noise(150, 140, 1)
    rows, columns = np.array([3, 149, 70, 71, 3]), np.array([139, 0, 75, 20, 139])
    expected = pixel_features(image)[rows, columns]
    monkeypatch.setattr(module, "TILE_PX", 64)
    assert np.allclose(features_at(image, rows, columns, n_threads=2), expected, atol=1e-5)


def test_no_pixel_has_no_features() -> None:
    nothing = np.array([], np.int64)
    assert features_at(noise(9, 9, 3), nothing, nothing).shape == (0, 147)


def test_only_what_surrounds_a_pixel_is_prepared() -> None:
    seen: list[tuple[int, ...]] = []

    def prepare(piece: NDArray[np.uint8]) -> NDArray[np.float32]:
        seen.append(piece.shape)
        return piece.astype(np.float32)

    features_at(np.zeros((2000, 2000, 1), np.uint8), np.array([1000]), np.array([1000]), prepare)
    assert len(seen) == 1
    assert max(seen[0][:2]) <= 2 * MARGIN_PX + 1 + module.STRIDE


@pytest.mark.parametrize("n_channels", [1, 2, 3, 4, 5, 9, 12, 22, 23, 64])
def test_features_stay_below_the_cap_and_every_channel_has_some(n_channels: int) -> None:
    image = noise(12, 13, n_channels)
    seen = pixel_features(image)
    assert seen.shape == (12, 13, count_features(n_channels))
    assert seen.shape[2] <= MOST_FEATURES
    values = {channel.tobytes() for channel in np.moveaxis(image, 2, 0)}
    assert values <= {feature.tobytes() for feature in np.moveaxis(seen, 2, 0)}


def test_more_channels_than_features_still_give_each_its_value() -> None:
    assert plan_features(MOST_FEATURES + 1).n_per_channel == 1


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 7, 1), (5, 2, 3)])
def test_tiny_images_have_finite_features(shape: tuple[int, int, int]) -> None:
    assert np.isfinite(pixel_features(noise(*shape))).all()


def test_the_image_is_not_changed() -> None:
    image = noise(20, 20, 3)
    before = image.copy()
    pixel_features(image)
    assert np.array_equal(image, before)
