"""What is no file in the place of a file: nobody waits for it, and what can be made again takes its place."""

from __future__ import annotations

import errno
import os
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from bright_model import bright_is_nucleus
from loop_fakes import make_bench

from core.errors import CheckpointError, ImageUnavailableError
from core.network.base_weights import load_base
from core.network.checkpoint import load_checkpoint, save_checkpoint
from ml_backend.label_studio.image_cache import ImageCache, write_pixels
from ml_backend.processes.scratch import make_folder, put
from ml_backend.rounds.troubles import describe, judge
from ml_backend.storage.kept_maps import KeptMaps
from ml_backend.storage.label_map_files import read_map, read_shape

pytestmark = pytest.mark.timeout(120)


def become_a_pipe(path: Path) -> None:
    os.mkfifo(path)


def become_a_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # an address is short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path.name)
    os.chdir(here)


def become_a_folder(path: Path) -> None:
    (path / "below").mkdir(parents=True)


def become_a_loop(path: Path) -> None:
    path.symlink_to(path)


ODD = pytest.mark.parametrize(
    "become",
    [become_a_pipe, become_a_socket, become_a_folder, become_a_loop],
    ids=lambda become: become.__name__,
)
Become = Callable[[Path], None]


def fill(number: int) -> Callable[[Path], None]:
    return lambda path: write_pixels(path, np.full((4, 5, 1), number, np.uint8))


@ODD
def test_a_label_map_that_is_no_file_counts_as_damaged(tmp_path: Path, become: Become) -> None:
    for name in ("1-1.npz", "1-1.npy"):
        become(tmp_path / name)
        for read in (read_shape, read_map):
            with pytest.raises(ImageUnavailableError, match="cannot be read"):
                read(tmp_path / name)


@ODD
def test_a_checkpoint_that_is_no_file_counts_as_damaged(tmp_path: Path, become: Become) -> None:
    for name in ("checkpoint.json", "weights.safetensors"):
        folder = save_checkpoint(bright_is_nucleus(), tmp_path / name)
        (folder / name).unlink()
        become(folder / name)
        with pytest.raises(CheckpointError, match="cannot read"):
            load_checkpoint(folder)


@ODD
def test_base_weights_that_are_no_file_cannot_be_read(tmp_path: Path, become: Become) -> None:
    become(tmp_path / "weights.safetensors")
    with pytest.raises(CheckpointError, match="cannot read"):
        load_base(tmp_path)


@ODD
@pytest.mark.parametrize("name", ["images", "images/1-1", "images/1-1/abc.npy", "images/scratch"])
def test_the_image_cache_makes_its_files_and_folders_again(tmp_path: Path, become: Become, name: str) -> None:
    cache = ImageCache(tmp_path / "images", 10**6)
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    become(tmp_path / name)
    if not (name.endswith("1-1") and become is become_a_folder):
        assert cache.find("1-1/abc") is None
    cache.fill("1-1/abc", fill(7))
    found = cache.find("1-1/abc")
    assert found is not None
    assert found[0, 0, 0] == 7


@ODD
@pytest.mark.parametrize("name", ["maps", "maps/a"])
def test_feature_maps_are_made_again(tmp_path: Path, become: Become, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    become(tmp_path / name)
    kept = KeptMaps(tmp_path / "maps")
    assert kept.load("a") is None
    kept.save("a", [np.ones((2, 2), np.float16)])
    assert kept.load("a") is not None


def test_a_link_to_a_disk_that_is_away_stays(tmp_path: Path) -> None:
    (tmp_path / "models").symlink_to(tmp_path / "away" / "models")
    with pytest.raises(FileExistsError):
        make_folder(tmp_path / "models")
    assert (tmp_path / "models").is_symlink()


@pytest.mark.parametrize("is_folder", [False, True])
def test_what_is_finished_gets_its_place_on_another_disk_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_folder: bool
) -> None:
    scratch, place = tmp_path / "scratch" / "new", tmp_path / "models" / "r0001"
    for folder in (scratch if is_folder else scratch.parent, place.parent):
        folder.mkdir(parents=True)
    (scratch / "weights" if is_folder else scratch).write_bytes(b"learnt")
    rename = Path.replace

    def cross(path: Path, target: Path) -> Path:
        if path.parent != Path(target).parent:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        return rename(path, target)

    monkeypatch.setattr(Path, "replace", cross)
    put(scratch, place)
    assert (place / "weights" if is_folder else place).read_bytes() == b"learnt"
    assert not scratch.exists()
    assert [path.name for path in place.parent.iterdir()] == ["r0001"]


@contextmanager
def without_file_handles() -> Iterator[None]:
    """No file can be opened: as many are open as the process may have."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, before[1]))
    taken = []
    try:
        while True:
            taken.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        yield
    finally:
        for handle in taken:
            os.close(handle)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_too_many_open_files_damage_nothing_and_are_named_with_the_remedy(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    bench = make_bench(tmp_path / "data")
    bench.submit(1)
    version = bench.loop.run_round(1)
    cache = ImageCache(tmp_path / "images", 10**6)
    cache.fill("1-1/abc", fill(7))
    artifacts = bench.parts.artifacts(bench.loop._get(1))
    (truth,) = artifacts.truth.glob("1-*.npz")
    with without_file_handles():
        found = bench.loop.ready()
        for read in (
            lambda: load_checkpoint(artifacts.models / str(version)),
            lambda: read_shape(truth),
            lambda: cache.find("1-1/abc"),
        ):
            with pytest.raises(OSError, match="Too many open files"):
                read()
        assert bench.loop.suggest(1, [bench.task(1)], None, np.inf) == [None]
    assert "ulimit -n" in found["checks"]["disk"]
    assert cache.find("1-1/abc") is not None
    status = bench.status()
    assert status["model_version"] == version
    assert status["last_error"] is None or "worker" in status["last_error"]
    assert bench.loop.suggest(1, [bench.task(1)], None, np.inf) != [None]
    bench.close()


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.EMFILE, "ulimit -n"),
        (errno.EROFS, "for writing"),
        (errno.EACCES, "right to read and write"),
        (errno.EIO, "kernel's log"),
        (errno.ELOOP, "see DATA_DIR"),
    ],
)
def test_a_failure_of_a_file_is_said_with_its_remedy(number: int, remedy: str) -> None:
    assert remedy in describe(OSError(number, os.strerror(number)))


def test_a_process_that_cannot_be_forked_is_trouble_of_memory() -> None:
    assert judge(OSError(errno.ENOMEM, "Cannot allocate memory")).trouble == "memory"
