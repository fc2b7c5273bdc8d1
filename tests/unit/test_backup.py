"""A backup of a running installation comes back, also where database and files are of different ages."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from loop_fakes import Bench, make_bench

from ml_backend.command.backup import back_up, restore
from ml_backend.command.cli import commands
from ml_backend.config import Settings
from ml_backend.errors import ConflictError
from ml_backend.storage.database import SQLITE_NAME


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    torch.set_num_threads(1)
    bench = make_bench(tmp_path / "data")
    bench.submit(1)
    assert bench.loop.run_round(1) is not None
    return bench


def reopen(folder: Path, before: Bench) -> Bench:
    """A new process over a folder, with the same Label Studio."""
    after = make_bench(folder)
    after.server, after.images = before.server, before.images
    return after


def is_well(bench: Bench, n_annotations: int) -> bool:
    bench.clock.now += 400
    bench.loop.reconcile(1)
    bench.loop.build_truth(1)
    bench.loop.run_round(1)
    (answer,) = bench.loop.suggest(1, [bench.task(9)], None, np.inf)
    counts = bench.status()["annotations"]
    return answer is not None and counts == {
        "received": n_annotations,
        "trained": n_annotations,
        "pending": 0,
    }


def test_a_backup_made_while_running_comes_back_whole(bench: Bench, tmp_path: Path) -> None:
    back_up(bench.parts.settings, tmp_path / "kept")
    before = bench.status()
    bench.close()
    restore(Settings(data_dir=tmp_path / "again"), tmp_path / "kept")
    after = reopen(tmp_path / "again", bench)
    assert after.status()["model_version"] == before["model_version"]
    assert after.status()["annotations"] == before["annotations"]
    assert is_well(after, 1)
    after.close()


@pytest.mark.parametrize("newer", ["files", "database"])
def test_halves_of_different_ages_heal(bench: Bench, tmp_path: Path, newer: str) -> None:
    back_up(bench.parts.settings, tmp_path / "older")
    bench.submit(2)
    bench.loop.run_round(1)
    back_up(bench.parts.settings, tmp_path / "newer")
    bench.close()
    mixed, other = tmp_path / "mixed", "older" if newer == "files" else "newer"
    shutil.copytree(tmp_path / ("newer" if newer == "files" else "older"), mixed)
    shutil.copy2(tmp_path / other / SQLITE_NAME, mixed / SQLITE_NAME)
    restore(Settings(data_dir=tmp_path / "again"), mixed)
    after = reopen(tmp_path / "again", bench)
    assert is_well(after, 2)
    after.close()


def test_nothing_is_overwritten(bench: Bench, tmp_path: Path) -> None:
    back_up(bench.parts.settings, tmp_path / "kept")
    with pytest.raises(ConflictError, match="there already"):
        back_up(bench.parts.settings, tmp_path / "kept")
    with pytest.raises(ConflictError, match="not empty"):
        restore(bench.parts.settings, tmp_path / "kept")
    bench.close()


def test_a_project_is_forgotten_after_a_confirmation_alone(bench: Bench) -> None:
    folder = bench.parts.artifacts(bench.loop._get(1)).root
    bench.close()
    arguments = ["forget", "1", "--data-dir", str(bench.parts.settings.data_dir)]
    assert CliRunner().invoke(commands, arguments, input="n\n").exit_code != 0
    assert folder.exists()
    assert CliRunner().invoke(commands, arguments, input="y\n").exit_code == 0
    assert not folder.exists()
