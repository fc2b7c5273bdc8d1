"""The commands and scripts of the how-tos run as they stand there, over a project and a folder of images."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from bright_model import save_bright_model, squares
from click.testing import CliRunner
from loop_fakes import make_bench
from PIL import Image

from brushloop.napari_plugin import segment
from ml_backend.command.cli import commands

ROOT = Path(__file__).parents[2]
PAGES = ("count-objects", "export-masks", "napari", "nnunet", "onnx", "qupath")
TEXTS = {name: (ROOT / "docs" / "how-to" / f"{name}.md").read_text() for name in PAGES}

LINES = [
    pytest.param(line, id=line)
    for text in TEXTS.values()
    for line in re.findall(r"^brushloop (?:export|export-model|predict) .+$", text, re.MULTILINE)
]
SCRIPTS = [
    pytest.param(script, id=f"{name}-{number}")
    for name, text in TEXTS.items()
    for number, script in enumerate(re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the how-tos are read: a folder of images, one image, a model, and project 3, here number 1."""
    place = tmp_path_factory.mktemp("how-to")
    (place / "plates").mkdir()
    for path in (place / "plates" / "a.png", place / "cells.png"):
        Image.fromarray(squares()).save(path)
    save_bright_model(place).rename(place / "r")
    (place / "models").mkdir()
    (place / "r").rename(place / "models" / "r0007-0a1b2c3d")
    return place


@pytest.fixture(scope="module")
def project(folder: Path) -> Iterator[Any]:
    bench = make_bench(folder / "data")
    bench.submit(1, 2)
    bench.loop.build_truth(1)
    bench.loop.run_round(1)
    yield bench
    bench.close()


@pytest.mark.parametrize("line", LINES)
def test_a_command_of_a_how_to_runs(
    line: str, folder: Path, project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr("ml_backend.outside.open_outside", lambda settings: project.parts)
    monkeypatch.setattr("ml_backend.bootstrap.build_loop", lambda settings: project.loop)
    _, *words = ["1" if word == "3" else word for word in shlex.split(line)]
    done = CliRunner().invoke(commands, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    out = Path(words[words.index("--out") + 1])
    assert out.stat().st_size > 0


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_of_a_how_to_runs(script: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(folder)
    model = "models/r0007-0a1b2c3d"
    for words in (
        ["predict", "plates/", "--model", model, "--out", "results/"],
        ["export-model", model, "--out", "nuclei.onnx"],
    ):
        assert CliRunner().invoke(commands, words, catch_exceptions=False).exit_code == 0
    found: dict[str, Any] = {}
    exec(compile(script, "how-to", "exec"), found)  # what people copy
    if "counts" in found:
        assert found["counts"]["a.png"] == 2
    if "label_map" in found:
        assert (found["label_map"] == (squares() > 0)).all()


def test_the_javascript_of_a_how_to_gives_the_same_answer(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "NODE_MODULES" not in os.environ:
        pytest.skip("NODE_MODULES names no folder with onnxruntime-web, for node")
    monkeypatch.chdir(folder)
    made = ["export-model", "models/r0007-0a1b2c3d", "--out", "nuclei.onnx"]
    assert CliRunner().invoke(commands, made, catch_exceptions=False).exit_code == 0
    (script,) = re.findall(r"^```javascript\n(.*?)^```", TEXTS["onnx"], re.MULTILINE | re.DOTALL)
    image = squares()
    Path("segment.js").write_text(
        script.replace("onnxruntime-node", "onnxruntime-web")
        + f"const pixels = Uint8Array.from({image.ravel().tolist()});"
        + f"segment(pixels, {image.shape[0]}, {image.shape[1]})"
        + ".then((found) => console.log(JSON.stringify(Array.from(found))));"
    )
    environment = os.environ | {"NODE_PATH": os.environ["NODE_MODULES"]}
    done = subprocess.run(
        ["node", "segment.js"], env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    theirs = np.array(json.loads(done.stdout)).reshape(2, *image.shape)
    batch = image.astype(np.float32)[None, None]
    onnxruntime = pytest.importorskip("onnxruntime")
    (ours,) = onnxruntime.InferenceSession("nuclei.onnx").run(None, {"image": batch})
    assert np.abs(theirs - ours[0]).max() < 1e-4


def test_npe2_finds_naparis_manifest_valid() -> None:
    if "NPE2_VENV" not in os.environ:
        pytest.skip("NPE2_VENV names no environment with npe2")
    command = [f"{os.environ['NPE2_VENV']}/bin/npe2", "validate", str(ROOT / "brushloop" / "napari.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


IN_NAPARI = """
import sys
import numpy as np
from napari.components import ViewerModel
from napari.layers import Layer
from npe2 import PluginManager, PluginManifest
manifest, model, image = sys.argv[1:]
plugins = PluginManager.instance()
plugins.register(PluginManifest.from_file(manifest))
(widget,) = [one for one in plugins.iter_widgets() if one.plugin_name == "brushloop"]
viewer = ViewerModel()
for layer in plugins.commands.execute(widget.command, args=(np.load(image), model, True)):
    viewer.add_layer(Layer.create(*layer))
layers = [f"{layer.name}:{type(layer).__name__}:{int(np.max(layer.data))}" for layer in viewer.layers]
sys.stdout.write(" ".join(layers))
"""


def test_napari_runs_the_command_of_the_manifest_and_takes_the_layers(folder: Path, tmp_path: Path) -> None:
    if "NAPARI_VENV" not in os.environ:
        pytest.skip("NAPARI_VENV names no environment with napari and what Brushloop needs")
    np.save(tmp_path / "image.npy", squares())
    words = (ROOT / "brushloop" / "napari.yaml", folder / "models" / "r0007-0a1b2c3d", tmp_path / "image.npy")
    command = [f"{os.environ['NAPARI_VENV']}/bin/python", "-c", IN_NAPARI, *map(str, words)]
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["uncertainty:Image:0", "classes:Labels:1", "objects:Labels:2"]


def test_naparis_manifest_names_what_is_there(folder: Path) -> None:
    manifest = yaml.safe_load((ROOT / "brushloop" / "napari.yaml").read_text())
    (command,) = manifest["contributions"]["commands"]
    assert command["python_name"] == f"{segment.__module__}:{segment.__name__}"
    assert manifest["contributions"]["widgets"][0]["command"] == command["id"]
    layers = segment(squares(), folder / "models" / "r0007-0a1b2c3d", uncertainty=True)
    assert [(properties["name"], kind) for _, properties, kind in layers] == [
        ("uncertainty", "image"),
        ("classes", "labels"),
        ("objects", "labels"),
    ]
    assert np.unique(layers[2][0]).tolist() == [0, 1, 2]
