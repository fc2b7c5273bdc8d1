"""The bench of clicks: who points, where the next click goes, what is compared, and what must show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bench import Options, click, click_dice
from bench.annotator import BACKGROUND, OBJECT, LabelledImage, PaintedImage
from bench.click_limits import limits_of
from bench.click_prompts import click_and_correct, draw_box, flood_fill, grab_cut, overlap
from bench.click_seconds import by_size, clicking_s, hand_seconds, painting_s
from core.painting import Box, Mask
from core.prompts.prompt import Known, Prompt
from core.schema import IGNORE_INDEX

TRUTH = np.zeros((60, 60), bool)
TRUTH[20:40, 20:40] = True


def test_the_first_click_is_in_the_middle_and_the_next_where_most_is_wrong() -> None:
    half, too_much = TRUTH.copy(), TRUTH.copy()
    half[:, 30:] = False
    too_much[20:40, 5:20] = True
    asked: list[Prompt] = []
    answers = iter([half, too_much, TRUTH])

    def answer(prompt: Prompt) -> Mask:
        asked.append(prompt)
        return next(answers)

    assert click_and_correct(TRUTH, answer, 3) == pytest.approx([0.5, 400 / 700, 1.0])
    first, second = (20 < asked[1].positive[i][1] < 40 for i in (0, 1))
    assert first
    assert second
    assert asked[1].positive[1][1] > 30
    ((row, column),) = asked[2].negative
    assert 20 < row < 40
    assert 5 < column < 20


def test_clicks_that_do_not_help_cost_the_painting_too() -> None:
    painted = painting_s(TRUTH)
    assert painted > 0.3
    one, two = clicking_s(TRUTH, [0.9, 0.1, 0.1]), clicking_s(TRUTH, [0.5, 0.85, 0.1])
    assert one < two < clicking_s(TRUTH, [0.5, 0.5, 0.5]) - painted + 0.7
    assert clicking_s(TRUTH, [0.5, 0.5, 0.5]) > painted


def test_seconds_are_told_by_the_size_of_the_objects() -> None:
    large = np.ones((80, 80), bool)
    hand = [hand_seconds(TRUTH, [0.9]), hand_seconds(TRUTH, [0.1, 0.9]), hand_seconds(large, [0.9])]
    small, big = by_size(hand)
    assert (small["from_px"], small["objects"]) == (20, 2)
    assert (big["from_px"], big["objects"]) == (60, 1)
    assert small["clicked_s"] == pytest.approx(hand[0].clicked_s + hand[1].clicked_s, abs=0.01)
    assert small["one_click_s"] < small["clicked_s"]
    assert big["one_click_s"] == big["clicked_s"]
    assert big["clicked_s"] / big["painted_s"] < small["clicked_s"] / small["painted_s"]


def test_a_box_is_drawn_near_the_object_and_inside_the_image() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        box = draw_box(TRUTH, rng)
        assert abs(box.top - 20) <= 4
        assert abs(box.left + box.width - 40) <= 4
    whole = draw_box(np.ones((10, 10), bool), rng)
    assert whole.top >= 0
    assert whole.top + whole.height <= 10


def test_the_methods_beside_ours_find_a_plain_square() -> None:
    image = np.where(TRUTH[..., None], 200, 40).astype(np.uint8).repeat(3, axis=2)
    image += np.random.default_rng(0).integers(0, 6, image.shape, np.uint8)
    assert overlap(flood_fill(image, Prompt(((30.0, 30.0),))), TRUTH) > 0.95
    assert overlap(grab_cut(image, Prompt(box=Box(14, 14, 32, 32))), TRUTH) > 0.8


def test_areas_of_a_label_map_are_objects_and_small_ones_are_nobodys(tmp_path: Path) -> None:
    label_map = np.zeros((60, 90), np.uint8)
    label_map[5:25, 5:25] = label_map[5:25, 40:60] = 1
    label_map[50:52, 50:52] = 1
    for part in ("pool", "test"):
        (tmp_path / "streets" / part).mkdir(parents=True)
        np.savez(tmp_path / "streets" / part / "a.npz", image=label_map[..., None] * 100, label_map=label_map)
    (tmp_path / "streets" / "classes.txt").write_text("Background\nCar")
    ((name, parts),) = click.load_clicked(tmp_path, "test").items()
    assert name == "streets Car"
    assert sorted(np.unique(parts["test"][0].instances).tolist()) == [-1, 0, 1, 2]


def test_it_runs_on_drawn_images_with_a_model_and_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(click_dice, "N_THREADS", 1)
    torch.set_num_threads(1)
    drawn = {k: {p: i[:6] for p, i in v.items()} for k, v in click.load_sets(None).items()}
    monkeypatch.setattr(click, "load_sets", lambda data: {"fluorescence": drawn["fluorescence"]})
    result = click.run(Options(arguments=("--objects", "3", "--after", "5", "--steps", "2", "--dice")))
    assert [row[:3] for row in result.rows] == [
        ("fluorescence", name, 3) for name in (click.FLOOD, click.GRABCUT, click.NO_MODEL, "5 objects")
    ]
    assert all(0 <= score <= 1 for row in result.rows for score in row[3:7])
    assert not result.goals
    limits = result.record["measurements"][-1]["limits"]
    assert 0 <= limits["apart"] <= limits["threshold"] <= 1
    assert [table.title for table in result.further][1:] == [
        "Median IoU of what the model itself would answer",
        "A round on painted objects, and one on the same objects clicked",
    ]
    (learnt,) = result.record["learnt"]
    assert learnt["objects"] == 5
    assert all(0 <= value <= 1 for value in learnt["dice"].values())


def test_what_limits_a_click_is_told_apart() -> None:
    instances = np.zeros((60, 60), np.int32)
    instances[20:40, 10:30], instances[20:40, 30:50] = 1, 2
    sure = np.where(instances > 0, np.float16(0.9), np.float16(0.1))
    sure[20:40, 10:16] = 0.3  # a part of the first object is found with a lower threshold alone
    together = (sure > 0.5).astype(np.int32)  # and what is left of it was never parted from the second one
    image = LabelledImage("a", np.zeros((60, 60, 1), np.uint8), instances)
    limits = limits_of([(image, 1)], {"a": Known(sure, together)})
    assert limits == {"seen": 1.0, "suggested": 0.35, "apart": 0.7, "threshold": 1.0}
    assert limits_of([(image, 1)], {"a": Known()}) is None
    nothing = Known(sure, np.zeros((60, 60), np.int32))
    assert limits_of([(image, 1)], {"a": nothing}) == {**limits, "seen": 0.0, "suggested": 0.0}


def test_a_clicked_object_is_kept_with_its_errors_and_one_that_clicks_do_not_find_is_painted() -> None:
    instances = np.zeros((60, 60), np.int32)
    instances[10:30, 5:25], instances[10:30, 30:50] = 1, 2
    painted = np.full((60, 60), IGNORE_INDEX, np.uint8)
    painted[5:35, :] = BACKGROUND
    painted[instances > 0] = OBJECT
    shifted = np.zeros((60, 60), bool)
    shifted[11:31, 5:25] = True
    (clicked,), hand, overlaps = click_dice.click_objects(
        [PaintedImage("a", np.zeros((60, 60, 1), np.uint8), painted, 2)],
        [LabelledImage("a", np.zeros((60, 60, 1), np.uint8), instances)],
        lambda one: lambda prompt: shifted,
        n_clicks=3,
    )
    assert clicked.label_map[10, 10] == IGNORE_INDEX
    assert clicked.label_map[30, 10] == OBJECT
    assert np.array_equal(clicked.label_map[:, 30:], painted[:, 30:])
    assert overlaps == [pytest.approx(19 / 21), 1.0]
    assert hand[0].clicked_s < hand[1].clicked_s


def test_goals_are_said_for_real_images() -> None:
    measured = [
        {"set": "histology", "with": click.NO_MODEL, "median": [0.81, 0.6, 0.7, 0.8]},
        {
            "set": "histology",
            "with": "15 objects",
            "median": [0.8, 0.86, 0.87, 0.88],
            "hand_s": {"clicked": 3.0, "painted": 10.0},
        },
        {
            "set": "cracks Crack",
            "with": "15 objects",
            "median": [0.8, 0.6, 0.7, 0.8],
            "hand_s": {"clicked": 9.0, "painted": 10.0},
        },
    ]
    # A model or none; then per set a click, what the second one gains, and seconds against painting.
    assert [goal.met for goal in click._goals(measured)] == [True, True, False, True, False, True, False]
