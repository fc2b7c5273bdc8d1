"""Only annotated pixels teach; borders and small classes teach a little more."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.schema import IGNORE_INDEX
from core.training.loss import border_weights, class_weights, cross_entropy


def _gradient(logits: torch.Tensor, label_maps: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    logits = logits.clone().requires_grad_()
    cross_entropy(logits, label_maps, weights).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    return logits.grad


def test_unlabelled_pixels_do_not_change_a_gradient() -> None:
    logits = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    label_maps = torch.full((1, 4, 4), IGNORE_INDEX)
    label_maps[0, 1, 1], label_maps[0, 2, 2] = 0, 2
    gradient = _gradient(logits, label_maps, torch.ones(1, 4, 4))
    unlabelled = label_maps == IGNORE_INDEX
    disturbed = logits.clone()
    disturbed.permute(0, 2, 3, 1)[unlabelled] = 1e6
    weights = torch.where(unlabelled, torch.tensor(float("nan")), torch.tensor(1.0))
    other = _gradient(disturbed, label_maps, weights)
    assert torch.equal(gradient, other)
    assert (gradient.permute(0, 2, 3, 1)[unlabelled] == 0).all()


@pytest.mark.parametrize("annotated_share", [1.0, 0.1, 0.01])
def test_the_gradient_does_not_shrink_with_the_annotated_share(annotated_share: float) -> None:
    side = 20
    label_maps = torch.full((1, side, side), IGNORE_INDEX)
    label_maps.view(-1)[: int(side * side * annotated_share)] = 1
    gradient = _gradient(torch.zeros(1, 2, side, side), label_maps, torch.ones(1, side, side))
    assert gradient.abs().sum().item() == pytest.approx(1.0)


def test_the_loss_is_divided_by_the_sum_of_weights() -> None:
    label_maps, logits = torch.tensor([[[0, 1]]]), torch.tensor([[[[2.0, 0.5]], [[0.0, 0.0]]]])
    once = cross_entropy(logits, label_maps, torch.tensor([[[1.0, 3.0]]]))
    ten_times = cross_entropy(logits, label_maps, torch.tensor([[[10.0, 30.0]]]))
    assert once.item() == pytest.approx(ten_times.item())


def test_a_batch_without_annotated_pixels_is_refused() -> None:
    with pytest.raises(ValueError, match="no annotated pixel"):
        cross_entropy(torch.zeros(1, 2, 2, 2), torch.full((1, 2, 2), IGNORE_INDEX), torch.ones(1, 2, 2))


def test_pixels_beside_another_annotated_class_weigh_more_than_pixels_inside() -> None:
    label_map = np.array([[0, 0, 0, 0, 0, 0, 1, 1]], np.uint8)
    weights = border_weights(label_map, boost=3, sigma_px=1)
    assert weights[0, 5] > weights[0, 4] > weights[0, 3]
    assert weights[0, 0] == pytest.approx(1, abs=1e-3)


def test_an_object_beside_unlabelled_pixels_has_no_border_there() -> None:
    label_map = np.array([[IGNORE_INDEX, 1, 1]], np.uint8)
    np.testing.assert_array_equal(border_weights(label_map), [[0, 1, 1]])


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=8), st.floats(1, 100))
def test_no_class_weighs_more_than_the_cap_times_another(pixels: list[int], cap: float) -> None:
    weights = class_weights(pixels, cap=cap)
    assert weights.min() >= 1
    assert weights.max() <= cap * 1.0001
