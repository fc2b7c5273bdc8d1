"""The hold-out: by position, always the same, never next to what is trained on."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from core.schema import LabelSchema
from core.truth import holdout
from core.truth.holdout import (
    CELL_PX,
    GUARD_PX,
    LARGE_OBJECT_PX,
    RING_PX,
    has_enough_held_out,
    split,
    summarise,
)

SCHEMA = LabelSchema.of("Background", "Nucleus", "Cell")
PHASES = LabelSchema.of("Ferrite", "Pearlite")
U = 255


def paint_discs(
    size: int, centres: NDArray[np.int64], radius: int = 7, background: bool = True
) -> NDArray[np.uint8]:
    label_map = np.full((size, size), U, np.uint8)
    for row, column in centres.tolist():
        if background:
            cv2.circle(label_map, (column, row), radius + 10, 0, -1)
    for number, (row, column) in enumerate(centres.tolist()):
        cv2.circle(label_map, (column, row), radius, 1 + number % 2, -1)
    return label_map


def some_map(seed: int, size: int = 200) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    label_map = paint_discs(size, rng.integers(0, size, (12, 2)))
    if seed % 3 == 0:
        label_map[label_map == U] = 0
    return label_map


def distance_to(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    if not mask.any():
        return np.full(mask.shape, np.inf, np.float32)
    return np.asarray(cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([SCHEMA, LabelSchema.of("A", "B", "C")]))
def test_trained_pixels_are_never_next_to_held_out_ones(seed: int, schema: LabelSchema) -> None:
    label_map = some_map(seed)
    before = label_map.copy()
    train_map, held_out_map = split(label_map, schema, f"task-{seed}")
    trained, held_out = train_map != U, held_out_map != U
    assert not (distance_to(held_out)[trained] <= GUARD_PX).any()
    assert (train_map[trained] == label_map[trained]).all()
    assert (held_out_map[held_out] == label_map[held_out]).all()
    lost = (label_map != U) & ~trained & ~held_out
    assert not (distance_to(held_out)[lost] > GUARD_PX).any()  # nothing is lost but the guard band
    assert (label_map == before).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_the_same_map_is_split_the_same_way(seed: int) -> None:
    first, second = split(some_map(seed), SCHEMA, "a"), split(some_map(seed), SCHEMA, "a")
    assert all((one == other).all() for one, other in zip(first, second, strict=True))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 1), st.sampled_from([SCHEMA, PHASES]))
def test_an_object_painted_far_away_moves_nothing_to_another_side(
    seed: int, class_index: int, schema: LabelSchema
) -> None:
    rng = np.random.default_rng(seed)
    sparse = paint_discs(400, rng.integers(150, 400, (8, 2)))
    if schema is PHASES:
        sparse[sparse == 2] = U
    more = sparse.copy()
    cv2.circle(more, (30, int(rng.integers(10, 60))), 12, class_index, -1)
    far = np.zeros(more.shape, bool)
    far[140:, 140:] = True
    for one, other in zip(split(sparse, schema, "t"), split(more, schema, "t"), strict=True):
        assert (one[far] == other[far]).all()


def test_about_a_fifth_of_the_objects_is_held_out_whole() -> None:
    rows, columns = np.mgrid[24:2000:48, 24:2000:48]
    label_map = paint_discs(2000, np.column_stack([rows.ravel(), columns.ravel()]))
    train_map, held_out_map = split(label_map, SCHEMA, "task")
    n_objects, components = cv2.connectedComponents(np.isin(label_map, (1, 2)).astype(np.uint8))
    held_out = np.unique(components[np.isin(held_out_map, (1, 2))])
    assert 0.15 < len(held_out) / (n_objects - 1) < 0.25
    assert (np.isin(components, held_out) == np.isin(held_out_map, (1, 2))).all()
    trained = np.unique(components[np.isin(train_map, (1, 2))])
    assert not np.intersect1d(held_out, trained).size


def test_the_background_around_a_held_out_object_is_held_out_with_it() -> None:
    rows, columns = np.mgrid[60:1000:130, 60:1000:130]
    label_map = paint_discs(1000, np.column_stack([rows.ravel(), columns.ravel()]))
    _, held_out_map = split(label_map, SCHEMA, "task")
    around = distance_to(np.isin(held_out_map, (1, 2))) <= RING_PX
    assert around.any()
    assert (held_out_map[around] == label_map[around]).all()


def test_other_images_are_split_in_another_way() -> None:
    label_map = np.zeros((1024, 1024), np.uint8)
    assert (split(label_map, PHASES, "a")[1] != split(label_map, PHASES, "b")[1]).any()


def test_phases_that_fill_the_image_are_split_by_cells() -> None:
    label_map = (np.indices((1024, 1024)).sum(axis=0) // 100 % 2).astype(np.uint8)
    _, held_out_map = split(label_map, PHASES, "task")
    cells = (held_out_map != U).reshape(16, CELL_PX, 16, CELL_PX).mean(axis=(1, 3))
    assert set(np.unique(cells)) == {0.0, 1.0}
    assert 0.12 < cells.mean() < 0.28


def test_a_component_as_large_as_an_area_is_split_by_cells() -> None:
    label_map = np.zeros((1024, 1024), np.uint8)
    label_map[100 : 100 + LARGE_OBJECT_PX + 300, 100:900] = 1
    train_map, held_out_map = split(label_map, SCHEMA, "task")
    assert (train_map == 1).any()
    assert (held_out_map == 1).any()


@pytest.mark.parametrize("shift", [(1, 0), (0, -1), (1, 1)])
def test_a_small_edit_rarely_moves_an_object(shift: tuple[int, int]) -> None:
    rows, columns = np.mgrid[30:2000:70, 30:2000:70]
    centres = np.column_stack([rows.ravel(), columns.ravel()])
    before = split(paint_discs(2000, centres), SCHEMA, "task")[1]
    after = split(paint_discs(2000, centres + np.array(shift)), SCHEMA, "task")[1]
    moved = [(before[r, c] == U) != (after[r, c] == U) for r, c in centres.tolist()]
    assert np.mean(moved) < 0.05


def test_an_image_without_truth_has_two_empty_maps() -> None:
    train_map, held_out_map = split(np.full((5, 7), U, np.uint8), SCHEMA, "task")
    assert (train_map == U).all()
    assert (held_out_map == U).all()


def test_the_summary_counts_both_parts() -> None:
    train_map = np.array([[1, 1, 0, U, 2], [U, U, 0, U, U]], np.uint8)
    held_out_map = np.array([[U, U, U, U, U], [1, U, U, U, 1]], np.uint8)
    summary = summarise("t", train_map, held_out_map, SCHEMA, is_new=True)
    assert summary.shape == (2, 5)
    assert (summary.class_pixels, summary.held_out_pixels) == ((2, 2, 1), (0, 2, 0))
    assert (summary.class_objects, summary.held_out_objects) == ((0, 1, 1), (0, 2, 0))
    assert summary.is_new


def test_without_background_the_summary_counts_cells() -> None:
    train_map = np.full((CELL_PX * 2, CELL_PX * 2), U, np.uint8)
    train_map[:, 0], train_map[0, -1] = 0, 1
    summary = summarise("t", train_map, np.full_like(train_map, U), PHASES, is_new=False)
    assert summary.class_objects == (2, 1)


def test_models_are_compared_only_with_enough_held_out_objects_of_two_classes() -> None:
    def enough(n_objects: int, *held_out_px: int, left_px: tuple[int, ...] = (9, 9, 0)) -> bool:
        empty = np.full((1, 1), U, np.uint8)
        summary = summarise("t", empty, empty, SCHEMA, is_new=False)
        fields = {
            **vars(summary),
            "class_pixels": left_px,
            "held_out_pixels": held_out_px,
            "held_out_objects": (0, n_objects, 0),
        }
        return has_enough_held_out([type(summary)(**fields)], SCHEMA)

    assert enough(3, 500, 400, 0)
    assert not enough(2, 500, 400, 0)
    assert not enough(3, 0, 400, 0)
    assert not enough(3, 10, 400, 0)
    assert not enough(3, 500, 400, 0, left_px=(9, 0, 0))  # nothing would be left to learn a class from
    assert not has_enough_held_out([], SCHEMA)


@pytest.mark.parametrize("schema", [SCHEMA, LabelSchema.of("A", "B", "C")])
@pytest.mark.parametrize("seed", [0, 4])
def test_a_map_worked_on_in_tiles_is_split_as_if_it_were_looked_at_whole(
    seed: int, schema: LabelSchema, monkeypatch: pytest.MonkeyPatch
) -> None:
    label_map = some_map(seed, 700)
    label_map[300:310, 20:600] = 1  # an area across all tiles
    label_map[40:260, 290:310] = 2  # an object across a seam
    whole = split(label_map, schema, "a")
    monkeypatch.setattr(holdout, "TILE_PX", 301)
    in_tiles = split(label_map, schema, "a")
    assert all((one == other).all() for one, other in zip(whole, in_tiles, strict=True))
