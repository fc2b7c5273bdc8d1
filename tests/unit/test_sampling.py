"""A round opens a bounded number of images and centres its patches on annotated pixels."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from core.objects.measure import object_areas
from core.rounds import Example, ExampleSummary
from core.schema import IGNORE_INDEX, LabelSchema
from core.training.sampling import (
    POSITIONS_PER_KIND,
    Shares,
    collect_areas,
    draw_centres,
    open_positions,
    select_keys,
)


def _summary(key: str, pixels: tuple[int, ...], is_new: bool) -> ExampleSummary:
    nothing = (0,) * len(pixels)
    return ExampleSummary(key, (64, 64), pixels, nothing, nothing, nothing, is_new)


def _example(label_map: np.ndarray, key: str = "a") -> Example:
    nothing = np.full(label_map.shape, IGNORE_INDEX, np.uint8)
    return Example(key, np.zeros((*label_map.shape, 1), np.uint8), label_map, nothing)


@given(n_new=st.integers(0, 40), n_old=st.integers(0, 40), limit=st.integers(2, 30))
def test_never_more_images_than_the_limit_and_no_place_left_empty(n_new: int, n_old: int, limit: int) -> None:
    summaries = [_summary(f"new{i}", (5, 5), True) for i in range(n_new)]
    summaries += [_summary(f"old{i}", (5, 5), False) for i in range(n_old)]
    keys = select_keys(summaries, np.random.default_rng(0), limit)
    assert len(keys) == len(set(keys)) == min(limit, n_new + n_old)


def test_half_of_the_images_are_replay_when_there_is_enough_of_both() -> None:
    summaries = [_summary(f"new{i}", (5, 5), True) for i in range(50)]
    summaries += [_summary(f"old{i}", (5, 5), False) for i in range(2000)]
    keys = select_keys(summaries, np.random.default_rng(0), limit=20)
    assert sum(key.startswith("old") for key in keys) == 10


def test_replay_reaches_the_one_old_image_with_a_rare_class() -> None:
    summaries = [_summary(f"old{i}", (5, 5, 0), False) for i in range(500)]
    summaries.append(_summary("rare", (0, 0, 5), False))
    assert "rare" in select_keys(summaries, np.random.default_rng(0), limit=6)


def test_images_without_training_truth_are_not_opened() -> None:
    assert select_keys([_summary("empty", (0, 0), True)], np.random.default_rng(0)) == ()


def test_every_centre_lies_on_an_annotated_pixel() -> None:
    label_map = np.full((40, 50), IGNORE_INDEX, np.uint8)
    label_map[3:6, 4:9], label_map[20:22, 30:33] = 0, 1
    rng = np.random.default_rng(0)
    opened = open_positions(_example(label_map), True, rng)
    for _, row, column in draw_centres([opened], rng, 200, Shares()):
        assert label_map[row, column] != IGNORE_INDEX


def test_a_rare_class_gets_its_share_of_centres() -> None:
    label_map = np.zeros((100, 100), np.uint8)
    label_map[50, 50] = 1
    rng = np.random.default_rng(0)
    opened = open_positions(_example(label_map), False, rng)
    centres = draw_centres([opened], rng, 600, Shares(class_uniform=1.0, border=0.0))
    rare = sum(label_map[row, column] == 1 for _, row, column in centres)
    assert 240 < rare < 360


def test_border_centres_lie_beside_another_class() -> None:
    label_map = np.zeros((20, 20), np.uint8)
    label_map[:, 10:] = 1
    rng = np.random.default_rng(0)
    opened = open_positions(_example(label_map), False, rng)
    centres = draw_centres([opened], rng, 50, Shares(class_uniform=0.0, border=1.0))
    assert {column for _, _, column in centres} == {9}


def test_recent_images_get_their_share_of_centres() -> None:
    rng = np.random.default_rng(0)
    label_map = np.zeros((9, 9), np.uint8)
    old = [open_positions(_example(label_map, f"old{i}"), False, rng) for i in range(9)]
    new = open_positions(_example(label_map, "new"), True, rng)
    centres = draw_centres([*old, new], rng, 1000, Shares(recent=0.5))
    share = sum(opened.is_new for opened, _, _ in centres) / 1000
    assert 0.5 < share < 0.6  # half by right, and one tenth of the other half


def test_a_large_label_map_is_looked_through_on_a_lattice_with_bounded_lists() -> None:
    label_map = np.zeros((4000, 4000), np.uint8)
    label_map[2000:2100, 2000:2100] = 1
    rng = np.random.default_rng(0)
    opened = open_positions(_example(label_map), False, rng)
    assert all(len(positions) <= POSITIONS_PER_KIND for positions in opened.by_class.values())
    rows, columns = opened.by_class[1].T
    assert (label_map[rows, columns] == 1).all()


def test_object_areas_are_collected_over_images() -> None:
    schema = LabelSchema.of("Background", "Cell")
    label_map = np.zeros((12, 12), np.uint8)
    label_map[1:3, 1:3], label_map[6:9, 6:9] = 1, 1
    opened = open_positions(_example(label_map), False, np.random.default_rng(0))
    assert collect_areas([opened, opened], schema)[1] == [4, 9, 4, 9]
    assert object_areas(label_map, schema)[1] == (4, 9)


def test_of_few_images_more_painted_pixels_are_kept_for_the_learners_of_pixels_than_patch_centres() -> None:
    label_map = np.zeros((300, 400), np.uint8)
    label_map[:100] = 1
    rng = np.random.default_rng(0)
    alone = open_positions(_example(label_map), True, rng, n_images=1)
    one_of_many = open_positions(_example(label_map), True, rng, n_images=64)
    assert {c: len(at) for c, at in alone.painted.items()} == {0: 80_000, 1: 40_000}
    assert {c: len(at) for c, at in alone.by_class.items()} == {0: POSITIONS_PER_KIND, 1: POSITIONS_PER_KIND}
    assert {len(at) for at in one_of_many.painted.values()} == {POSITIONS_PER_KIND}
    for c, at in alone.painted.items():
        assert (label_map[at[:, 0], at[:, 1]] == c).all()
