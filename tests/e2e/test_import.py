"""Files of microscopes through the real Label Studio: shown, learnt from with all channels, never doubled."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import tifffile
from PIL import Image
from running_services import Backend, RealLabelStudio, run_backend

from ml_backend.label_studio.client import LabelStudioClient
from ml_backend.label_studio.image_files import read_image
from ml_backend.label_studio.image_frame import ImageLimits
from ml_backend.ports import TaskSummary

SIDE = 160


@pytest.fixture(scope="module")
def backend(label_studio: RealLabelStudio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    folder = tmp_path_factory.mktemp("import-backend")
    with run_backend(label_studio, folder, MIN_PIXELS_PER_CLASS="500", ROUND_STEPS="30") as backend:
        yield backend


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    """Discs, numbered from 1."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    numbers = np.zeros((SIDE, SIDE), np.uint16)
    for number, (top, left) in enumerate(((30, 30), (30, 110), (80, 70), (125, 30), (125, 120)), 1):
        numbers[(rows - top) ** 2 + (columns - left) ** 2 < 20**2] = number
    return numbers


@pytest.fixture(scope="module")
def pixels(truth: np.ndarray) -> np.ndarray:
    """Four channels of 16 bits; only the last one shows the discs."""
    noise = np.random.default_rng(4).integers(200, 900, (SIDE, SIDE, 4))
    noise[:, :, 3] += 3000 * (truth > 0)
    return noise.astype(np.uint16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, pixels: np.ndarray) -> Path:
    folder = tmp_path_factory.mktemp("cells")
    (folder / "well 1").mkdir()
    tifffile.imwrite(
        folder / "well 1" / "cells.ome.tif",
        np.moveaxis(pixels, 2, 0),
        metadata={"axes": "CYX", "Channel": {"Name": ["DAPI", "GFP", "RFP", "Cy5"]}},
        compression="lzw",
    )
    Image.fromarray((pixels[:, :, 3] >> 4).astype(np.uint8)).save(folder / "plain.png")
    (folder / "torn.tif").write_bytes((folder / "well 1" / "cells.ome.tif").read_bytes()[:3000])
    return folder


def run_import(backend: Backend, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ml_backend.command.cli", "import", *arguments],
        env=dict(backend.environment),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def list_sources(backend: Backend) -> set[Path]:
    """The originals that were kept, of all projects."""
    return set(Path(backend.environment["DATA_DIR"]).glob("projects/*/sources/*.tif"))


def list_tasks(label_studio: RealLabelStudio, project_id: int) -> dict[str, TaskSummary]:
    summaries = LabelStudioClient(label_studio.connection).iter_task_summaries(project_id)
    return {str(summary.data["file"]): summary for summary in summaries}


def set_up(label_studio: RealLabelStudio, backend: Backend, title: str) -> int:
    backend.command("setup", "--title", title)
    rows = label_studio.connection.request("GET", "/api/projects", params={"title": title})["results"]
    return int(rows[0]["id"])


def test_people_see_a_picture_and_the_network_reads_every_channel(
    label_studio: RealLabelStudio, backend: Backend, folder: Path, pixels: np.ndarray
) -> None:
    project_id = set_up(label_studio, backend, "Import")
    before = list_sources(backend)
    done = run_import(backend, str(folder), "--project", str(project_id))
    assert done.returncode == 1, done.stderr
    assert "left out: torn.tif: " in done.stdout
    tasks = list_tasks(label_studio, project_id)
    assert sorted(tasks) == ["plain.png", "well 1/cells.ome.tif"]

    task = tasks["well 1/cells.ome.tif"]
    assert task.data["channels"] == "DAPI, GFP, RFP, Cy5"
    shown = httpx.get(
        label_studio.url + str(task.data["image"]), headers={"Authorization": f"Token {label_studio.api_key}"}
    )
    assert shown.headers["content-type"] == "image/png"
    (kept,) = list_sources(backend) - before
    assert task.data["source"] == f"brushloop-source:{kept.name}"
    assert np.array_equal(read_image(kept, ImageLimits(10**9, 10**9)), pixels)
    assert "source" not in tasks["plain.png"].data

    again = run_import(backend, str(folder), "--project", str(project_id))
    assert "0 tasks of 3 files were made, 2 were there already" in again.stdout
    assert len(list_tasks(label_studio, project_id)) == 2


def test_masks_of_another_tool_teach_all_channels(
    label_studio: RealLabelStudio, backend: Backend, folder: Path, truth: np.ndarray, tmp_path: Path
) -> None:
    project_id = set_up(label_studio, backend, "Masks")
    tifffile.imwrite(tmp_path / "cells_masks.tif", truth)
    done = run_import(backend, str(folder / "well 1"), "--project", str(project_id), "--masks", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of all have a mask from here" in done.stdout
    (task,) = list_tasks(label_studio, project_id).values()
    annotation = LabelStudioClient(label_studio.connection).get_task(task.task_id).annotations[0]
    regions = [entry for entry in annotation.result if entry["type"] == "brushlabels"]
    assert len(regions) == 5
    assert {entry["meta"]["text"][0] for entry in regions} == {"Imported from cells_masks.tif"}

    status = backend.wait_until_learnt(project_id, 1)
    assert status["readiness"]["ready"]
    # Only the fourth channel shows the discs, so a model that finds them has read it.
    picture = backend.get(f"/api/projects/{project_id}/tasks/{task.task_id}/label_map.png")
    found = np.asarray(Image.open(io.BytesIO(picture)).convert("P")) == 1
    overlap = 2 * (found & (truth > 0)).sum() / (found.sum() + (truth > 0).sum())
    assert overlap > 0.8

    # The way out names results as the way in named the files.
    backend.command("export", str(project_id), "--out", str(tmp_path / "out"))
    exported = np.asarray(Image.open(tmp_path / "out" / "cells.png"))
    assert np.array_equal(exported == 1, truth > 0)
