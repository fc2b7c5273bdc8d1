"""Outlines for ImageJ and QuPath, filled again: the same pixels as the masks."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest
import roifile
from skimage.measure import points_in_poly

from core.schema import IGNORE_INDEX, LabelSchema
from export.colours import colour_of
from export.formats import WRITERS
from export.pixel_edges import outline_parts
from export.result import Result

SCHEMA = LabelSchema.of("Nucleus", "Background", "Mitosis / late")


@pytest.fixture
def result():
    label_map = np.full((40, 60), IGNORE_INDEX, np.uint8)
    label_map[:30] = 1
    label_map[5:15, 5:15] = 0
    label_map[7:10, 8:12] = 1  # a hole
    label_map[8, 9] = 0  # and an object in it
    label_map[20:26, 40:52] = 2
    label_map[26:29, 52:55] = 2  # meets the last at a corner
    label_map[39, 59] = label_map[0, 0] = 0  # single pixels in corners
    speckled = np.random.default_rng(3).random((10, 20)) < 0.6
    label_map[30:40, 20:40] = np.where(speckled, 2, 1)
    return Result("a", "a.png", label_map, lambda: np.zeros((40, 60, 1), np.uint8))


def fill(rings, shape):
    """Pixels whose centre lies in an odd number of rings."""
    rows, columns = np.indices(shape)
    centres = np.stack([columns.ravel(), rows.ravel()], axis=1) + 0.5
    inside = [points_in_poly(centres, np.asarray(ring, float)) for ring in rings]
    return (np.sum(inside, axis=0) % 2 == 1).reshape(shape)


def only_objects(label_map):
    return np.where(label_map == 1, IGNORE_INDEX, label_map)


def test_roifile_reads_the_same_masks(tmp_path, result):
    assert WRITERS["imagej"](tmp_path, [result], SCHEMA) == 1
    again = np.full(result.label_map.shape, IGNORE_INDEX, np.uint8)
    for roi in roifile.roiread(tmp_path / "a.zip"):
        name = roi.name.rpartition("-")[0]
        class_index = SCHEMA.names.index(name)
        assert roi.stroke_color == bytes((255, *colour_of(class_index)))
        again[fill(roi.coordinates(multi=True), again.shape)] = class_index
    assert (again == only_objects(result.label_map)).all()


def test_no_selection_in_the_archive_is_in_a_folder(tmp_path, result):
    WRITERS["imagej"](tmp_path, [result], SCHEMA)
    names = zipfile.ZipFile(tmp_path / "a.zip").namelist()
    assert "Mitosis _ late-0005.roi" in names
    assert not [name for name in names if "/" in name]


def test_geojson_gives_the_same_masks_with_holes_as_inner_rings(tmp_path, result):
    assert WRITERS["geojson"](tmp_path, [result], SCHEMA) == 1
    collection = json.loads((tmp_path / "a.geojson").read_text())
    assert collection["type"] == "FeatureCollection"
    again = np.full(result.label_map.shape, IGNORE_INDEX, np.uint8)
    for feature in collection["features"]:
        named = feature["properties"]["classification"]
        class_index = SCHEMA.names.index(named["name"])
        assert named["color"] == list(colour_of(class_index))
        geometry = feature["geometry"]
        polygons = geometry["coordinates"]
        for outer, *holes in [polygons] if geometry["type"] == "Polygon" else polygons:
            assert outer[0] == outer[-1]
            again[fill([outer, *holes], again.shape)] = class_index
    assert (again == only_objects(result.label_map)).all()


def test_rings_never_touch_themselves_and_holes_turn_the_other_way(result):
    parts = outline_parts(result.label_map != 1)
    assert sum(len(part) > 1 for part in parts) >= 2
    for part in parts:
        turns = []
        for ring in part:
            assert len({tuple(corner) for corner in ring.tolist()}) == len(ring)
            x, y = ring.T
            turns.append(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))
        assert turns[0] > 0
        assert all(turn < 0 for turn in turns[1:])


def test_in_noise_too_no_ring_touches_itself():
    rng = np.random.default_rng(1)
    for _ in range(20):
        for part in outline_parts(rng.random((40, 50)) < 0.7):
            for ring in part:
                assert len({tuple(corner) for corner in ring.tolist()}) == len(ring)


def test_an_image_without_objects_gives_files_without_any(tmp_path):
    empty = Result("b", "b.png", np.ones((4, 4), np.uint8), lambda: np.zeros((4, 4, 1), np.uint8))
    WRITERS["imagej"](tmp_path, [empty], SCHEMA)
    WRITERS["geojson"](tmp_path, [empty], SCHEMA)
    assert roifile.roiread(tmp_path / "b.zip") == []
    assert json.loads((tmp_path / "b.geojson").read_text())["features"] == []
