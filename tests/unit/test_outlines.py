"""Which outlines are known, and how the network is taught by them."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import torch
from numpy.typing import NDArray

from core.schema import IGNORE_INDEX
from core.training.loss import outline_loss
from core.training.outlines import RIM_PX, outline_targets, rims_of

U = IGNORE_INDEX


def disc_map(radius: int = 10, ring: int | None = None, size: int = 48) -> NDArray[np.uint8]:
    """An object in the middle, Background around it up to `ring` px from its border (None: everywhere)."""
    rows, columns = np.mgrid[:size, :size]
    distance = np.hypot(rows - size // 2, columns - size // 2)
    label_map = np.where(distance < radius + 0.5, 1, 0).astype(np.uint8)
    if ring is not None:
        label_map[distance > radius + ring] = U
    return label_map


def test_a_painted_object_has_a_rim_on_both_sides_of_its_outline() -> None:
    targets = outline_targets(disc_map(), background=0)
    middle = targets[24]
    assert middle[24] == 0
    assert middle[0] == 0
    assert middle[32:38].tolist() == [0, 1, 1, 1, 1, 0]


def test_a_scribble_without_anything_beside_it_has_no_outline() -> None:
    scribble = np.full((20, 20), U, np.uint8)
    scribble[5:15, 5:15] = 1
    targets = outline_targets(scribble, background=0)
    assert 1 not in targets
    assert targets[10, 10] == 0
    assert targets[5, 5] == U


def test_a_whole_object_has_its_outline_also_where_it_touches_an_unpainted_neighbour() -> None:
    label_map = disc_map(ring=8)
    label_map[:20] = np.where(label_map[:20] == 0, U, label_map[:20])  # an unpainted neighbour above
    targets = outline_targets(label_map, background=0)
    assert targets[14, 24] == 1


def test_a_soft_edge_between_object_and_background_is_still_an_outline() -> None:
    row = np.array([[0] * 6 + [U] + [1] * 6], np.uint8)
    assert outline_targets(row, background=0)[0].tolist() == [0, 0, 0, 0, U, 1, U, 1, 1, 0, 0, 0, 0]


def test_background_beside_something_unpainted_says_nothing() -> None:
    label_map = np.zeros((12, 12), np.uint8)
    label_map[:, 6:] = U
    targets = outline_targets(label_map, background=0)
    assert (targets[:, 4:6] == U).all()
    assert (targets[:, :4] == 0).all()


def test_touching_objects_have_a_rim_between_them_where_a_line_was_carved() -> None:
    label_map = np.ones((15, 15), np.uint8)
    label_map[:, 7] = 0
    targets = outline_targets(label_map, background=0)
    assert (targets[:, 7 - RIM_PX : 8 + RIM_PX] == 1).all()
    assert (targets[:, :4] == 0).all()


def test_an_object_cut_off_by_the_edge_of_the_image_has_no_rim_there() -> None:
    label_map = np.ones((12, 12), np.uint8)
    label_map[:, 9:] = 0
    targets = outline_targets(label_map, background=0)
    assert (targets[0, :6] == 0).all()


def test_two_object_classes_side_by_side_have_an_outline_without_any_background() -> None:
    row = np.array([[1, 1, 1, 1, 2, 2, 2, 2]], np.uint8)
    assert outline_targets(row, background=None)[0].tolist() == [0, 0, 1, 1, 1, 1, 0, 0]


def test_rims_of_known_objects_lie_between_them_too() -> None:
    instances = np.array([[1, 1, 1, 1, 2, 2, 2, 2, 0, 0, 0]], np.int32)
    assert rims_of(instances)[0].astype(int).tolist() == [0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 0]


def test_the_value_of_an_unknown_pixel_changes_no_gradient() -> None:
    targets = torch.tensor([[[1, U, 0]]])
    gradients = []
    for unknown in (-3.0, 5.0):
        logits = torch.tensor([[[0.5, unknown, -0.5]]], requires_grad=True)
        outline_loss(logits, targets).backward()
        assert logits.grad is not None
        gradients.append(logits.grad[0, 0].tolist())
    assert gradients[0] == gradients[1]
    assert gradients[0][1] == 0


def test_a_batch_without_any_known_outline_costs_nothing() -> None:
    logits = torch.ones(1, 2, 2, requires_grad=True)
    loss = outline_loss(logits, torch.full((1, 2, 2), U))
    loss.backward()
    assert float(loss.detach()) == 0
    assert logits.grad is not None
    assert float(logits.grad.abs().sum()) == 0


def test_a_process_that_draws_no_outline_starts_without_the_statistics_that_drawing_brings() -> None:
    script = "import sys, core.outlining; sys.stdout.write(' '.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert not {"scipy.signal", "scipy.stats"} & set(loaded.split())
