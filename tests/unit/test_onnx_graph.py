"""A whole model as an ONNX graph says what Brushloop itself says, on images of any size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from numpy.typing import NDArray

from core.learners.feature_plan import count_features
from core.learners.forest import Forest
from core.learners.forest_growth import train_forest
from core.learners.pixel_features import pixel_features
from core.network.checkpoint import Checkpoint, save_checkpoint
from core.network.encoder import N_FEATURES, load_encoder
from core.network.head import HIDDEN, Head
from core.network.mixture import FOREST, HEAD, NETWORK, TUNED, Share
from core.network.outputs import Weights
from core.network.pixels import NumberRange, PixelStatistics
from core.network.tuned import Tuned
from core.network.unet import build_architecture, initial_weights
from core.schema import LabelSchema
from export import onnx_check
from export.errors import ExportError
from export.onnx_check import TOLERANCE, compare, draw_images, export_onnx
from export.onnx_graph import write_onnx
from ml_backend.command.cli import commands
from ml_backend.command.export_model_command import describe

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

SCHEMA = LabelSchema.of("Background", "Nucleus", "Debris")
RANGES = (NumberRange("uint8", (0.0,) * 3, (200.0,) * 3), NumberRange("uint16", (0.0,) * 3, (4000.0,) * 3))


def noise(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


def grow_forest(n_channels: int) -> Forest:
    rows = pixel_features(noise((32, 32, n_channels))).reshape(-1, count_features(n_channels))
    labels = (rows[:, 0] > 0).astype(np.uint8) + (rows[:, 9] > 0.6)
    return train_forest(rows, labels.astype(np.uint8), len(SCHEMA), 1, n_trees=3)


def another_encoder() -> Weights:
    return {name: 0.9 * tensor for name, tensor in load_encoder().state_dict().items()}


def make_model(n_channels: int = 1) -> Checkpoint:
    """A model of all learners, none of which is flat."""
    rng = np.random.default_rng(3)
    architecture = build_architecture(n_channels, len(SCHEMA), (8, 12, 16))
    weights = initial_weights(architecture, rng)
    weights["head.weight"] = torch.from_numpy(rng.normal(0, 0.4, weights["head.weight"].shape)).float()
    layers = ((HIDDEN, N_FEATURES), (HIDDEN,), (len(SCHEMA), HIDDEN), (len(SCHEMA),))
    head = Head(*(torch.from_numpy(rng.normal(0, 0.05, shape)).float() for shape in layers))
    ranges = tuple(replace(r, low=r.low[:n_channels], span=r.span[:n_channels]) for r in RANGES)
    return Checkpoint(
        SCHEMA,
        architecture,
        weights,
        PixelStatistics((90.0,) * n_channels, (40.0,) * n_channels, ranges),
        temperature=1.3,
        learners={
            HEAD: head.to_tensors(),
            FOREST: grow_forest(n_channels).to_tensors(),
            TUNED: Tuned(another_encoder(), head).to_tensors(),
        },
        shares={HEAD: Share(0.2, 1.2), FOREST: Share(0.3, 0.9), TUNED: Share(0.2, 1.1)},
        mixture_temperature=0.8,
    )


@pytest.fixture(scope="module")
def model() -> Checkpoint:
    return make_model()


@pytest.mark.parametrize(("kind", "n_looks"), [("uint8", 4), ("uint16", 1)])
def test_onnx_runtime_says_what_torch_says_with_all_learners(
    tmp_path: Path, model: Checkpoint, kind: str, n_looks: int
) -> None:
    *alone, together = export_onnx(model, tmp_path / "model.onnx", kind, n_looks)
    assert [one.learner for one in alone] == [NETWORK, HEAD, TUNED]
    assert all(one.is_exact for one in alone)
    assert together.nearly_all < TOLERANCE
    assert together.n_beyond <= together.n_pixels / 1000


def test_a_forest_is_asked_and_interpolated_as_it_is_in_brushloop(tmp_path: Path) -> None:
    """Asking it everywhere gives .004 else in one of a hundred pixels."""
    model = make_model(3)
    alone = replace(
        model,
        learners={FOREST: model.learners[FOREST]},
        shares={FOREST: Share(1.0, 0.9)},
        mixture_temperature=1.0,
    )
    *_, together = export_onnx(alone, tmp_path / "model.onnx")
    assert together.nearly_all < 1e-6


def test_a_forest_that_counts_little_is_asked_as_seldom_in_the_graph(tmp_path: Path) -> None:
    model = make_model()
    shares = {**model.shares, FOREST: Share(0.15, 0.9)}
    *_, together = export_onnx(replace(model, shares=shares), tmp_path / "model.onnx")
    assert together.nearly_all < TOLERANCE
    assert together.n_beyond <= together.n_pixels / 1000


def test_a_learner_without_weight_is_no_part_of_the_graph(tmp_path: Path, model: Checkpoint) -> None:
    plain = replace(model, learners={}, shares={}, mixture_temperature=1.0)
    found = export_onnx(plain, tmp_path / "model.onnx")
    assert [one.learner for one in found] == [NETWORK, onnx_check.TOGETHER]
    assert found[-1].is_exact
    assert (tmp_path / "model.onnx").stat().st_size < 200_000


def test_a_graph_that_says_something_else_is_refused(
    tmp_path: Path, model: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = replace(model, learners={}, shares={}, mixture_temperature=1.0)

    def write_another(checkpoint: Checkpoint, path: Path, kind: str = "uint8", n_looks: int = 1) -> None:
        write_onnx(replace(checkpoint, temperature=3.0), path, kind, n_looks)

    monkeypatch.setattr(onnx_check, "write_onnx", write_another)
    with pytest.raises(ExportError, match=r"\(network\) differs from torch by"):
        export_onnx(plain, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_what_differs_in_a_few_pixels_is_said(tmp_path: Path, model: Checkpoint) -> None:
    write_onnx(model, tmp_path / "model.onnx")
    other = replace(model, shares={**model.shares, HEAD: Share(0.2, 1.3)})
    found = compare(other, tmp_path / "model.onnx", draw_images(model.statistics, "uint8"))
    assert found.n_beyond > 0
    assert f"{found.n_beyond} of {found.n_pixels} pixels" in describe([found])[-1]


def test_networks_of_timm_are_refused_with_the_reason(tmp_path: Path, model: Checkpoint) -> None:
    timm = replace(model, architecture={**model.architecture, "kind": "timm"})
    with pytest.raises(ExportError, match="timm"):
        write_onnx(timm, tmp_path / "model.onnx")


def test_the_command_writes_a_folders_model_and_says_how_exact_it_is(
    tmp_path: Path, model: Checkpoint
) -> None:
    plain = replace(model, learners={}, shares={}, mixture_temperature=1.0)
    folder = save_checkpoint(plain, tmp_path / "r0001-0a1b2c3d")
    out = tmp_path / "out" / "model.onnx"
    done = CliRunner().invoke(commands, ["export-model", str(folder), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "uint8, 1 channels; Background, Nucleus, Debris" in done.output
    assert "largest difference" in done.output
    assert out.exists()
    card = out.with_suffix(".md").read_text()
    assert card.startswith("# Model r0001-0a1b2c3d")
    assert "largest difference" in card


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["7", "--out", "model.pt"], "has to end with .onnx"),
        (["nowhere", "--out", "model.onnx"], "cannot read the checkpoint"),
        (["nowhere", "--version", "r1", "--out", "model.onnx"], "--version goes with a project"),
        (["7", "--out", "model.onnx"], "project 7 is not known here"),
    ],
)
def test_what_cannot_be_exported_is_said(tmp_path: Path, words: list[str], said: str) -> None:
    done = CliRunner().invoke(commands, ["export-model", *words, "--data-dir", str(tmp_path / "data")])
    assert done.exit_code != 0
    assert said in f"{done.output}{done.exception}"
