"""Components of large maps: the same in stripes as in one piece, and without the memory of one piece."""

from __future__ import annotations

import tracemalloc

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from core.objects import components
from core.objects.components import Components, find_components
from core.objects.measure import ObjectLimits, clean_mask, separate_touching
from core.painting import Mask, fill_holes
from core.synthetic import make_image

maps = arrays(np.uint8, st.tuples(st.integers(1, 24), st.integers(1, 12)), elements=st.integers(0, 2))


def in_one_piece(mask: Mask, connectivity: int) -> list[tuple[int, tuple[int, ...], bytes]]:
    """Area, box and pixels of each component, as OpenCV finds them on the whole map."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=connectivity)
    found: list[tuple[int, tuple[int, ...], bytes]] = []
    for index, (left, top, width, height, area) in enumerate(stats[1:].tolist(), start=1):
        cut = labels[top : top + height, left : left + width] == index
        found.append((area, (top, left, top + height, left + width), cut.tobytes()))
    return found


def in_stripes(found: Components) -> list[tuple[int, tuple[int, ...], bytes]]:
    everything = np.ones(len(found), bool)
    return [
        (
            int(found.areas[number - 1]),
            (rows.start, columns.start, rows.stop, columns.stop),
            pixels.tobytes(),
        )
        for number, (rows, columns), pixels in found.cut_out(everything)
    ]


def cleaned_in_one_piece(mask: Mask, limits: ObjectLimits) -> Mask:
    def small(of: Mask, max_px: int, connectivity: int) -> Mask:
        _, labels, stats, _ = cv2.connectedComponentsWithStats(of.astype(np.uint8), connectivity=connectivity)
        is_small = stats[:, cv2.CC_STAT_AREA] <= max_px
        is_small[0] = False
        return np.asarray(is_small[labels])

    kept = mask & ~small(mask, limits.min_object_px - 1, 8)
    return np.asarray(kept | small(fill_holes(kept) & ~kept, limits.max_hole_px, 4))


@settings(max_examples=50, deadline=None)
@given(maps, st.integers(1, 5), st.sampled_from([4, 8]))
def test_components_are_the_same_in_stripes_of_any_height(
    label_map: NDArray[np.uint8], rows: int, connectivity: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(components, "ROWS_AT_ONCE", rows)
        found = find_components(label_map, 1, connectivity)
        assert sorted(in_stripes(found)) == sorted(in_one_piece(label_map == 1, connectivity))


@settings(max_examples=50, deadline=None)
@given(maps, st.integers(1, 5), st.integers(0, 2**12))
def test_the_pixels_of_chosen_components_are_found_again(
    label_map: NDArray[np.uint8], rows: int, choice: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(components, "ROWS_AT_ONCE", rows)
        found = find_components(label_map, 2)
        chosen = np.array([choice >> (number % 12) & 1 for number in range(len(found))], bool)
        painted = np.zeros(label_map.shape, bool)
        for stripe, pixels in found.where(chosen):
            painted[stripe] = pixels
        expected = np.zeros(label_map.shape, bool)
        for _, box, pixels in found.cut_out(chosen):
            expected[box] |= pixels
    assert (painted == expected).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(0, 8), st.integers(1, 6))
def test_a_mask_is_cleaned_in_stripes_as_in_one_piece(
    seed: int, min_object_px: int, max_hole_px: int, rows: int
) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((40, 30)) < rng.uniform(0.2, 0.8)
    limits = ObjectLimits(min_object_px, max_hole_px)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(components, "ROWS_AT_ONCE", rows)
        assert (clean_mask(mask, limits) == cleaned_in_one_piece(mask, limits)).all()


def test_touching_objects_across_a_seam_are_cut_as_they_would_be_without_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, instances = make_image("fluorescence", np.random.default_rng(0), (320, 240))
    grown = cv2.dilate((instances > 0).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    whole = separate_touching(grown, 20)
    assert (whole != grown).any()
    crossing = 0
    for rows in (16, 32, 90):
        monkeypatch.setattr(components, "ROWS_AT_ONCE", rows)
        crossing += int((grown[rows - 1] & grown[rows]).any())
        assert (separate_touching(grown, 20) == whole).all()
    assert crossing == 3


def test_an_empty_map_has_no_components() -> None:
    for shape in ((0, 5), (5, 5)):
        found = find_components(np.zeros(shape, np.uint8))
        assert len(found) == 0
        assert found.boxes.shape == (0, 4)
        assert list(found.cut_out(np.zeros(0, bool))) == []


def test_no_map_of_numbers_is_kept_for_the_whole_image() -> None:
    mask = np.zeros((8192, 256), bool)
    mask[::8, ::8] = True
    mask[100:3000, 100:140] = True
    tracemalloc.start()
    try:
        clean_mask(mask, ObjectLimits(2, 2))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3.5 * mask.size  # 32-bit numbers alone would take 4 bytes per pixel
