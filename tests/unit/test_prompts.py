"""One object from a click, a box or a stroke, on drawn images."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from core.painting import Box, Mask, fill_holes
from core.prompts.ground import fill_ground
from core.prompts.lab_colours import to_colours
from core.prompts.prompt import Known, Prompt, PromptedMask
from core.prompts.segment import segment
from core.synthetic import make_image

SHAPE = (120, 160)


def disc(row: float, column: float, radius: float, shape: tuple[int, int] = SHAPE) -> Mask:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return np.asarray(np.hypot(rows - row, columns - column) <= radius)


def picture(*things: Mask, seed: int = 0, n_channels: int = 1) -> NDArray[Any]:
    """Bright things on a dark ground, with noise."""
    rng = np.random.default_rng(seed)
    image = rng.normal(60, 6, (*SHAPE, n_channels))
    for thing in things:
        image[thing] += 90
    return np.clip(image, 0, 255).astype(np.uint8)


def whole(found: PromptedMask | None, shape: tuple[int, int] = SHAPE) -> Mask:
    mask = np.zeros(shape, bool)
    if found is not None:
        mask[found.box.slices] = found.mask
    return mask


def overlap(one: Mask, other: Mask) -> float:
    return float(np.count_nonzero(one & other) / np.count_nonzero(one | other))


ONE = disc(60, 50, 14)
CALLED = {
    "a click": Prompt(positive=((60.5, 50.5),)),
    "a click off its middle": Prompt(positive=((55.0, 57.0),)),
    "a box": Prompt(box=Box(45, 35, 31, 31)),
    "a stroke": Prompt(stroke=disc(60, 46, 3) | disc(61, 54, 3)),
}


@pytest.mark.parametrize("call", CALLED)
@pytest.mark.parametrize("n_channels", [1, 2, 3, 5])
def test_an_object_is_found_to_its_border(call: str, n_channels: int) -> None:
    found = segment(to_colours(picture(ONE, n_channels=n_channels)), CALLED[call])
    assert overlap(whole(found), ONE) > 0.75


def test_a_wide_range_of_numbers_looks_as_a_narrow_one() -> None:
    dark = picture(ONE).astype(np.uint16) * 7 + 1000
    found = segment(to_colours(dark), CALLED["a click"])
    assert overlap(whole(found), ONE) > 0.8


def test_an_object_larger_than_the_usual_window_is_found() -> None:
    image = np.zeros((500, 500, 1), np.uint8)
    large = disc(250, 250, 110, (500, 500))
    image[large] = 200
    found = segment(to_colours(image), Prompt(box=Box(138, 138, 225, 225)))
    assert overlap(whole(found, (500, 500)), large) > 0.95


def test_a_point_in_a_suggested_object_returns_that_object_alone() -> None:
    objects = np.zeros(SHAPE, np.int32)
    objects[disc(60, 50, 9)], objects[disc(60, 90, 9)] = 1, 2
    found = segment(to_colours(picture(ONE)), CALLED["a click"], Known(objects=objects))
    assert np.array_equal(whole(found), objects == 1)


def test_the_score_of_a_suggested_object_is_what_the_model_says_of_it() -> None:
    objects = disc(60, 50, 9).astype(np.int32)
    known = Known(probability=np.full(SHAPE, 0.75, np.float16), objects=objects)
    found = segment(to_colours(picture(ONE)), CALLED["a click"], known)
    assert found is not None
    assert found.score == pytest.approx(0.75)


def test_of_a_suggested_object_the_part_that_is_painted_is_left_out() -> None:
    objects, taken = ONE.astype(np.int32), disc(60, 64, 8)
    found = whole(segment(to_colours(picture(ONE)), CALLED["a click"], Known(objects=objects, taken=taken)))
    assert np.array_equal(found, ONE & ~taken)


def test_a_suggested_object_that_is_painted_all_over_is_answered_with_nothing() -> None:
    known = Known(objects=ONE.astype(np.int32), taken=np.ones(SHAPE, bool))
    assert segment(to_colours(picture(ONE)), CALLED["a click"], known) is None


def test_a_point_that_the_answer_agrees_with_changes_nothing() -> None:
    colours = to_colours(picture(ONE))
    inside, outside = (61.5, 48.5), (10.5, 140.5)
    alone = whole(segment(colours, CALLED["a click"]))
    assert alone[61, 48]
    assert np.array_equal(whole(segment(colours, Prompt(positive=((60.5, 50.5), inside)))), alone)
    assert np.array_equal(whole(segment(colours, Prompt(((60.5, 50.5),), negative=(outside,)))), alone)


def test_a_negative_point_in_a_suggested_object_cuts_it() -> None:
    both = ONE | disc(60, 82, 14)
    prompt = Prompt(positive=((60.5, 50.5),), negative=((60.5, 82.5),))
    found = segment(to_colours(picture(both)), prompt, Known(objects=both.astype(np.int32)))
    assert not whole(found)[60, 82]
    assert overlap(whole(found), ONE) > 0.75


def test_an_object_that_the_model_missed_is_found_beside_its_suggestions() -> None:
    objects = disc(60, 90, 9).astype(np.int32)
    found = segment(to_colours(picture(ONE)), CALLED["a click"], Known(objects=objects))
    assert overlap(whole(found), ONE) > 0.8


def test_the_model_decides_where_the_pixels_say_nothing() -> None:
    flat = np.full((*SHAPE, 1), 80, np.uint8)
    probability = np.where(ONE, 0.95, 0.05).astype(np.float16)
    found = segment(to_colours(flat), CALLED["a click"], Known(probability=probability))
    assert overlap(whole(found), ONE) > 0.85


def test_nothing_that_is_painted_is_covered() -> None:
    taken = np.zeros(SHAPE, bool)
    taken[:, :46] = True
    for call in CALLED.values():
        assert not np.any(whole(segment(to_colours(picture(ONE)), call, Known(taken=taken))) & taken)


def test_other_objects_of_the_suggestion_are_kept_clear_of() -> None:
    neighbour = disc(60, 78, 14)
    objects = neighbour.astype(np.int32)
    found = segment(to_colours(picture(ONE, neighbour)), CALLED["a box"], Known(objects=objects))
    assert not np.any(whole(found) & neighbour)


def test_an_answer_is_one_piece_without_holes() -> None:
    ring = ONE & ~disc(60, 50, 5)
    mask = whole(segment(to_colours(picture(ring)), CALLED["a box"]))
    assert np.array_equal(mask, fill_holes(mask))
    assert cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)[0] == 2


def test_a_click_on_something_painted_answers_nothing() -> None:
    assert segment(to_colours(picture(ONE)), CALLED["a click"], Known(taken=disc(60, 50, 40))) is None


def test_a_prompt_that_points_at_nothing_answers_nothing() -> None:
    colours = to_colours(picture(ONE))
    assert segment(colours, Prompt()) is None
    assert segment(colours, Prompt(negative=((1.0, 1.0),))) is None


def test_a_point_outside_of_the_image_counts_at_its_edge() -> None:
    corner = disc(0, 0, 20)
    found = segment(to_colours(picture(corner)), Prompt(positive=((-3.0, -1.0),)))
    assert overlap(whole(found), corner) > 0.8


def test_correcting_points_bring_the_answer_nearer_to_the_truth() -> None:
    image, instances = make_image("tissue", np.random.default_rng(5), (128, 128))
    colours, gains = to_colours(image), []
    for number in [n for n in np.unique(instances) if n > 0 and (instances == n).sum() > 60][:6]:
        truth = instances == number
        inside = np.argwhere(truth)[len(np.argwhere(truth)) // 2] + 0.5
        one = whole(segment(colours, Prompt((tuple(inside),))), (128, 128))
        missed, wrong = truth & ~one, one & ~truth
        is_missed = missed.sum() >= wrong.sum()
        depth = cv2.distanceTransform((missed if is_missed else wrong).astype(np.uint8), cv2.DIST_L2, 5)
        at = np.array(np.unravel_index(depth.argmax(), depth.shape)) + 0.5
        points = ((tuple(inside), tuple(at)), ()) if is_missed else ((tuple(inside),), (tuple(at),))
        two = whole(segment(colours, Prompt(*points)), (128, 128))
        gains.append(overlap(two, truth) - overlap(one, truth))
    assert np.mean(gains) > 0.005
    assert min(gains) > -0.05


def test_ground_is_filled_up_to_a_distance_and_a_pixel_away_from_objects() -> None:
    found = whole(
        fill_ground(to_colours(picture(ONE)), (60.0, 80.0), Known(objects=ONE.astype(np.int32)), 25)
    )
    near = cv2.dilate(ONE.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    assert not np.any(found & near)
    assert not np.any(found & ~disc(60, 80, 25))
    assert found[60, 100]
    assert found[60, 68]


def test_ground_never_covers_objects_that_nobody_painted() -> None:
    other = disc(60, 100, 8)
    colours = to_colours(picture(ONE, other))
    without_a_model = whole(fill_ground(colours, (60.0, 78.0)))
    probability = np.where(ONE | other, 0.1, 0.99)
    with_a_model = whole(fill_ground(colours, (60.0, 78.0), Known(probability=probability)))
    for found in (without_a_model, with_a_model):
        assert found.sum() > 500
        assert not np.any(found & (ONE | other))


def test_ground_that_is_no_ground_is_not_filled() -> None:
    colours = to_colours(picture(ONE))
    assert fill_ground(colours, (60.0, 50.0), Known(objects=ONE.astype(np.int32))) is None
    assert fill_ground(colours, (10.0, 10.0), Known(taken=np.ones(SHAPE, bool))) is None
    assert fill_ground(colours, (10.0, 10.0), Known(probability=np.zeros(SHAPE))) is None
