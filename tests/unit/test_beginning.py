"""How much of the base weights a round keeps."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from core.beginning import FEW_OBJECTS, Beginning, keep_of_base
from core.model import build_architecture
from core.pixels import PixelStatistics
from core.round_report import Origin

LEARNT = {"head.bias": torch.tensor([1.0, 3.0])}


def _from(origin: Origin) -> Beginning:
    base = {"head.bias": torch.tensor([0.0, 1.0])}
    return Beginning(origin, build_architecture(1, 2), base, PixelStatistics((0.0,), (1.0,)), None)


@pytest.mark.parametrize("n_objects", [0, 1, FEW_OBJECTS])
def test_with_few_objects_the_largest_share_of_the_base_is_kept(n_objects: int) -> None:
    kept = keep_of_base(_from("base"), LEARNT, n_objects, 0.5)
    assert kept["head.bias"].tolist() == [0.5, 2.0]


def test_four_times_the_objects_keep_half_of_that() -> None:
    kept = keep_of_base(_from("base"), LEARNT, 4 * FEW_OBJECTS, 0.5)
    assert kept["head.bias"].tolist() == [0.75, 2.5]


@pytest.mark.parametrize("origin", [o for o in get_args(Origin) if o != "base"])
def test_what_did_not_start_from_a_base_keeps_nothing_of_one(origin: Origin) -> None:
    assert keep_of_base(_from(origin), LEARNT, 1, 0.5) is LEARNT


def test_a_share_of_nothing_changes_nothing() -> None:
    assert keep_of_base(_from("base"), LEARNT, 1, 0.0) is LEARNT
