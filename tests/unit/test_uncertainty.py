"""Entropy, mutual information and margin of probability samples `(S, C, H, W)`."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.network.uncertainty import expected_entropy, margin, mutual_information, predictive_entropy


def _samples(seed: int, n: int, classes: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.softmax(3 * torch.randn(n, classes, 3, 4, generator=generator), dim=1)


@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 6))
def test_mutual_information_lies_between_zero_and_the_predictive_entropy(
    seed: int, n: int, classes: int
) -> None:
    samples = _samples(seed, n, classes)
    entropy, information = predictive_entropy(samples), mutual_information(samples)
    assert (information >= 0).all()
    assert (information <= entropy + 1e-5).all()
    assert (entropy <= math.log(classes) + 1e-5).all()
    torch.testing.assert_close(information, (entropy - expected_entropy(samples)).clamp_min(0))


def test_samples_that_agree_have_no_mutual_information() -> None:
    one = _samples(0, 1, 3)
    assert mutual_information(one.repeat(4, 1, 1, 1)).abs().max() < 1e-6


def test_sure_samples_that_contradict_each_other_have_nothing_but_mutual_information() -> None:
    samples = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).reshape(2, 2, 1, 1)
    assert expected_entropy(samples).item() == 0
    assert mutual_information(samples).item() == pytest.approx(math.log(2))
    assert margin(samples).item() == 0


def test_logits_of_one_image_are_refused_by_their_shape() -> None:
    with pytest.raises(ValueError, match=r"\(S, C, H, W\)"):
        predictive_entropy(torch.zeros(2, 3, 4))
