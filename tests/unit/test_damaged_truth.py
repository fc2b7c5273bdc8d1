"""What is derived from rows is made again from them: label maps and pictures."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from loop_fakes import Bench, make_bench

from ml_backend.errors import BusyError
from ml_backend.storage import health
from ml_backend.storage.label_map_files import PARTS, read_map, write_maps
from ml_backend.strokes.damaged_truth import mark_one_damaged


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    torch.set_num_threads(1)
    bench = make_bench(tmp_path)
    yield bench
    bench.close()


def map_of(bench: Bench, task_id: int) -> Path:
    folder = bench.parts.artifacts(bench.loop._get(1)).truth
    (path,) = folder.glob(f"{task_id}-*.npz")
    return path


def read_all(path: Path) -> list[np.ndarray]:
    return [read_map(path, part).copy() for part in PARTS]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def fill_with_garbage(path: Path) -> None:
    path.write_bytes(b"\x00" * path.stat().st_size)


def name_a_class_that_is_none(path: Path) -> None:
    maps = read_all(path)
    for label_map in maps:
        label_map[0, 0] = 7
    with path.open("wb") as file:
        write_maps(file, maps)


def become_a_folder(path: Path) -> None:
    path.unlink()
    (path / "below").mkdir(parents=True)


DAMAGES: list[Callable[[Path], None]] = [
    Path.unlink, truncate, empty, fill_with_garbage, become_a_folder, name_a_class_that_is_none,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_label_map_is_built_again_by_the_next_round(
    bench: Bench, damage: Callable[[Path], None]
) -> None:
    bench.submit(1)
    bench.loop.build_truth(1)
    before = read_all(map_of(bench, 1))
    damage(map_of(bench, 1))
    assert bench.loop.run_round(1) is not None
    assert np.array_equal(read_all(map_of(bench, 1)), before)
    assert bench.status()["annotations"] == {"received": 1, "trained": 1, "pending": 0}


@pytest.mark.parametrize("name", ["truth", "models", "pictures", ".", ".."])
def test_a_file_in_the_place_of_a_folder_gives_way_to_what_is_made_again(bench: Bench, name: str) -> None:
    bench.submit(1)
    first = bench.loop.run_round(1)
    bench.loop.picture(1, 1, "truth")
    folder = (bench.parts.artifacts(bench.loop._get(1)).root / name).resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.write_bytes(b"a file")
    bench.submit(2)
    newest = bench.loop.run_round(1)
    assert newest not in (None, first)
    assert bench.status()["annotations"] == {"received": 2, "trained": 2, "pending": 0}
    assert bench.loop.picture(1, 1, "truth").startswith(b"\x89PNG")
    # Nobody knows what a file in the place of a whole project is: it is kept.
    kept = [path.read_bytes() for path in folder.parent.glob(f"{folder.name}.displaced-*")]
    assert kept == ([b"a file"] if name in (".", "..") else [])


@pytest.mark.parametrize("damage", DAMAGES[:-1], ids=lambda damage: damage.__name__)
def test_a_damaged_label_map_spoils_no_answer_and_no_picture(
    bench: Bench, damage: Callable[[Path], None]
) -> None:
    bench.submit(1)
    bench.loop.run_round(1)
    damage(map_of(bench, 1))
    answers = bench.loop.suggest(1, [bench.task(1), bench.task(9)], None, np.inf)
    assert None not in answers
    assert bench.loop.build_truth(1) == 1
    damage(map_of(bench, 1))
    with pytest.raises(BusyError, match="made again"):
        bench.loop.picture(1, 1, "truth")
    assert bench.loop.build_truth(1) == 1
    assert bench.loop.picture(1, 1, "truth").startswith(b"\x89PNG")


@pytest.mark.parametrize("damage", DAMAGES[:-1], ids=lambda damage: damage.__name__)
def test_damaged_label_maps_are_said_until_they_are_built_again(
    bench: Bench, damage: Callable[[Path], None]
) -> None:
    with bench.parts.database.write() as connection:
        health.note_worker(connection, "elsewhere|1|1|w", bench.clock())
    bench.submit(1, 2)
    bench.loop.build_truth(1)
    damage(map_of(bench, 2))
    bench.loop.reconcile(1)
    assert "(1 of 2 tasks); they are made again" in bench.status()["last_error"]
    assert bench.loop.build_truth(1) == 1
    assert bench.status()["last_error"] is None
    assert read_all(map_of(bench, 2))


@pytest.mark.parametrize("meet", ["answer", "picture"])
def test_who_meets_a_damaged_label_map_says_so_until_it_is_built_again(
    bench: Bench, caplog: pytest.LogCaptureFixture, meet: str
) -> None:
    with bench.parts.database.write() as connection:
        health.note_worker(connection, "elsewhere|1|1|w", bench.clock())
    bench.submit(1)
    bench.loop.run_round(1)
    truncate(map_of(bench, 1))
    if meet == "answer":
        bench.loop.suggest(1, [bench.task(1)], None, np.inf)
    else:
        with pytest.raises(BusyError):
            bench.loop.picture(1, 1, "truth")
    assert "cannot be read" in bench.status()["last_error"]
    assert "rebuild_truth project=1 task=1" in caplog.text
    assert bench.loop.build_truth(1) == 1
    assert bench.status()["last_error"] is None


def test_label_maps_that_were_built_anew_and_swept_meanwhile_were_not_damaged(bench: Bench) -> None:
    bench.submit(1)
    bench.loop.run_round(1)
    mark_one_damaged(bench.parts, bench.loop._get(1), 1, "1-0.npz", "it is gone")
    assert bench.loop.build_truth(1) == 0


def test_a_picture_that_is_cut_off_is_drawn_again(bench: Bench) -> None:
    bench.submit(1)
    bench.loop.run_round(1)
    whole = bench.loop.picture(1, 1, "label_map")
    (path,) = bench.parts.artifacts(bench.loop._get(1)).pictures.rglob("1-label_map.png")
    for content in (b"", whole[:50]):
        path.write_bytes(content)
        assert bench.loop.picture(1, 1, "label_map") == whole
