"""The generated images are repeatable and contain the objects that their truth names."""

from __future__ import annotations

import numpy as np
import pytest

from core.synthetic import KINDS, Kind, make_image


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_generator_state_draws_the_same_image(kind: Kind) -> None:
    first = make_image(kind, np.random.default_rng(7), (64, 80))
    second = make_image(kind, np.random.default_rng(7), (64, 80))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


@pytest.mark.parametrize("kind", KINDS)
def test_objects_look_different_from_the_background(kind: Kind) -> None:
    image, instances = make_image(kind, np.random.default_rng(3), (128, 128))
    grey = image.mean(-1)
    assert instances.max() >= 3
    assert abs(grey[instances > 0].mean() - grey[instances == 0].mean()) > 20


def test_the_wanted_number_of_objects_is_not_exceeded() -> None:
    _, instances = make_image("tissue", np.random.default_rng(1), (200, 200), n_objects=6)
    assert set(np.unique(instances)) <= set(range(7))


def test_a_tiny_image_is_refused_with_its_size() -> None:
    with pytest.raises(ValueError, match=r"\(8, 8\)"):
        make_image("grains", np.random.default_rng(0), (8, 8))
