"""A live version that cannot be read: another one answers, a round starts anew, and all of it is said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from loop_fakes import Bench, make_bench

from core.errors import CheckpointError
from core.network.checkpoint import FORMAT, load_checkpoint
from core.network.inference import infer_logits, load_network
from core.network.unet import receptive_margin_px
from ml_backend.due import find_due
from ml_backend.errors import ConflictError
from ml_backend.storage import models
from ml_backend.storage.projects import get_project

CHECKPOINTS = Path(__file__).parents[1] / "fixtures" / "checkpoints"
"""One of every format that was ever released, as its own code wrote it."""


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    torch.set_num_threads(1)
    bench = make_bench(tmp_path)
    yield bench
    bench.close()


def publish_another(bench: Bench) -> tuple[str, str]:
    """Two versions that can be read: the one of a round, and a copy of it as the newer, live one."""
    bench.submit(1)
    first = bench.loop.run_round(1)
    assert first is not None
    second = "r0099-copy"
    shutil.copytree(folder_of(bench, first), folder_of(bench, second))
    with bench.parts.database.write() as connection:
        models.add_model(connection, 1, models.to_model(second, 99, first, 1, bench.clock(), {}))
        models.set_current(connection, 1, second)
    return first, second


def folder_of(bench: Bench, version: str) -> Path:
    return bench.parts.artifacts(bench.loop._get(1)).models / version


def truncate(folder: Path) -> None:
    weights = folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])


def empty(folder: Path) -> None:
    (folder / "checkpoint.json").write_bytes(b"")


def fill_with_garbage(folder: Path) -> None:
    (folder / "checkpoint.json").write_bytes(b"\xff\x00garbage")


def flip_a_byte(folder: Path) -> None:
    weights = folder / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))


def take_a_newer_format(folder: Path) -> None:
    record = json.loads((folder / "checkpoint.json").read_text())
    (folder / "checkpoint.json").write_text(json.dumps(record | {"format": FORMAT + 1}))


DAMAGES: list[Callable[[Path], None]] = [
    truncate, empty, fill_with_garbage, flip_a_byte, take_a_newer_format, shutil.rmtree,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_the_newest_readable_version_answers_and_the_live_one_comes_back(
    bench: Bench, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    first, second = publish_another(bench)
    shutil.copytree(folder_of(bench, second), tmp_path / "kept")
    damage(folder_of(bench, second))
    (answer,) = bench.loop.suggest(1, [bench.task(9)], None, np.inf)
    assert answer is not None
    assert answer["model_version"] == first
    status = bench.status()
    assert status["model_version"] == first
    assert second in status["last_error"]
    assert f"{first} answers instead" in status["last_error"]
    shutil.rmtree(folder_of(bench, second), ignore_errors=True)
    shutil.copytree(tmp_path / "kept", folder_of(bench, second))
    bench.loop.reconcile(1)
    assert (bench.status()["model_version"], bench.status()["last_error"]) == (second, None)


def test_the_next_round_starts_from_what_can_be_read(bench: Bench) -> None:
    first, second = publish_another(bench)
    truncate(folder_of(bench, second))
    bench.submit(2)
    bench.loop.run_round(1)
    start = bench.trainer.specs[-1].start
    assert start is not None
    assert start.name == first


def test_without_any_readable_version_a_round_from_the_base_weights_is_due(bench: Bench) -> None:
    first, second = publish_another(bench)
    shutil.rmtree(folder_of(bench, first).parent)
    assert bench.loop.suggest(1, [bench.task(9)], None, np.inf) == [None]
    assert second in bench.status()["last_error"]
    with bench.parts.database.read() as connection:
        project = get_project(connection, 1)
        assert "round" in find_due(connection, project, bench.parts.settings, bench.clock())
    third = bench.loop.run_round(1)
    assert bench.trainer.specs[-1].start is None
    assert third is not None
    assert (bench.status()["model_version"], bench.status()["last_error"]) == (third, None)


def test_going_back_to_a_version_that_cannot_be_read_is_a_conflict(bench: Bench) -> None:
    first, second = publish_another(bench)
    truncate(folder_of(bench, first))
    with pytest.raises(ConflictError, match=first):
        bench.loop.rollback(1, first)
    assert bench.status()["model_version"] == second


def test_a_checkpoint_of_every_released_format_is_kept_and_read() -> None:
    names = [f"format-{number}" for number in range(1, FORMAT + 1)]
    assert sorted(folder.name for folder in CHECKPOINTS.iterdir() if folder.is_dir()) == names
    for name in names:
        assert load_checkpoint(CHECKPOINTS / name).schema.names == ("Background", "Nucleus")


def test_a_checkpoint_of_the_first_format_answers_as_it_did_when_it_was_written() -> None:
    """`format-1-answer.npz` holds an image and the logits of the code that wrote the checkpoint."""
    kept = np.load(CHECKPOINTS / "format-1-answer.npz")
    checkpoint = load_checkpoint(CHECKPOINTS / "format-1")
    logits = infer_logits(load_network(checkpoint), torch.from_numpy(kept["image"]))
    assert np.ptp(kept["logits"]) > 1
    np.testing.assert_allclose(logits[:, :-1].numpy(), kept["logits"], atol=1e-4)
    assert float(torch.sigmoid(logits[:, -1]).max()) < 1e-6
    assert receptive_margin_px(checkpoint.architecture) == kept["margin_px"]


def test_a_newer_format_is_named_with_the_remedy(tmp_path: Path) -> None:
    folder = tmp_path / "r0007-deadbeef"
    shutil.copytree(CHECKPOINTS / f"format-{FORMAT}", folder)
    take_a_newer_format(folder)
    with pytest.raises(CheckpointError, match=r"r0007-deadbeef .* newer Brushloop .*install"):
        load_checkpoint(folder)
