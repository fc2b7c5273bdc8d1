"""Label maps on disk: compressed, read part by part, and never wrong without a word."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from core.errors import ImageUnavailableError
from ml_backend.storage import label_map_files
from ml_backend.storage.label_map_files import PARTS, find_wrong_class, read_map, read_shape, write_maps

SHAPE = (60, 83)


def draw_maps() -> list[np.ndarray]:
    painted = np.full(SHAPE, 255, np.uint8)
    painted[10:40, 20:60] = 0
    painted[20:30, 30:50] = 1
    held_out = np.full(SHAPE, 255, np.uint8)
    held_out[25:35, 20:60] = painted[25:35, 20:60]
    train = np.where(held_out == 255, painted, 255).astype(np.uint8)
    return [painted, train, held_out]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "1-1.npz"
    with path.open("wb") as file:
        write_maps(file, draw_maps())
    return path


def test_each_map_is_read_as_it_was_written(path: Path) -> None:
    for part, label_map in zip(PARTS, draw_maps(), strict=True):
        assert np.array_equal(read_map(path, part), label_map)
    assert read_shape(path) == SHAPE


def test_numpy_reads_the_file_too(path: Path) -> None:
    with np.load(path) as stored:
        assert [np.array_equal(stored[part], drawn) for part, drawn in zip(PARTS, draw_maps(), strict=True)]


def test_a_large_map_that_lasts_is_a_file_and_not_memory(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_map_files, "IN_MEMORY_PX", 100)
    opened = read_map(path, "train", is_lasting=True)
    assert isinstance(opened, np.memmap)
    assert np.array_equal(opened, draw_maps()[1])
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_file_of_an_earlier_version_is_still_read(tmp_path: Path) -> None:
    path = tmp_path / "1-1.npy"
    np.save(path, np.stack(draw_maps()))
    for part, label_map in zip(PARTS, draw_maps(), strict=True):
        assert np.array_equal(read_map(path, part, is_lasting=True), label_map)
    assert read_shape(path) == SHAPE


def test_the_maps_of_a_large_image_take_a_fiftieth_of_a_byte_a_pixel(tmp_path: Path) -> None:
    large = np.full((1500, 1500), 255, np.uint8)
    large[200:400, 100:1300] = 1
    with (tmp_path / "1-1.npz").open("wb") as file:
        write_maps(file, [large, large, np.full_like(large, 255)])
    assert (tmp_path / "1-1.npz").stat().st_size < large.size / 50


def test_a_wrong_class_is_found_in_any_of_the_maps(path: Path) -> None:
    maps = draw_maps()
    maps[2][0, 0] = 7
    with path.open("wb") as file:
        write_maps(file, maps)
    assert find_wrong_class(path, 1, 1, 2) == 7
    assert find_wrong_class(path, 1, 1, 8) is None


def test_no_changed_byte_gives_another_map(path: Path) -> None:
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.choice(len(whole), 200, replace=False):
        broken = bytearray(whole)
        broken[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(broken)
        for part, label_map in zip(PARTS, draw_maps(), strict=True):
            with suppress(ImageUnavailableError):
                assert np.array_equal(read_map(path, part), label_map), place


@pytest.mark.parametrize("n_bytes", [0, 1, 50, 300])
def test_a_file_that_is_cut_off_is_said_to_be_unreadable(path: Path, n_bytes: int) -> None:
    path.write_bytes(path.read_bytes()[:n_bytes])
    with pytest.raises(ImageUnavailableError, match=r"label maps 1-1\.npz cannot be read"):
        read_shape(path)
