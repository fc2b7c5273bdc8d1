"""Objects: numbered, measured, cleaned, and taken apart where they have grown together."""

from __future__ import annotations

import json
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from core.objects import components, measure
from core.objects.measure import (
    ObjectLimits,
    clean_mask,
    count_labels,
    count_objects,
    label_objects,
    learn_limits,
    object_areas,
    object_stats,
    separate_touching,
)
from core.painting import Box
from core.schema import LabelSchema

SCHEMA = LabelSchema.of("Background", "Nucleus", "Cell")
U = 255


def count(mask: NDArray[np.bool_]) -> int:
    return int(cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[0]) - 1


def blob(
    radius: float, aspect: float = 1.0, angle: float = 0.0, wobble: float = 0.0, waves: int = 3
) -> NDArray[np.bool_]:
    """Draw an ellipse with a wavy outline in the middle of a frame that holds it."""
    half = int(radius * aspect * (1 + wobble)) + 4
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(float)
    u, v = (x * np.cos(angle) + y * np.sin(angle)) / aspect, y * np.cos(angle) - x * np.sin(angle)
    return np.asarray(np.hypot(u, v) < radius * (1 + wobble * np.cos(waves * np.arctan2(v, u))))


def two_discs(radius: int, other: float, distance: float, angle: float) -> NDArray[np.bool_]:
    half = 4 * radius
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    first = np.hypot(y, x) < radius
    return np.asarray(first | (np.hypot(y - distance * np.sin(angle), x - distance * np.cos(angle)) < other))


def diameter(mask: NDArray[np.bool_]) -> float:
    return float(np.sqrt(4 * mask.sum() / np.pi))


def test_objects_are_components_of_one_object_class() -> None:
    label_map = np.array([[1, 0, 1, 1], [0, 1, U, U], [2, 2, 0, 1]], np.uint8)
    assert label_objects(label_map, SCHEMA).tolist() == [[1, 0, 1, 1], [0, 1, 0, 0], [3, 3, 0, 2]]


def test_background_and_unlabelled_pixels_are_no_objects() -> None:
    assert not label_objects(np.array([[0, U]], np.uint8), SCHEMA).any()
    assert object_stats(np.array([[0, U]], np.uint8), SCHEMA) == ()


def test_stats_fit_the_numbers_of_the_objects() -> None:
    label_map = np.array([[2, 0, 1, 1], [2, 0, 0, 0], [0, 0, 0, 1]], np.uint8)
    instances = label_objects(label_map, SCHEMA)
    stats = object_stats(label_map, SCHEMA)
    assert [s.class_index for s in stats] == [1, 1, 2]
    assert [s.area_px for s in stats] == np.bincount(instances.ravel())[1:].tolist() == [2, 1, 2]
    assert stats[2].box == Box(0, 0, 2, 1)
    assert object_areas(label_map, SCHEMA) == ((), (2, 1), (2,))


def test_limits_follow_the_painted_objects_and_ignore_crumbs() -> None:
    limits = learn_limits([[], [1, 2, 1, 1, 3, 900, 1000, 1100, 950], [10, 20]])
    assert limits[0] == limits[2] == ObjectLimits()
    assert 34 < limits[1].typical_diameter_px < 37
    assert 100 < limits[1].min_object_px < 400
    assert limits[1].max_hole_px < 200


def test_tiny_objects_are_not_taken_for_specks() -> None:
    (limits,) = learn_limits([[9, 8, 10, 9, 7]])
    assert limits.min_object_px <= 7
    assert limits.max_hole_px >= 1


def test_limits_survive_their_record() -> None:
    (limits,) = learn_limits([[500, 510, 520]])
    assert ObjectLimits.from_record(json.loads(json.dumps(limits.to_record()))) == limits


def test_specks_and_holes_below_the_limits_are_cleaned_and_larger_ones_stay() -> None:
    mask = np.zeros((20, 20), bool)
    mask[2:12, 2:12] = True
    mask[4, 4] = False  # a hole of one pixel
    mask[6:9, 6:9] = False  # a hole of nine
    mask[15, 15:17] = True  # a speck of two
    mask[15:18, 2:4] = True  # an object of six
    cleaned = clean_mask(mask, ObjectLimits(min_object_px=3, max_hole_px=4))
    assert cleaned[4, 4]
    assert not cleaned[7, 7]
    assert not cleaned[15, 15:17].any()
    assert cleaned[15:18, 2:4].all()


def test_a_bay_at_the_border_of_the_image_is_no_hole() -> None:
    mask = np.array([[1, 0, 1], [1, 1, 1]], bool)
    assert (clean_mask(mask, ObjectLimits(1, 20)) == mask).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_cleaning_twice_is_cleaning_once(seed: int) -> None:
    mask = np.random.default_rng(seed).random((30, 30)) < 0.5
    before = mask.copy()
    limits = ObjectLimits(min_object_px=5, max_hole_px=6)
    once = clean_mask(mask, limits)
    assert (clean_mask(once, limits) == once).all()
    assert (mask == before).all()


@settings(max_examples=150, deadline=None)
@given(
    st.floats(3, 30),
    st.floats(1, 4),
    st.floats(0, 3.2),
    st.floats(0, 0.08),
    st.integers(3, 6),
    st.floats(0.7, 1.5),
)
def test_single_long_or_bumpy_objects_stay_whole(
    radius: float, aspect: float, angle: float, wobble: float, waves: int, typical: float
) -> None:
    mask = blob(radius, aspect, angle, wobble, waves)
    assert (separate_touching(mask, typical * diameter(mask)) == mask).all()


@settings(max_examples=100, deadline=None)
@given(st.integers(10, 25), st.floats(0.85, 1.2), st.floats(1.7, 1.95), st.floats(0, 6.3))
def test_two_overlapping_discs_come_apart(radius: int, ratio: float, reach: float, angle: float) -> None:
    other = radius * ratio
    mask = two_discs(radius, other, reach * (radius + other) / 2, angle)
    parts = separate_touching(mask, 2.0 * radius)
    assert count(mask) == 1
    assert count(parts) == 2
    assert not (parts & ~mask).any()
    assert (mask & ~parts).sum() <= 4 * radius  # a line, not a band


def test_strokes_of_even_width_stay_whole() -> None:
    for width in (3, 5, 9, 15, 21):
        for end in ((90, 10), (90, 50), (60, 90), (10, 90)):
            canvas = np.zeros((110, 110), np.uint8)
            cv2.line(canvas, (15, 15), end, 1, width)
            assert count(separate_touching(canvas > 0, diameter(canvas > 0))) == 1, (width, end)


def test_a_model_may_say_where_the_border_is() -> None:
    mask = np.zeros((30, 60), bool)
    mask[5:25, 5:55] = True
    outline = np.zeros(mask.shape, np.float16)
    outline[:, 28:32] = 0.9
    assert count(separate_touching(mask, 22)) == 1
    assert count(separate_touching(mask, 22, outline=outline)) == 2


def test_the_same_clump_is_always_cut_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    def in_the_last_bit(*arguments: Any) -> NDArray[np.float32]:
        distance = exact(*arguments)
        return np.asarray(np.nextafter(distance, rng.choice([0, 1000], distance.shape)), np.float32)

    exact, rng = cv2.distanceTransform, np.random.default_rng(0)
    noise = cv2.GaussianBlur(rng.random((120, 120)).astype(np.float32), (0, 0), 2)
    mask = noise > np.float32(0.5)
    parts = separate_touching(mask, 12)
    assert (parts != mask).any()
    monkeypatch.setattr("core.objects.split_blobs.cv2.distanceTransform", in_the_last_bit)
    for _ in range(3):
        assert (separate_touching(mask, 12) == parts).all()


def test_an_empty_mask_and_a_full_one_have_nothing_to_separate() -> None:
    assert not separate_touching(np.zeros((8, 8), bool), 10).any()
    assert separate_touching(np.ones((64, 64), bool), 10).all()


@given(
    arrays(np.uint8, st.tuples(st.integers(1, 24), st.integers(1, 12)), elements=st.integers(0, 2)),
    st.integers(1, 5),
)
def test_objects_are_counted_alike_in_stripes_of_any_height(label_map: NDArray[np.uint8], rows: int) -> None:
    schema = LabelSchema.of("Background", "A", "B")
    counts = [0, 0, 0]
    for stats in object_stats(label_map, schema):
        counts[stats.class_index] += 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "ROWS_AT_ONCE", rows)
        patch.setattr(components, "ROWS_AT_ONCE", rows)
        assert count_objects(label_map, schema) == tuple(counts)
        assert count_labels(label_map)[:3].tolist() == np.bincount(label_map.ravel(), minlength=3).tolist()
