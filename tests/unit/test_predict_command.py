"""`brushloop predict`: what the model says of a folder of images, as files of other tools."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet
import pytest
import tifffile
from bright_model import SCHEMA, bright_is_nucleus, save_bright_model, squares
from click.testing import CliRunner, Result
from loop_fakes import make_bench
from PIL import Image

import brushloop
from core.network.checkpoint import load_checkpoint, save_checkpoint
from core.network.predict import Predictor
from export.label_files import read_label_png
from ml_backend.command.cli import commands
from ml_backend.label_studio.image_files import read_image
from ml_backend.label_studio.image_frame import ImageLimits
from ml_backend.storage.models import StoredModel, add_model, set_current
from ml_backend.storage.projects import get_project, remember_project
from ml_backend.suggestions.pictures import to_indexed_png

UM = {"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}
"""Two pixels per micrometre."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bright_model(tmp_path_factory.mktemp("models"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    images = tmp_path / "images"
    (images / "plate").mkdir(parents=True)
    Image.fromarray(squares(2)).save(images / "two.png")
    tifffile.imwrite(images / "plate" / "three.tif", squares(3), **UM)
    return images


def run(*arguments: object) -> Result:
    return CliRunner().invoke(commands, ["predict", *map(str, arguments)])


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_image_gets_a_label_map_instances_an_overlay_and_rows(folder, model, tmp_path):
    out = tmp_path / "out"
    answer = run(folder, "--model", model, "--out", out)
    assert answer.exit_code == 0, answer.output
    assert "2 of 2 images, 5 objects" in answer.output
    label_map, classes = read_label_png(out / "label_maps" / "two.png")
    assert (label_map == (squares(2) > 0)).all()
    assert [(c["value"], c["name"]) for c in classes] == [(0, "Background"), (1, "Nucleus"), (255, "")]
    instances = tifffile.imread(out / "instances" / "plate" / "three.tif")
    assert instances.dtype == np.uint16
    assert np.unique(instances).tolist() == [0, 1, 2, 3]
    assert cv2.imread(str(out / "overlays" / "two.png")).shape == (60, 90, 3)
    rows = read_table(out / "objects.csv")
    assert [row["image"] for row in rows] == ["plate/three.tif"] * 3 + ["two.png"] * 2
    first = rows[0]
    assert (first["class"], first["area"], first["intensity_mean-0"]) == ("Nucleus", "400", "250.0")
    assert [first[f"bbox-{side}"] for side in range(4)] == ["10", "10", "30", "30"]
    assert float(first["centroid-0"]) == float(first["centroid_um-0"]) * 2 == 19.5
    assert float(first["area_um2"]) == pytest.approx(100)
    assert 0.9 < float(first["confidence_mean"]) <= 1
    assert rows[-1]["area_um2"] == ""  # a PNG says nothing of the size of its pixels


@pytest.fixture
def bench(tmp_path):
    bench = make_bench(tmp_path)
    yield bench
    bench.close()


def test_the_answer_is_the_services_tile_for_tile(bench, tmp_path):
    """A picture of several tiles: the loop's own prediction, and the public face, say the same."""
    image = np.random.default_rng(3).integers(0, 256, (520, 700), np.uint8)
    (tmp_path / "images").mkdir()
    Image.fromarray(image).save(tmp_path / "images" / "large.png")
    with bench.parts.database.write() as connection:
        remember_project(connection, 1, None)
        project = get_project(connection, 1)
        add_model(connection, 1, StoredModel("r0001-a", 1, None, False, 1, 0.0, "{}", "r0001-a"))
        set_current(connection, 1, "r0001-a")
    saved = save_checkpoint(bright_is_nucleus(), bench.parts.artifacts(project).models / "r0001-a")
    out = tmp_path / "out"
    options = ("--data-dir", bench.parts.settings.data_dir, "--out", out)
    answer = run(tmp_path / "images", "--project", 1, *options)
    assert answer.exit_code == 0, answer.output
    settings = bench.parts.settings
    served = Predictor(load_checkpoint(saved), settings.predict_threads).predict(
        read_image(tmp_path / "images" / "large.png", ImageLimits(10**8, 10**8)), keep_details=False
    )
    label_map, _ = read_label_png(out / "label_maps" / "large.png")
    assert (label_map == served.label_map).all()
    shown = np.asarray(Image.open(io.BytesIO(to_indexed_png(served.label_map))))
    assert (label_map == shown).all()
    face = brushloop.load_model(saved).predict(image)
    assert (tifffile.imread(out / "instances" / "large.tif") == face.objects).all()


def test_probabilities_and_uncertainty_are_ome_tiffs_with_named_channels(folder, model, tmp_path):
    out = tmp_path / "out"
    assert run(folder, "--model", model, "--out", out, "--probabilities", "--uncertainty").exit_code == 0
    with tifffile.TiffFile(out / "probabilities" / "plate" / "three.ome.tif") as tiff:
        assert tiff.is_ome
        assert 'Name="Nucleus"' in tiff.ome_metadata
        assert 'PhysicalSizeX="0.5"' in tiff.ome_metadata
        probabilities = tiff.asarray()
    assert probabilities.shape == (2, 60, 130)
    assert probabilities.sum(0) == pytest.approx(np.ones((60, 130)), abs=2e-3)
    entropy = tifffile.imread(out / "uncertainty" / "two.entropy.ome.tif")
    assert (entropy >= 0).all()
    assert (entropy <= np.log(2) + 1e-3).all()


def test_a_second_run_does_only_what_is_missing(folder, model, tmp_path):
    out = tmp_path / "out"
    run(folder, "--model", model, "--out", out)
    (out / ".records" / "two.json").unlink()
    kept = out / "label_maps" / "plate" / "three.png"
    before = kept.stat().st_mtime_ns
    answer = run(folder, "--model", model, "--out", out)
    assert "2 of 2 images (1 of them before), 5 objects" in answer.output
    assert kept.stat().st_mtime_ns == before


def test_an_image_that_changed_or_another_wish_is_done_again(folder, model, tmp_path):
    out = tmp_path / "out"
    run(folder, "--model", model, "--out", out)
    Image.fromarray(squares(1)).save(folder / "two.png")
    assert "4 objects" in run(folder, "--model", model, "--out", out).output
    assert "before" not in run(folder, "--model", model, "--out", out, "--uncertainty").output


def test_what_cannot_be_read_is_listed_with_its_reason_and_the_rest_goes_on(folder, model, tmp_path):
    (folder / "broken.png").write_bytes(b"no picture at all")
    out = tmp_path / "out"
    answer = run(folder, "--model", model, "--out", out)
    assert answer.exit_code == 1
    assert "2 of 3 images" in answer.output
    assert "left out: broken.png: what came is no image" in answer.output
    (row,) = read_table(out / "left_out.csv")
    assert row["image"] == "broken.png"
    assert not list(out.rglob("*broken*"))


def test_slices_have_results_and_rows_of_their_own(folder, model, tmp_path):
    stack = np.stack([squares(2), squares(2)])
    tifffile.imwrite(folder / "film.tif", stack, imagej=True, metadata={"axes": "TYX"})
    out = tmp_path / "out"
    assert run(folder, "--model", model, "--out", out).exit_code == 0
    rows = [row for row in read_table(out / "objects.csv") if row["image"] == "film.tif"]
    assert [row["frame"] for row in rows] == ["t00", "t00", "t01", "t01"]
    assert (out / "overlays" / "film-t01.png").exists()
    assert "(3 of them before)" in run(folder, "--model", model, "--out", out).output


def test_pages_without_axes_are_asked_about_and_then_predicted(folder, model, tmp_path):
    stack = np.stack([squares(2), squares(2)])
    tifffile.imwrite(folder / "film.tif", stack, photometric="minisblack", metadata=None)
    out = tmp_path / "out"
    answer = run(folder, "--model", model, "--out", out)
    assert answer.exit_code == 1
    assert "--axes ZYX" in answer.output
    assert run(folder, "--model", model, "--out", out, "--axes", "zyx").exit_code == 0
    assert (out / "label_maps" / "film-z01.png").exists()


def test_what_is_no_readable_image_is_listed_beside_the_table(folder, model, tmp_path):
    (folder / "raw.dng").write_bytes(b"II*\0")
    Image.fromarray(squares(1)).save(
        folder / "moves.gif", save_all=True, append_images=[Image.fromarray(squares(1) // 2)]
    )
    out = tmp_path / "out"
    answer = run(folder, "--model", model, "--out", out)
    assert answer.exit_code == 1
    assert "note: moves.gif: 1 further pictures" in answer.output
    assert [row["image"] for row in read_table(out / "left_out.csv")] == ["raw.dng"]


def test_files_of_one_stem_keep_their_endings(folder, model, tmp_path):
    Image.fromarray(squares(1)).save(folder / "two.bmp")
    out = tmp_path / "out"
    run(folder, "--model", model, "--out", out)
    assert {path.name for path in (out / "label_maps").glob("*.png")} == {"two.png.png", "two.bmp.png"}


def test_several_processes_say_the_same_as_one(folder, model, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    assert run(folder, "--model", model, "--out", one).exit_code == 0
    command = [sys.executable, "-m", "ml_backend.command.cli", "predict", folder, "--model", model]
    subprocess.run([*command, "--out", two, "--processes", "2"], check=True, capture_output=True)
    assert (one / "objects.csv").read_text() == (two / "objects.csv").read_text()
    name = "instances/plate/three.tif"
    assert (tifffile.imread(one / name) == tifffile.imread(two / name)).all()


def test_the_table_can_be_parquet_with_types(folder, model, tmp_path):
    out = tmp_path / "out"
    assert run(folder, "--model", model, "--out", out, "--table", "parquet").exit_code == 0
    table = pyarrow.parquet.read_table(out / "objects.parquet").to_pylist()
    assert [row["label"] for row in table] == [1, 2, 3, 1, 2]
    assert table[0]["area_um2"] == pytest.approx(100)
    assert table[-1]["area_um2"] is None
    assert table[-1]["touches_border"] is False


def test_label_maps_can_be_tiffs_with_the_classes_inside(folder, model, tmp_path):
    out = tmp_path / "out"
    assert run(folder, "--model", model, "--out", out, "--label-maps", "tiff").exit_code == 0
    with tifffile.TiffFile(out / "label_maps" / "two.tif") as tiff:
        told = json.loads(tiff.pages[0].description)
        assert (tiff.asarray() == (squares(2) > 0)).all()
    assert [c["name"] for c in told["brushloop.classes"]][:2] == list(SCHEMA.names)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "say which model"),
        (("--model", ".", "--project", 1), "say which model"),
        (("--model", ".", "--version", "r1"), "--version goes with --project"),
    ],
)
def test_which_model_is_said_once(folder, tmp_path, arguments, said):
    answer = run(folder, "--out", tmp_path / "out", *arguments)
    assert answer.exit_code == 2
    assert said in answer.output
