"""Patches keep image and labels together under every change."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from core.schema import IGNORE_INDEX
from core.training.augmentation import Augmentation, change_light, cut_patch, draw_light, random_affine

QUARTER_TURNS = Augmentation(warped=0)


@given(st.integers(0, 2**32), st.integers(0, 39), st.integers(0, 29))
def test_flips_and_quarter_turns_move_pixels_and_labels_together_and_invent_none(
    seed: int, row: int, column: int
) -> None:
    label_map = np.random.default_rng(0).integers(0, 200, (40, 30), np.uint8)
    image = label_map[..., None].astype(np.uint16) * 100
    affine = random_affine(np.random.default_rng(seed), (row, column), 16, QUARTER_TURNS)
    patch, labels = cut_patch(image, label_map, affine, 16)
    inside = labels != IGNORE_INDEX
    np.testing.assert_allclose(patch[..., 0][inside], labels[inside] * 100.0, atol=0.5)
    assert label_map[row, column] in labels


@given(st.integers(0, 2**32))
def test_the_wanted_pixel_is_in_the_patch_under_any_turn_and_size(seed: int) -> None:
    label_map = np.full((60, 60), IGNORE_INDEX, np.uint8)
    label_map[28:33, 28:33] = 1
    affine = random_affine(np.random.default_rng(seed), (30, 30), 32, Augmentation(warped=1, scale=0.3))
    _, labels = cut_patch(label_map[..., None], label_map, affine, 32)
    assert (labels == 1).any()


def test_pixels_beyond_the_image_are_mirrored_and_unlabelled() -> None:
    label_map = np.zeros((4, 4), np.uint8)
    shift = np.array([[1.0, 0, -2], [0, 1.0, -2]])
    patch, labels = cut_patch(np.full((4, 4, 1), 9, np.uint8), label_map, shift, 8)
    assert (patch == 9).all()
    assert (labels[2:6, 2:6] == 0).all()
    assert (labels != IGNORE_INDEX).sum() == 16


def test_only_the_needed_window_of_a_large_image_is_read() -> None:
    read: list[tuple[slice, ...]] = []

    class Watched(np.ndarray):
        def __getitem__(self, index):  # type: ignore[no-untyped-def]
            if isinstance(index, tuple) and self.shape[0] == 5000:
                read.append(index)
            return np.asarray(super().__getitem__(index))

    image = np.zeros((5000, 5000, 1), np.uint8)
    affine = random_affine(np.random.default_rng(0), (2500, 2500), 32, Augmentation())
    cut_patch(image.view(Watched), image[..., 0], affine, 32)
    assert all(s.stop - s.start < 100 for s in read[0][:2])


def test_more_than_four_channels_are_cut_alike() -> None:
    image = np.random.default_rng(0).integers(0, 255, (20, 20, 6), np.uint8)
    patch, _ = cut_patch(image, image[..., 0], np.array([[1.0, 0, 3], [0, 1.0, 2]]), 8)
    np.testing.assert_array_equal(patch, image[2:10, 3:11])


def test_light_changes_are_the_same_for_the_same_generator_state() -> None:
    patch = np.ones((4, 4, 3), np.float32)
    lights = [draw_light(np.random.default_rng(5), 3, Augmentation()) for _ in range(2)]
    first, second = (change_light(patch, light) for light in lights)
    np.testing.assert_array_equal(first, second)
    assert first.dtype == np.float32
    assert not np.array_equal(first, patch)
