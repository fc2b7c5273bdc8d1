"""How much of the base weights a round keeps."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from core.errors import CheckpointError
from core.network.base_weights import CARD_FILE, WEIGHTS_FILE, fits_base, load_base, save_base
from core.network.checkpoint import Checkpoint, load_checkpoint
from core.network.outputs import Weights
from core.network.pixels import PixelStatistics
from core.network.unet import build_architecture
from core.rounds import Example
from core.schema import IGNORE_INDEX, LabelSchema
from core.training.beginning import FEW_OBJECTS, Beginning, begin, choose_start, keep_of_base
from core.training.round_report import Origin
from core.training.sampling import OpenExample, open_positions

LEARNT = {"head.bias": torch.tensor([1.0, 3.0])}
BASE = {"head.bias": torch.tensor([0.0, 1.0])}
CURRENT = {"head.bias": torch.tensor([9.0, 9.0])}
SCHEMA = LabelSchema.of("Background", "Nucleus")


def _from(origin: Origin, base: Weights | None = BASE) -> Beginning:
    started = BASE if origin == "base" else CURRENT
    return Beginning(origin, build_architecture(1, 2), started, PixelStatistics((0.0,), (1.0,)), None, base)


def _open_examples() -> list[OpenExample]:
    label_map = np.full((32, 32), IGNORE_INDEX, np.uint8)
    label_map[4:9, 4:9], label_map[20:28, 20:28] = 0, 1
    image = np.random.default_rng(0).integers(0, 255, (32, 32, 1), np.uint8)
    nothing = np.full((32, 32), IGNORE_INDEX, np.uint8)
    return [open_positions(Example("a", image, label_map, nothing), True, np.random.default_rng(0))]


def _checkpoint(begun: Beginning) -> Checkpoint:
    return Checkpoint(SCHEMA, begun.architecture, begun.weights, begun.statistics)


@pytest.mark.parametrize("n_objects", [0, 1, FEW_OBJECTS])
def test_with_few_objects_the_largest_share_of_the_base_is_kept(n_objects: int) -> None:
    kept = keep_of_base(_from("base"), LEARNT, n_objects, 0.5)
    assert kept["head.bias"].tolist() == [0.5, 2.0]


def test_four_times_the_objects_keep_half_of_that() -> None:
    kept = keep_of_base(_from("base"), LEARNT, 4 * FEW_OBJECTS, 0.5)
    assert kept["head.bias"].tolist() == [0.75, 2.5]


def test_a_later_round_keeps_of_the_base_and_not_of_the_model_before_it() -> None:
    assert keep_of_base(_from("warm"), LEARNT, 1, 0.5)["head.bias"].tolist() == [0.5, 2.0]


@pytest.mark.parametrize("origin", [o for o in get_args(Origin) if o != "base"])
def test_what_has_no_base_behind_it_keeps_nothing_of_one(origin: Origin) -> None:
    assert keep_of_base(_from(origin, None), LEARNT, 1, 0.5) is LEARNT


def test_a_model_of_the_shipped_network_has_the_base_behind_it_in_every_round() -> None:
    examples = _open_examples()
    first = begin(None, SCHEMA, examples, np.random.default_rng(0))
    assert (first.origin, first.base is first.weights) == ("base", True)
    later = begin(_checkpoint(first), SCHEMA, examples, np.random.default_rng(0))
    assert later.origin == "warm"
    assert later.base is not None
    assert all(torch.equal(tensor, first.weights[name]) for name, tensor in later.base.items())


def test_a_network_that_no_base_was_made_for_has_none_behind_it() -> None:
    examples = _open_examples()
    first = begin(None, SCHEMA, examples, np.random.default_rng(0), widths=(8, 16))
    assert (first.origin, first.base) == ("fresh", None)
    assert begin(_checkpoint(first), SCHEMA, examples, np.random.default_rng(0)).base is None


def test_a_share_of_nothing_changes_nothing() -> None:
    assert keep_of_base(_from("base"), LEARNT, 1, 0.0) is LEARNT


def test_base_weights_of_an_older_network_give_way_to_the_shipped_ones(tmp_path: Path) -> None:
    save_base(tmp_path / "base", build_architecture(3, 2, (4, 6)), {}, {})
    schema, image = LabelSchema.of("Background", "Cell"), np.zeros((96, 80, 1), np.uint8)
    label_map = np.zeros(image.shape[:2], np.uint8)
    opened = open_positions(Example("a", image, label_map, label_map), True, np.random.default_rng(0))
    beginning = begin(None, schema, [opened], np.random.default_rng(0), base=tmp_path / "base")
    assert beginning.origin == "base"
    assert torch.equal(beginning.weights["head.weight"], load_base()["head.weight"])


def test_no_round_goes_on_from_the_network_of_the_first_format() -> None:
    checkpoints = Path(__file__).parents[1] / "fixtures" / "checkpoints"
    assert choose_start(load_checkpoint(checkpoints / "format-1"), is_draft=False) is None
    second = load_checkpoint(checkpoints / "format-2")
    assert choose_start(second, is_draft=False) is second


def test_base_weights_that_cannot_be_read_say_which_file(tmp_path: Path) -> None:
    architecture = build_architecture(3, 2, (4, 6))
    with pytest.raises(CheckpointError, match="card of the base weights"):
        fits_base(architecture, tmp_path)
    save_base(tmp_path / "base", architecture, BASE, {})
    (tmp_path / "base" / CARD_FILE).write_text("{")
    with pytest.raises(CheckpointError, match="card of the base weights"):
        fits_base(architecture, tmp_path / "base")
    (tmp_path / "base" / WEIGHTS_FILE).write_bytes(b"torn")
    with pytest.raises(CheckpointError, match=f"cannot read the base weights {WEIGHTS_FILE}"):
        load_base(tmp_path / "base")


def test_base_weights_made_anew_take_the_place_of_those_before_them(tmp_path: Path) -> None:
    architecture = build_architecture(3, 2, (4, 6))
    for weights in (BASE, CURRENT):
        save_base(tmp_path / "base", architecture, weights, {})
    assert torch.equal(load_base(tmp_path / "base")["head.bias"], CURRENT["head.bias"])
    assert [path.name for path in tmp_path.iterdir()] == ["base"], "nothing unfinished stays"
