"""What ended processes left behind goes at once; what a living one writes stays, however old it is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from ml_backend.bootstrap import build_parts
from ml_backend.config import OWNER_VARIABLE, Settings
from ml_backend.processes import process_identity
from ml_backend.processes.process_identity import find_ended, name_scratch
from ml_backend.processes.scratch import scratch_file, sweep_scratch
from ml_backend.rounds.lease import name_owner
from ml_backend.rounds.orphans import end_orphans
from ml_backend.storage.artifacts import Artifacts
from ml_backend.storage.kept_maps import KeptMaps

LONG_AGO = (1000.0, 1000.0)


def run_to_its_end(code: str) -> str:
    """What a process printed that has ended since."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def ended_scratch() -> str:
    return run_to_its_end(
        "from ml_backend.processes.process_identity import name_scratch; print(name_scratch())"
    )


@pytest.fixture(scope="module")
def ended_owner() -> str:
    pid = run_to_its_end("import os; print(os.getpid())")
    machine, _, started, unique = name_owner().split("|")
    return f"{machine}|{pid}|{started}|{unique}"


def test_a_scratch_name_tells_whether_its_process_lives(ended_scratch: str) -> None:
    assert find_ended(name_scratch()) is False
    assert find_ended(ended_scratch) is True


@pytest.mark.parametrize("around", [".{}", "{}.x7y_", ".{}.abcd1234", "..{}"])
def test_names_made_of_a_scratch_name_tell_it_too(ended_scratch: str, around: str) -> None:
    assert find_ended(around.format(ended_scratch)) is True
    assert find_ended(around.format(name_scratch())) is False


@pytest.mark.parametrize("name", ["half", "0f" * 16, ".b.4711", "p-1-2-3", "r0001-0a1b2c3d"])
def test_of_other_names_nobody_can_say(name: str) -> None:
    assert find_ended(name) is None


def test_of_a_process_in_another_container_nobody_can_say(
    ended_scratch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_identity, "name_machine", lambda: "host:boot:pid:[42]")
    assert find_ended(ended_scratch) is None


def test_a_number_given_out_again_is_another_process() -> None:
    start, machine, pid, started, unique = name_scratch().split("-")
    assert find_ended("-".join((start, machine, pid, str(int(started) + 1), unique))) is True


def test_sweeping_heeds_the_process_first_and_age_where_nobody_can_say(
    tmp_path: Path, ended_scratch: str
) -> None:
    living = name_scratch()
    for name in (living, ended_scratch, "unknown-old", "unknown-new"):
        (tmp_path / name).write_bytes(b"half")
    for name in (living, "unknown-old"):
        os.utime(tmp_path / name, LONG_AGO)
    sweep_scratch(tmp_path, life_s=900.0)
    assert {path.name for path in tmp_path.iterdir()} == {living, "unknown-new"}


def test_a_scratch_file_is_gone_when_its_writer_fails(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError), scratch_file(tmp_path) as path:  # noqa: PT012
        path.write_bytes(b"half")
        tmp_path.write_bytes(b"no file")
    assert list(tmp_path.iterdir()) == []


def test_a_start_sweeps_images_label_maps_models_and_kept_features(
    tmp_path: Path, ended_scratch: str
) -> None:
    artifacts = Artifacts(tmp_path, "1-0")
    model = artifacts.scratch / f".{ended_scratch}.abcd1234"
    model.mkdir(parents=True)
    artifacts.maps.mkdir()
    images = tmp_path / "images" / "scratch"
    images.mkdir(parents=True)
    left = [model / "weights", artifacts.scratch / ended_scratch, artifacts.maps / f".{ended_scratch}"]
    left.append(images / ended_scratch)
    living = [artifacts.scratch / name_scratch(), images / name_scratch()]
    for path in (*left, *living):
        path.write_bytes(b"half")
    build_parts(Settings(data_dir=tmp_path))
    assert not any(path.exists() for path in left)
    assert not model.exists()
    assert all(path.exists() for path in living)


def test_a_folder_that_cannot_be_swept_keeps_nobody_from_starting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "scratch").mkdir()
    (tmp_path / "projects").mkdir()
    (tmp_path / "projects" / "1-0").mkdir()
    (tmp_path / "projects" / "1-0" / "maps").symlink_to("maps")  # a circle: nothing can be listed there
    build_parts(Settings(data_dir=tmp_path))
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_training_that_was_killed_while_it_wrote_leaves_nothing(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path, "1-0")
    output = artifacts.new_scratch()
    half = artifacts.scratch / f".{output.name}.abcd1234"
    half.mkdir()
    (half / "weights").write_bytes(b"half")
    artifacts.discard(output)
    assert list(artifacts.scratch.iterdir()) == []


def test_maps_that_a_killed_training_left_go_with_the_next_that_are_kept(
    tmp_path: Path, ended_scratch: str
) -> None:
    (tmp_path / f".{ended_scratch}").write_bytes(b"half")
    (tmp_path / f".{name_scratch()}").write_bytes(b"of a training that goes on")
    KeptMaps(tmp_path).save("a", [np.ones((1, 1, 1), np.float16)])
    assert len(list(tmp_path.iterdir())) == 2


@pytest.fixture
def sleepers() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


def test_a_worker_ends_what_outlived_an_ended_one_and_spares_all_others(
    sleepers: list[subprocess.Popen[bytes]], ended_owner: str
) -> None:
    marks = (ended_owner, name_owner(), "somebody else's", None)
    for mark in marks:
        environment = {name: value for name, value in os.environ.items() if name != OWNER_VARIABLE}
        environment |= {OWNER_VARIABLE: mark} if mark else {}
        command = [sys.executable, "-c", "import time; time.sleep(600)"]
        sleepers.append(subprocess.Popen(command, env=environment))
    orphan, *others = sleepers
    assert orphan.pid in end_orphans()
    orphan.wait(10)
    assert all(other.poll() is None for other in others)
    assert all(psutil.Process(other.pid).is_running() for other in others)
