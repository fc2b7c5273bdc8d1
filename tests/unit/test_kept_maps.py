"""Maps on disk: read back as they were, dropped when damaged, and never more than the limit."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ml_backend.storage.kept_maps import KeptMaps

MAPS = [np.arange(8, dtype=np.float16).reshape(2, 2, 2), np.ones((3, 1, 1), np.float16)]


def test_maps_are_read_back_as_they_were(tmp_path: Path) -> None:
    store = KeptMaps(tmp_path / "maps")
    assert store.load("a") is None
    store.save("a", MAPS)
    found = store.load("a")
    assert found is not None
    assert all((one == other).all() for one, other in zip(found, MAPS, strict=True))


def test_damaged_maps_are_not_there(tmp_path: Path) -> None:
    store = KeptMaps(tmp_path)
    store.save("a", MAPS)
    raw = bytearray((tmp_path / "a").read_bytes())
    raw[-1] ^= 1
    (tmp_path / "a").write_bytes(raw)
    assert store.load("a") is None
    assert not (tmp_path / "a").exists()
    store.save("a", MAPS)
    assert store.load("a") is not None


def test_above_the_limit_what_was_used_least_recently_goes(tmp_path: Path) -> None:
    KeptMaps(tmp_path).save("size", MAPS)
    size = (tmp_path / "size").stat().st_size
    (tmp_path / "size").unlink()
    store = KeptMaps(tmp_path, limit_bytes=2 * size)
    for age, name in ((30, "a"), (20, "b")):
        store.save(name, MAPS)
        os.utime(tmp_path / name, (age_s := (tmp_path / name).stat().st_mtime - age, age_s))
    assert store.load("a") is not None  # which makes it the latest
    store.save("c", MAPS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "c"]


def test_a_folder_that_cannot_be_written_costs_time_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    store = KeptMaps(tmp_path / "file" / "maps")
    store.save("a", MAPS)
    assert store.load("a") is None


def test_what_a_killed_training_left_half_written_is_swept_up(tmp_path: Path) -> None:
    for name, age_s in ((".b.4711", 3600), (".c.4712", 5)):
        (tmp_path / name).write_bytes(b"half")
        stamp = (tmp_path / name).stat().st_mtime - age_s
        os.utime(tmp_path / name, (stamp, stamp))
    KeptMaps(tmp_path).save("a", MAPS)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".c.4712", "a"]
