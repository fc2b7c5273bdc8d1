"""What Label Studio imports, read back as its annotations are read: the same masks."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from core.rle import decode
from core.schema import IGNORE_INDEX
from export.errors import ExportError
from export.result import Result
from ml_backend.command.label_studio_file import write_label_studio
from ml_backend.label_studio.label_config import parse_label_config
from ml_backend.label_studio.paintings import parse_painting

BRUSH = (
    '<BrushLabels name="paint" toName="img"><Label value="Background"/><Label value="Zelle"/></BrushLabels>'
)
CONFIG = parse_label_config(f'<View><Image name="img" value="$image"/>{BRUSH}</View>')


@pytest.fixture
def results():
    rng = np.random.default_rng(5)
    found = []
    for number, shape in enumerate([(30, 41), (7, 64)], 1):
        label_map = rng.choice(np.array([0, 1, IGNORE_INDEX], np.uint8), shape)
        label_map[:, 0] = IGNORE_INDEX
        task = {"id": number, "data": {"image": f"/data/upload/1/ä-{number}.png"}}
        found.append(Result(str(number), f"{number}.png", label_map, lambda: np.zeros((1, 1, 1)), task))
    return found


def paint(regions, shape):
    """The label map of an annotation, through the parser of the service."""
    painting = parse_painting(regions, CONFIG, shape)
    assert not painting.findings
    label_map = np.full(shape, IGNORE_INDEX, np.uint8)
    for region in painting.regions:
        label_map[region.box.slices][region.painted] = region.class_index
    return label_map, {region.origin for region in painting.regions}


def test_truth_is_an_annotation_of_a_person_that_says_the_same_pixels(tmp_path, results):
    assert write_label_studio(tmp_path, results, CONFIG, None) == 2
    tasks = json.loads((tmp_path / "tasks.json").read_text(encoding="utf-8"))
    assert [{"id": task["id"], "data": task["data"]} for task in tasks] == [r.task for r in results]
    for task, result in zip(tasks, results, strict=True):
        assert "predictions" not in task
        (annotation,) = task["annotations"]
        label_map, origins = paint(annotation["result"], result.label_map.shape)
        assert (label_map == result.label_map).all()
        assert origins == {"manual"}
        for region in annotation["result"]:
            alpha = decode(region["value"]["rle"], result.label_map.shape)
            index = CONFIG.schema.index_of(region["value"]["brushlabels"][0])
            assert ((alpha == 255) == (result.label_map == index)).all()


def test_what_a_model_says_is_a_prediction_with_its_version(tmp_path, results):
    write_label_studio(tmp_path, results, CONFIG, "export-r0003")
    for task, result in zip(json.loads((tmp_path / "tasks.json").read_text()), results, strict=True):
        assert "annotations" not in task
        (prediction,) = task["predictions"]
        assert prediction["model_version"] == "export-r0003"
        label_map, origins = paint(prediction["result"], result.label_map.shape)
        assert (label_map == result.label_map).all()
        assert origins == {"prediction"}


def test_a_setup_without_a_brush_is_refused_with_the_remedy(tmp_path, results):
    with pytest.raises(ExportError, match="add <BrushLabels>, or export with --form geojson"):
        write_label_studio(tmp_path, results, replace(CONFIG, answer_shape="polygon"), None)
    assert not list(tmp_path.iterdir())


def test_no_tasks_are_an_empty_list(tmp_path):
    assert write_label_studio(tmp_path, [], CONFIG, None) == 0
    assert json.loads((tmp_path / "tasks.json").read_text()) == []
