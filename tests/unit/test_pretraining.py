"""The drawn images that base weights are made from, the making, and what a project takes over."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from core.network.base_weights import CARD_FILE, FOLDER, WEIGHTS_FILE, base_for, fits_base, load_base
from core.network.unet import DEFAULT_WIDTHS, build_architecture, build_network
from core.pretraining.looks import depth_of, draw_scene
from core.pretraining.pretrain import batches, loss_of, main, pretrain, standardise_scene
from core.pretraining.shapes import draw_blobs, draw_cells, draw_fibres, draw_phases
from core.schema import LabelSchema
from core.threads import torch_threads
from core.training.outlines import rims_of

MAX_SHIPPED_BYTES = 5 * 2**20


def test_the_same_generator_state_draws_the_same_scene() -> None:
    first, second = (draw_scene(np.random.default_rng(5), 48) for _ in range(2))
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.instances, second.instances)


def test_scenes_are_pictures_of_all_kinds_with_values_from_0_to_1() -> None:
    rng = np.random.default_rng(0)
    scenes = [draw_scene(rng, 48) for _ in range(60)]
    assert {scene.kind for scene in scenes} == {"blobs", "cells", "fibres", "phases"}
    assert all(scene.image.shape == (48, 48, 3) and scene.image.dtype == np.float32 for scene in scenes)
    assert min(float(scene.image.min()) for scene in scenes) >= 0
    assert max(float(scene.image.max()) for scene in scenes) <= 1


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng: draw_blobs(rng, 64, 8, 6, 0.3, 0.1, 0.1),
        lambda rng: draw_cells(rng, 64, 12),
        lambda rng: draw_fibres(rng, 64, 5, 2),
        lambda rng: draw_phases(rng, 64, 8),
    ],
)
def test_every_kind_of_shape_leaves_things_and_room_around_them(draw) -> None:  # type: ignore[no-untyped-def]
    shares = [(draw(np.random.default_rng(seed)) > 0).mean() for seed in range(8)]
    assert 0.01 < np.mean(shares) < 0.99


def test_blobs_hide_one_another_no_more_than_allowed() -> None:
    instances = draw_blobs(np.random.default_rng(2), 96, 9, 30, 0.1, 0.0, 0.0)
    assert instances.max() > 3
    for number in range(1, int(instances.max()) + 1):
        outlines, _ = cv2.findContours(
            (instances == number).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
        )
        (whole,) = outlines  # nothing lies across it
        assert cv2.contourArea(whole) > 0.8 * cv2.contourArea(cv2.convexHull(whole))


def test_clumping_brings_things_together() -> None:
    def touching(clumping: float) -> float:
        rims = [
            np.mean((depth_of(instances) < 1) & (rims_of(instances)))
            / max(np.mean(rims_of((instances > 0).astype(np.int32))), 1e-6)
            for instances in (
                draw_blobs(np.random.default_rng(seed), 96, 7, 12, 0.1, 0.0, 0.2, clumping)
                for seed in range(6)
            )
        ]
        return float(np.mean(rims))

    assert touching(0.9) > touching(0.0)


def test_a_thing_is_deepest_in_its_middle_and_shallow_beside_its_neighbour() -> None:
    instances = np.zeros((9, 18), np.int32)
    instances[:, :9], instances[:, 9:] = 1, 2
    depth = depth_of(instances)
    assert depth[4, 0] == depth[4, 17] == 1  # as far from the neighbour as can be
    assert depth[4, 8] == depth[4, 9] < 0.2


def test_a_standardised_scene_is_near_the_standard_of_a_project() -> None:
    rng = np.random.default_rng(1)
    values = np.stack([standardise_scene(draw_scene(rng, 48).image, rng) for _ in range(20)])
    assert abs(float(values.mean())) < 0.3
    assert 0.5 < float(values.std()) < 1.6


def test_a_batch_has_pictures_things_and_outlines_of_one_size() -> None:
    images, things, outlines = next(batches(np.random.default_rng(0)))
    assert images.shape[1] == 3
    assert images.shape[2:] == things.shape[1:] == outlines.shape[1:]


def test_the_loss_falls_with_the_right_answer() -> None:
    things, outlines = torch.tensor([[[0, 1]]]), torch.tensor([[[0.0, 1.0]]])
    right = torch.tensor([[[[5.0, -5.0]], [[-5.0, 5.0]], [[-5.0, 5.0]]]])
    assert loss_of(right, things, outlines) < 0.05 < loss_of(-right, things, outlines)


def test_the_command_makes_the_same_base_weights_from_the_same_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch_threads(1):
        made = pretrain(3, 1)
    monkeypatch.setattr("sys.argv", ["pretrain", str(tmp_path / "base"), "--steps", "1", "--seed", "3"])
    main()
    card = json.loads((tmp_path / "base" / CARD_FILE).read_text())
    assert card["loss_per_100_steps"] == list(made.losses)
    assert card["command"].endswith("FOLDER --steps 1 --seed 3 --threads 1")
    written = load_base(tmp_path / "base")
    assert written.keys() == made.weights.keys()
    for name, tensor in made.weights.items():
        assert torch.equal(tensor, written[name]), name


def test_the_shipped_weights_are_small_and_say_what_they_were_made_from() -> None:
    card = json.loads((FOLDER / CARD_FILE).read_text())
    assert (FOLDER / WEIGHTS_FILE).stat().st_size <= MAX_SHIPPED_BYTES
    assert fits_base(build_architecture(1, 5, DEFAULT_WIDTHS))
    assert not fits_base(build_architecture(3, 2, (4, 6)))
    assert "no photographs" in card["made_from"]
    assert card["command"].startswith("python -m core.pretraining.pretrain ")


def test_background_starts_as_around_and_every_other_class_as_thing() -> None:
    base = load_base()
    weights = base_for(LabelSchema.of("Nucleus", "Background", "Debris"))
    for row, taken in enumerate([1, 0, 1]):
        assert torch.equal(weights["head.weight"][row], base["head.weight"][taken])
        assert torch.equal(weights["head.bias"][row], base["head.bias"][taken])


def test_the_base_network_finds_things_before_any_round() -> None:
    rng = np.random.default_rng(77)
    found = []
    network = build_network(build_architecture(3, 2))
    network.load_state_dict(base_for(LabelSchema.of("Background", "Thing")))
    for _ in range(8):
        scene = draw_scene(rng, 64)
        values = (scene.image - scene.image.mean((0, 1))) / (scene.image.std((0, 1)).max() + 0.02)
        with torch_threads(1), torch.inference_mode():
            logits = network(torch.from_numpy(values.transpose(2, 0, 1)[None]))
        found.append(float(((logits[0, :2].argmax(0).numpy() == 1) == (scene.instances > 0)).mean()))
    assert np.mean(found) > 0.75
