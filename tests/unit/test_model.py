"""The network keeps what it knows when classes and channels come and go."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from core.network.unet import (
    build_architecture,
    build_network,
    conform_channels,
    conform_classes,
    initial_weights,
    receptive_margin_px,
    stride_of,
    widen_channels,
)

TINY = (4, 6, 8)


def _logits(
    architecture: dict[str, object], weights: dict[str, torch.Tensor], x: torch.Tensor
) -> torch.Tensor:
    network = build_network(architecture)
    network.load_state_dict(weights)
    with torch.no_grad():
        return network(x)  # type: ignore[no-any-return]


def _random_weights(architecture: dict[str, object]) -> dict[str, torch.Tensor]:
    weights = initial_weights(architecture, np.random.default_rng(0))
    generator = torch.Generator().manual_seed(1)
    return {name: t + 0.1 * torch.randn(t.shape, generator=generator) for name, t in weights.items()}


@pytest.mark.parametrize(("channels", "classes"), [(1, 2), (3, 1), (5, 254)])
def test_any_number_of_channels_and_classes_gives_one_logit_per_pixel_and_class_and_outline(
    channels: int, classes: int
) -> None:
    architecture = build_architecture(channels, classes, TINY)
    logits = _logits(architecture, _random_weights(architecture), torch.zeros(2, channels, 8, 16))
    assert logits.shape == (2, classes + 1, 8, 16)


def test_building_a_network_leaves_torch_s_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    initial_weights(build_architecture(1, 2, TINY), np.random.default_rng(0))
    assert torch.equal(before, torch.random.get_rng_state())


def test_kept_classes_keep_their_logits_when_classes_are_added_removed_and_moved() -> None:
    old, new = ["Background", "Cell", "Gone"], ["New", "Cell", "Background"]
    before = build_architecture(1, 3, TINY)
    weights = _random_weights(before)
    x = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(2))
    was = _logits(before, weights, x)
    now = _logits(build_architecture(1, 3, TINY), conform_classes(weights, old, new), x)
    torch.testing.assert_close(now[:, 1], was[:, 1])
    torch.testing.assert_close(now[:, 2], was[:, 0])
    torch.testing.assert_close(now[:, -1], was[:, -1])  # the outline belongs to no class


def test_a_network_widened_to_colour_answers_grey_images_as_before() -> None:
    grey = build_architecture(1, 2, TINY)
    weights = _random_weights(grey)
    x = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    wide = _logits(build_architecture(3, 2, TINY), conform_channels(weights, 3), x.repeat(1, 3, 1, 1))
    torch.testing.assert_close(wide, _logits(grey, weights, x))


@pytest.mark.parametrize(("few", "many"), [(2, 3), (3, 4), (3, 7)])
def test_a_network_that_gets_more_channels_goes_on_reading_the_ones_it_knows(few: int, many: int) -> None:
    narrow = build_architecture(few, 2, TINY)
    weights = _random_weights(narrow)
    x = torch.randn(1, many, 8, 8, generator=torch.Generator().manual_seed(3))
    wide = _logits(build_architecture(many, 2, TINY), widen_channels(weights, many), x)
    torch.testing.assert_close(wide, _logits(narrow, weights, x[:, :few]))


def test_a_grey_network_that_gets_more_channels_answers_grey_images_as_before() -> None:
    grey = build_architecture(1, 2, TINY)
    weights = _random_weights(grey)
    x = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    wide = _logits(build_architecture(4, 2, TINY), widen_channels(weights, 4), x.repeat(1, 4, 1, 1))
    torch.testing.assert_close(wide, _logits(grey, weights, x))


@pytest.mark.parametrize("widths", [(4,), (4, 6), TINY])
def test_no_pixel_beyond_the_receptive_margin_changes_an_output(widths: tuple[int, ...]) -> None:
    architecture = build_architecture(1, 1, widths)
    # Positive weights and inputs: whatever is read passes every rectifier and shows in the gradient.
    network = build_network(architecture)
    weights = {name: t.abs() for name, t in _random_weights(architecture).items()}
    network.load_state_dict(weights)
    stride, side = stride_of(architecture), 160
    furthest = 0
    for position in range(side // 2, side // 2 + stride):
        x = torch.rand(1, 1, side, side, generator=torch.Generator().manual_seed(position)).requires_grad_()
        network(x)[0, 0, position, position].backward()
        assert x.grad is not None
        read = x.grad[0, 0].abs().sum(1).nonzero()
        furthest = max(furthest, position - int(read.min()), int(read.max()) - position)
    margin = receptive_margin_px(architecture)
    assert furthest <= margin
    assert margin - furthest < 2 * stride
