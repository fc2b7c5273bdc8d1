"""A checkpoint on disk is complete and unchanged, or an error that says what is wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from core.errors import CheckpointError
from core.network.checkpoint import RECORD_FILE, WEIGHTS_FILE, Checkpoint, load_checkpoint, save_checkpoint
from core.network.pixels import NumberRange, PixelStatistics
from core.network.unet import build_architecture, initial_weights
from core.objects.measure import ObjectLimits
from core.schema import LabelClass, LabelSchema


def _checkpoint(seed: int = 0) -> Checkpoint:
    architecture = build_architecture(1, 2, (2, 3))
    return Checkpoint(
        schema=LabelSchema((LabelClass("Background", "background"), LabelClass("Zelle", autofill=True))),
        architecture=architecture,
        weights=initial_weights(architecture, np.random.default_rng(seed)),
        statistics=PixelStatistics((12.5,), (3.25,), (NumberRange("uint8", (1.0,), (99.5,)),)),
        temperature=1.5,
        limits=(ObjectLimits(), ObjectLimits(7, 8, 9.5)),
        is_draft=True,
        parent="abc",
        seed=42,
    )


def test_what_was_saved_is_loaded_again(tmp_path: Path) -> None:
    saved = _checkpoint()
    loaded = load_checkpoint(save_checkpoint(saved, tmp_path / "r0001"))
    assert replace(loaded, weights={}) == replace(saved, weights={})
    assert loaded.fingerprint == saved.fingerprint
    assert all(torch.equal(loaded.weights[name], tensor) for name, tensor in saved.weights.items())


def test_a_record_from_before_ranges_were_kept_is_loaded(tmp_path: Path) -> None:
    folder = save_checkpoint(_checkpoint(), tmp_path / "r0001")
    record = json.loads((folder / RECORD_FILE).read_text())
    del record["statistics"]["ranges"]
    (folder / RECORD_FILE).write_text(json.dumps(record))
    assert load_checkpoint(folder).statistics == PixelStatistics((12.5,), (3.25,))


def test_other_weights_have_another_fingerprint_and_a_copy_has_the_same() -> None:
    assert _checkpoint(0).fingerprint == _checkpoint(0).fingerprint
    assert _checkpoint(0).fingerprint != _checkpoint(1).fingerprint
    assert len(_checkpoint().fingerprint) == 64


def test_a_published_version_never_changes(tmp_path: Path) -> None:
    save_checkpoint(_checkpoint(0), tmp_path / "v")
    save_checkpoint(_checkpoint(0), tmp_path / "v")
    with pytest.raises(CheckpointError, match="never change"):
        save_checkpoint(_checkpoint(1), tmp_path / "v")


def test_nothing_unfinished_is_left_beside_the_folder(tmp_path: Path) -> None:
    save_checkpoint(_checkpoint(), tmp_path / "v")
    assert [path.name for path in tmp_path.iterdir()] == ["v"]
    assert sorted(path.name for path in (tmp_path / "v").iterdir()) == [RECORD_FILE, WEIGHTS_FILE]


def _damage(folder: Path, kind: str) -> None:
    record, weights = folder / RECORD_FILE, folder / WEIGHTS_FILE
    if kind == "no weights":
        weights.unlink()
    elif kind == "no record":
        record.unlink()
    elif kind == "cut weights":
        weights.write_bytes(weights.read_bytes()[:-3])
    elif kind == "one bit":
        raw = bytearray(weights.read_bytes())
        raw[-1] ^= 1
        weights.write_bytes(raw)
    elif kind == "no json":
        record.write_text("{")
    else:
        changed = json.loads(record.read_text())
        changed[kind] = {"format": 99, "schema": [], "architecture": {}}[kind]
        record.write_text(json.dumps(changed))


@pytest.mark.parametrize(
    "kind",
    ["no weights", "no record", "cut weights", "one bit", "no json", "format", "schema", "architecture"],
)
def test_damaged_files_are_a_checkpoint_error_that_names_the_folder(tmp_path: Path, kind: str) -> None:
    folder = save_checkpoint(_checkpoint(), tmp_path / "r0007-deadbeef")
    _damage(folder, kind)
    with pytest.raises(CheckpointError, match="r0007-deadbeef"):
        load_checkpoint(folder)


def test_weights_for_another_number_of_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="2 outputs for 3 classes"):
        replace(_checkpoint(), schema=LabelSchema.of("a", "b", "c"), limits=())
