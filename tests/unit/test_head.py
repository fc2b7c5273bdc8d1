"""The head on the encoder's maps: what it learns, and that its two ways to answer agree."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from core.network.encoder import N_FEATURES, STRIDES, WIDTHS
from core.network.head import HIDDEN, Head, hypercolumns, train_head

SIDE = 64


def _rows(labels: np.ndarray) -> torch.Tensor:
    noise = torch.randn(len(labels), N_FEATURES, generator=torch.Generator().manual_seed(0))
    noise[np.arange(len(labels)), labels.astype(int)] += 4
    return noise


def _train(labels: np.ndarray, n_classes: int = 3, seed: int = 0) -> Head:
    rng = np.random.default_rng(seed)
    return train_head(_rows(labels), labels, n_classes, rng, lambda steps: steps / 60)


LABELS = np.random.default_rng(1).integers(0, 2, 400).astype(np.uint8)


def test_a_head_tells_painted_classes_apart_and_never_answers_one_that_nobody_painted() -> None:
    answers = _train(LABELS).logits_of_rows(_rows(LABELS)).argmax(1).numpy()
    assert (answers == LABELS).mean() > 0.95


def test_a_class_of_few_pixels_is_learnt_beside_one_of_many() -> None:
    labels = np.zeros(2000, np.uint8)
    labels[:20] = 1
    answers = _train(labels, 2).logits_of_rows(_rows(labels)).argmax(1).numpy()
    assert answers[:20].mean() > 0.9


def test_the_same_seed_gives_the_same_head_and_another_seed_another() -> None:
    first, second, other = _train(LABELS), _train(LABELS), _train(LABELS, seed=1)
    assert torch.equal(first.kernel, second.kernel)
    assert not torch.equal(first.kernel, other.kernel)


def test_maps_and_rows_get_about_the_same_answer() -> None:
    rng = np.random.default_rng(0)
    shapes = [(w, SIDE // s, SIDE // s) for w, s in zip(WIDTHS, STRIDES, strict=True)]
    maps = [torch.from_numpy(rng.normal(size=shape)).half() for shape in shapes]
    head = _train(LABELS)
    everywhere = head.logits_of_maps(maps)
    assert everywhere.shape == (3, SIDE, SIDE)
    rows, columns = rng.integers(0, SIDE, (2, 300))
    there = head.logits_of_rows(hypercolumns(maps, rows, columns))[:, :2]
    alike = np.corrcoef(there.numpy().ravel(), everywhere[:2, rows, columns].T.numpy().ravel())[0, 1]
    assert alike > 0.95  # enlarged step by step in one, at once in the other


@pytest.mark.parametrize("strip_px", [1, SIDE, 6 * SIDE])
def test_an_answer_in_strips_is_that_of_the_whole(strip_px: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    shapes = [(w, 2 * SIDE // s, SIDE // s) for w, s in zip(WIDTHS, STRIDES, strict=True)]
    maps = [torch.from_numpy(rng.normal(size=shape)).half() for shape in shapes]
    head = _train(LABELS)
    whole = head.logits_of_maps(maps)
    monkeypatch.setattr("core.network.head.STRIP_PX", strip_px)
    assert torch.allclose(head.logits_of_maps(maps), whole, atol=1e-5)


def test_hypercolumns_read_each_map_at_its_own_stride() -> None:
    maps = [torch.zeros(w, SIDE // s, SIDE // s).half() for w, s in zip(WIDTHS, STRIDES, strict=True)]
    maps[0][0, 3, 4] = 8  # covers rows 6 and 7, columns 8 and 9
    found = hypercolumns(maps, np.array([6, 7, 40]), np.array([8, 9, 8]))
    assert found[:, 0].tolist() == pytest.approx([4.5, 4.5, 0.0])  # three quarters of the way, twice
    assert (found[:, 1:] == 0).all()


def test_tensors_that_do_not_fit_one_another_are_no_head() -> None:
    tensors = _train(LABELS).to_tensors()
    tensors["out_kernel"] = torch.zeros(3, HIDDEN + 1)
    with pytest.raises(ValueError, match="fit"):
        Head.from_tensors(tensors)
