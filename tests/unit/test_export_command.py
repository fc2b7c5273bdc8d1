"""`brushloop export`: what a project knows, read back with each format's own library."""

from __future__ import annotations

import json
import os
import subprocess

import cv2
import numpy as np
import pytest
import tifffile
import yaml
from loop_fakes import make_bench
from painted import make_picture
from PIL import Image
from pycocotools.coco import COCO

from core.schema import IGNORE_INDEX, LabelSchema
from export.errors import ExportError
from export.formats import WRITERS
from export.label_files import read_label_png
from export.result import Result, number_objects
from ml_backend.command.export_command import FORMS, write_form
from ml_backend.command.project_results import ProjectResults, renumber

SCHEMA = LabelSchema.of("Nucleus", "Background", "Mitosis")


@pytest.fixture
def result():
    label_map = np.full((40, 60), IGNORE_INDEX, np.uint8)
    label_map[:30] = 1
    label_map[5:15, 5:15] = label_map[5:15, 20:30] = 0
    label_map[20:26, 40:52] = 2
    label_map[22:24, 44:46] = 1  # a hole
    image = np.arange(40 * 60, dtype=np.uint16).reshape(40, 60, 1)
    return Result("a", "a.png", label_map, lambda: image)


def test_a_label_png_says_the_same_again(tmp_path, result):
    assert WRITERS["png"](tmp_path, [result], SCHEMA) == 1
    label_map, classes = read_label_png(tmp_path / "a.png")
    assert (label_map == result.label_map).all()
    assert [c["name"] for c in classes][:3] == list(SCHEMA.names)


def test_instances_are_one_number_per_object(tmp_path, result):
    WRITERS["instances"](tmp_path, [result], SCHEMA)
    objects, class_of = number_objects(result.label_map, SCHEMA)
    assert (tifffile.imread(tmp_path / "a.tif") == objects).all()
    assert class_of == (0, 0, 2)


def test_polygons_say_the_same_pixels_as_run_lengths(tmp_path, capsys):
    """Blobs of every form: with holes, in parts that meet at corners, at the edges, of one pixel."""
    rng = np.random.default_rng(0)
    names = [f"{number}" for number in range(30)]
    maps = [
        rng.choice(
            np.array([0, 1, 2, IGNORE_INDEX], np.uint8), rng.integers(3, 24, 2), p=[0.6, 0.2, 0.1, 0.1]
        )
        for _ in names
    ]
    results = [
        Result(name, name, label_map, lambda: None) for name, label_map in zip(names, maps, strict=True)
    ]
    WRITERS["coco"](tmp_path, results, SCHEMA)
    runs, polygons = COCO(str(tmp_path / "instances.json")), COCO(str(tmp_path / "polygons.json"))
    assert runs.getAnnIds() == polygons.getAnnIds()
    assert any(len(polygons.anns[number]["segmentation"]) > 1 for number in polygons.getAnnIds())
    for number in runs.getAnnIds():
        assert isinstance(polygons.anns[number]["segmentation"], list)
        expected, found = (coco.annToMask(coco.anns[number]) for coco in (runs, polygons))
        assert (found == expected).all()


def test_pycocotools_reads_the_same_masks(tmp_path, result, capsys):
    WRITERS["coco"](tmp_path, [result], SCHEMA)
    coco = COCO(str(tmp_path / "instances.json"))
    again = np.where(result.label_map == 1, 1, IGNORE_INDEX).astype(np.uint8)
    for annotation in coco.loadAnns(coco.getAnnIds()):
        mask = coco.annToMask(annotation).astype(bool)
        assert mask.sum() == annotation["area"]
        again[mask] = annotation["category_id"] - 1
    assert (again == result.label_map).all()
    assert {c["name"] for c in coco.loadCats(coco.getCatIds())} == {"Nucleus", "Mitosis"}


def test_opencv_fills_yolos_outlines_to_the_same_masks_but_for_holes(tmp_path, result):
    result.label_map[35, 3] = result.label_map[38:40, 58:60] = 0  # a single pixel, and one at the corner
    WRITERS["yolo"](tmp_path, [result], SCHEMA)
    again = np.full(result.label_map.shape, IGNORE_INDEX, np.uint8)
    for line in (tmp_path / "labels" / "a.txt").read_text().splitlines():
        number, *parts = line.split()
        points = np.array(parts, float).reshape(-1, 2) * result.label_map.shape[::-1]
        cv2.fillPoly(again, [points.round().astype(np.int32)], (0, 2)[int(number)])
    whole = np.where(result.label_map == 1, IGNORE_INDEX, result.label_map)
    whole[22:24, 44:46] = 2
    assert (again == whole).all()
    names = yaml.safe_load((tmp_path / "data.yaml").read_text())["names"]
    assert names == {0: "Nucleus", 1: "Mitosis"}


def test_nnunet_has_background_first_and_what_nobody_labelled_ignored(tmp_path, result):
    WRITERS["nnunet"](tmp_path, [result], SCHEMA)
    dataset = json.loads((tmp_path / "dataset.json").read_text())
    assert dataset["labels"] == {"background": 0, "Nucleus": 1, "Mitosis": 2, "ignore": 3}
    labels = np.asarray(Image.open(tmp_path / "labelsTr" / "a.png"))
    again = np.array([1, 0, 2, IGNORE_INDEX], np.uint8)[labels]
    assert (again == result.label_map).all()
    pixels = np.asarray(Image.open(tmp_path / "imagesTr" / "a_0000.png"))
    assert (pixels == result.load_image()[:, :, 0]).all()


READ_BY_NNUNET = """
import sys
import numpy as np
from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
from batchgenerators.utilities.file_and_folder_operations import load_json
folder, answer = sys.argv[1:]
verify_dataset_integrity(folder, num_processes=1)
image, label = f"{folder}/imagesTr/a_0000.png", f"{folder}/labelsTr/a.png"
reader = determine_reader_writer_from_dataset_json(load_json(f"{folder}/dataset.json"), image)()
np.savez(answer, image=reader.read_images([image])[0], label=reader.read_seg(label)[0])
"""


def test_nnunet_verifies_the_dataset_and_reads_the_same_pixels(tmp_path, result):
    if "NNUNET_VENV" not in os.environ:
        pytest.skip("NNUNET_VENV names no environment with nnunetv2")
    folder, answer = tmp_path / "Dataset103_Nuclei", tmp_path / "answer.npz"
    WRITERS["nnunet"](folder, [result], SCHEMA)
    command = [f"{os.environ['NNUNET_VENV']}/bin/python", "-c", READ_BY_NNUNET, str(folder), str(answer)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "verify_dataset_integrity Done" in done.stdout
    read = np.load(answer)
    assert (read["image"][0, 0] == result.load_image()[:, :, 0]).all()
    labels = read["label"][0, 0].astype(int)  # nnU-Net reads them as floats
    assert (np.array([1, 0, 2, IGNORE_INDEX], np.uint8)[labels] == result.label_map).all()


def test_nnunet_refuses_images_of_other_channels(tmp_path, result):
    two = Result("b", "b.tif", result.label_map, lambda: np.zeros((40, 60, 2), np.uint8))
    with pytest.raises(ExportError, match=r"b\.tif has 2 channels"):
        WRITERS["nnunet"](tmp_path, [two], SCHEMA)


def test_classes_move_by_name_and_those_that_are_gone_are_unlabelled():
    old = np.array([[0, 1, 255]], np.uint8)
    moved = renumber(old, ("Nucleus", "Gone"), LabelSchema.of("Background", "Nucleus"))
    assert moved.tolist() == [[1, 255, 255]]


@pytest.fixture
def bench(tmp_path):
    bench = make_bench(tmp_path)
    yield bench
    bench.close()


def test_a_project_gives_its_truth_its_predictions_and_the_first_over_the_second(bench, tmp_path):
    bench.submit(1, 2)
    bench.loop.build_truth(1)
    bench.loop.run_round(1)
    truth = {r.file_name: r.label_map for r in ProjectResults(bench.parts, 1, "truth")}
    assert sorted(truth) == ["1.png", "2.png"]
    painted = make_picture(1)[1] > 0
    schema, guess = ProjectResults(bench.parts, 1, "truth").schema, bench.loop.segment
    nucleus = schema.object_indices[0]
    assert (truth["1.png"] == nucleus)[~painted].sum() == 0
    assert (truth["1.png"] == nucleus).sum() > 0.5 * painted.sum()
    seen = {r.file_name: r.label_map for r in ProjectResults(bench.parts, 1, "predictions", guess)}
    both = {r.file_name: r.label_map for r in ProjectResults(bench.parts, 1, "both", guess)}
    for name in truth:
        is_painted = truth[name] != IGNORE_INDEX
        assert (both[name] == np.where(is_painted, truth[name], seen[name])).all()
    for form in FORMS:
        assert write_form(form, tmp_path / form, ProjectResults(bench.parts, 1, "truth")) == 2
        assert any((tmp_path / form).rglob("*.*"))
    task = json.loads((tmp_path / "labelstudio" / "tasks.json").read_text())[0]
    assert task["data"]["image"].endswith(f"/{task['id']}.png")
    assert task["annotations"][0]["result"]
    write_form("labelstudio", tmp_path, ProjectResults(bench.parts, 1, "both", guess))
    (prediction,) = json.loads((tmp_path / "tasks.json").read_text())[0]["predictions"]
    assert prediction["model_version"].startswith("export-r")
    bench.close()
