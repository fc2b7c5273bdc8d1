"""A BioImage.IO package is accepted by that project's own validator, and gives there what it gives here.

The validator runs in an environment of its own: bioimageio.spec 0.5.12 does not work with newer pydantic.
"""

from __future__ import annotations

import json
import os
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bright_model import bright_is_nucleus, save_bright_model
from click.testing import CliRunner

from export.bioimageio_package import HALO_PX, About, describe, write_package
from ml_backend.command.cli import commands

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

CARD = "# Model r0001-0a1b2c3d\n\n## Validation\n\nNothing.\n"
ABOUT = About("Brushloop r0001-0a1b2c3d", ("A. Painter",), "CC-BY-4.0", CARD)

VALIDATE = """
import sys
from bioimageio.core import test_model
summary = test_model(sys.argv[1])
sys.stdout.write(summary.model_dump_json())
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("package") / "bright.zip"
    write_package(bright_is_nucleus(), path, ABOUT)
    return path


def test_the_validator_of_bioimage_io_runs_the_package_and_finds_what_is_inside(
    package: Path, tmp_path: Path
) -> None:
    if "BIOIMAGEIO_VENV" not in os.environ:
        pytest.skip(
            "BIOIMAGEIO_VENV names no environment with bioimageio.core, onnxruntime and pydantic<2.13"
        )
    environment = {
        "BIOIMAGEIO_CACHE_PATH": str(tmp_path),
        "HOME": str(tmp_path),
        "PATH": "",
        "ORT_DISABLE_TELEMETRY": "1",
    }
    done = subprocess.run(
        [f"{os.environ['BIOIMAGEIO_VENV']}/bin/python", "-c", VALIDATE, str(package)],
        capture_output=True, text=True, env=environment, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["status"] == "passed", json.dumps(summary["details"], indent=1)
    names = " ".join(detail["name"] for detail in summary["details"])
    assert "onnx" in names


def test_a_package_holds_graph_card_example_and_picture(package: Path) -> None:
    with zipfile.ZipFile(package) as files:
        assert set(files.namelist()) == {
            "rdf.yaml", "model.onnx", "README.md", "test_input.npy", "test_output.npy", "cover.png",
        }  # fmt: skip
        assert files.read("README.md").decode() == CARD
        with files.open("test_input.npy") as found:
            example = np.load(found)
        with files.open("test_output.npy") as found:
            answer = np.load(found)
    assert example.dtype == np.uint8
    assert answer.shape == (1, 2, *example.shape[2:])
    np.testing.assert_allclose(answer.sum(1), 1, atol=1e-5)


def test_names_of_classes_that_are_no_identifiers_become_numbers() -> None:
    from core.schema import LabelSchema

    files = dict.fromkeys(("README.md", "model.onnx", "test_input.npy", "test_output.npy"), b"")
    schema = LabelSchema.of("Background", "Nucleus (late)")
    described: dict[str, Any] = describe(schema, np.zeros((192, 192, 1), np.uint8), ABOUT, files)
    assert described["outputs"][0]["axes"][1]["channel_names"] == ["Background", "class_1"]
    assert described["inputs"][0]["axes"][2]["size"]["min"] > 2 * HALO_PX


def test_the_command_writes_a_package_where_the_name_ends_with_zip(tmp_path: Path) -> None:
    folder = save_bright_model(tmp_path)
    out = tmp_path / "bright.zip"
    words = ["export-model", str(folder), "--out", str(out), "--author", "A", "--license", "CC0-1.0"]
    done = CliRunner().invoke(commands, words)
    assert done.exit_code == 0, done.output
    with zipfile.ZipFile(out) as files:
        described = json.loads(files.read("rdf.yaml"))
        card = files.read("README.md").decode()
    assert described["authors"] == [{"name": "A"}]
    assert described["license"] == "CC0-1.0"
    assert card.startswith("# Model r0001-0a1b2c3d")
