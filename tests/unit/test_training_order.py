"""What a training process is given to read: split truth, or everything while too little is held out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from core.errors import ImageError
from core.schema import LabelSchema
from core.truth.holdout import summarise
from ml_backend.training import StoredExample, StoredExamples

SCHEMA = LabelSchema.of("Background", "Nucleus")
SIDE = 64


class GreyImages:
    """Images of one size without a server."""

    def __init__(self, side: int = SIDE) -> None:
        self._side = side

    def open(self, project_id: int, task_id: int, data: Mapping[str, Any]) -> NDArray[Any]:
        return np.zeros((self._side, self._side, 1), np.uint8)

    def shape(self, project_id: int, task_id: int, data: Mapping[str, Any]) -> tuple[int, int]:
        return (self._side, self._side)


def _store(folder: Path, n_held_out: int) -> StoredExample:
    """Two trained objects and `n_held_out` held-out ones, with Background beside each."""
    everything, train, held_out = np.full((3, SIDE, SIDE), 255, np.uint8)
    for index in range(2 + n_held_out):
        part = train if index < 2 else held_out
        for label_map in (everything, part):
            label_map[12 * index : 12 * index + 10, 10:20] = 1
            label_map[12 * index : 12 * index + 10, 30:40] = 0
    path = folder / "maps.npy"
    np.save(path, np.stack([everything, train, held_out]))
    return StoredExample(summarise("7", train, held_out, SCHEMA, is_new=True), path, 1, 7, {})


def test_a_draft_learns_from_everything(tmp_path: Path) -> None:
    source = StoredExamples([_store(tmp_path, n_held_out=1)], SCHEMA, GreyImages())
    (summary,) = source.summaries()
    assert summary.class_pixels == (300, 300)
    assert summary.class_objects == (0, 3)
    assert summary.held_out_pixels == summary.held_out_objects == (0, 0)
    example = source.open("7")
    assert int((example.train_map == 1).sum()) == 300
    assert (example.held_out_map == 255).all()


def test_what_is_held_out_stays_out_as_soon_as_it_is_enough(tmp_path: Path) -> None:
    source = StoredExamples([_store(tmp_path, n_held_out=3)], SCHEMA, GreyImages())
    (summary,) = source.summaries()
    assert summary.class_pixels == (200, 200)
    assert summary.held_out_objects == (0, 3)
    example = source.open("7")
    assert int((example.train_map == 1).sum()) == 200
    assert not ((example.train_map != 255) & (example.held_out_map != 255)).any()


def test_a_draft_that_is_asked_for_learns_from_everything_however_much_is_painted(tmp_path: Path) -> None:
    source = StoredExamples([_store(tmp_path, n_held_out=3)], SCHEMA, GreyImages(), holds_out=False)
    (summary,) = source.summaries()
    assert summary.class_pixels == (500, 500)
    assert summary.held_out_pixels == (0, 0)
    assert (source.open("7").held_out_map == 255).all()


def test_an_image_of_another_size_than_the_painted_one_is_refused(tmp_path: Path) -> None:
    source = StoredExamples([_store(tmp_path, n_held_out=3)], SCHEMA, GreyImages(SIDE + 1))
    with pytest.raises(ImageError, match=r"\(65, 65\).*\(64, 64\)"):
        source.open("7")
