"""Commands that neither train nor predict start without torch, which takes half a gigabyte and seconds."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from loop_fakes import make_bench
from PIL import Image
from stored_rows import open_database

from bench.fake_label_studio import API_KEY, FakeLabelStudio
from bench.fake_label_studio_app import build_app, run_app
from bench.fake_uploads import add_uploads
from export.label_files import read_label_png
from ml_backend.storage.projects import remember_project

ROOT = Path(__file__).parents[2]
WITHOUT_TORCH = (
    "import sys; sys.modules['torch'] = None; from ml_backend.command.cli import commands; commands()"
)
"""Whatever imports torch fails there."""


def run_without_torch(*words: str, **told: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT_TORCH, *words]
    # Nothing of this shell: a DATA_DIR or an address of somebody's would be taken.
    return subprocess.run(
        command, cwd=ROOT, env={"HOME": "/nowhere", **told}, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("command", ["import", "export"])
def test_help_needs_no_torch(command: str) -> None:
    done = run_without_torch(command, "--help")
    assert done.returncode == 0, done.stderr
    assert f"{command} [OPTIONS]" in done.stdout


def test_an_import_needs_no_torch(tmp_path: Path) -> None:
    folder, data_dir = tmp_path / "images", tmp_path / "data"
    folder.mkdir()
    Image.new("L", (60, 40), 90).save(folder / "a.png")
    Image.new("L", (60, 40), 1).save(folder / "a_mask.png")
    fake = FakeLabelStudio({1: 40})
    app = build_app(fake)
    uploads = add_uploads(app, fake)
    with closing(open_database(data_dir)) as database, database.write() as connection:
        remember_project(connection, 1, None)
    words = ("import", str(folder), "--project", "1", "--masks", str(folder), "--data-dir", str(data_dir))
    with run_app(fake, app) as url:
        done = run_without_torch(*words, LABEL_STUDIO_URL=url, LABEL_STUDIO_API_KEY=API_KEY)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(uploads) == 1
    assert "1 of all have a mask from here" in done.stdout


def test_an_export_of_truth_needs_no_torch(tmp_path: Path) -> None:
    bench = make_bench(tmp_path / "data")
    bench.submit(1)
    bench.loop.build_truth(1)
    bench.close()
    out = tmp_path / "out"
    done = run_without_torch("export", "1", "--out", str(out), "--data-dir", str(tmp_path / "data"))
    assert done.returncode == 0, done.stdout + done.stderr
    label_map, _ = read_label_png(out / "1.png")
    assert set(label_map.ravel().tolist()) >= {0, 1}
