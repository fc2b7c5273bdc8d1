"""Questions: where the model is least sure, disjoint, inside the image and off what is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from core.asking.reason import reason
from core.asking.regions import (
    CLEAR_PX,
    MAX_SIDE_PX,
    MIN_SIDE_PX,
    SHOWN_PX,
    Region,
    clearance,
    propose_regions,
)
from core.asking.suggestion import SuggestionSettings, build_suggestion
from core.painting import Box
from core.prediction import Prediction
from core.schema import LabelSchema

SCHEMA = LabelSchema.of("Background", "Nucleus", "Cell")


def predict(
    entropy: NDArray[np.float64],
    labels: NDArray[np.uint8] | None = None,
    runner_up: NDArray[np.uint8] | None = None,
    confidence: float = 0.52,
) -> Prediction:
    labels = np.ones(entropy.shape, np.uint8) if labels is None else labels
    runner_up = np.zeros(entropy.shape, np.uint8) if runner_up is None else runner_up
    unsure = entropy.astype(np.float16)
    sure = np.full(entropy.shape, confidence, np.float16)
    return Prediction(labels, runner_up, sure, unsure, unsure, np.zeros_like(unsure), np.zeros_like(unsure))


def pixels(region: Region, shape: tuple[int, int]) -> NDArray[np.bool_]:
    mask = np.zeros(shape, bool)
    mask[region.box.slices] = True
    return mask


def inset(side_px: int, shape: tuple[int, int]) -> int:
    return min(-(-clearance(shape) // 2), side_px // 8)


def free_px(one: Box, other: Box) -> int:
    """Pixels between two boxes, along the axis on which they are further apart."""
    (top, left), (above, before) = (one.top, one.left), (other.top, other.left)
    down = max(above - top - one.height, top - above - other.height)
    return max(down, before - left - one.width, left - before - other.width)


def nothing_known(prediction: Prediction) -> NDArray[np.bool_]:
    return np.zeros(prediction.shape, bool)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 300), st.integers(1, 300), st.floats(2, 120), st.integers(1, 8))
def test_regions_are_disjoint_inside_the_image_and_off_the_annotated_area(
    seed: int, height: int, width: int, object_size_px: float, n: int
) -> None:
    rng = np.random.default_rng(seed)
    labels, runner_up = (rng.integers(0, 3, (height, width), np.uint8) for _ in range(2))
    prediction = predict(rng.random((height, width)), labels, runner_up)
    annotated = np.zeros((height, width), bool)
    annotated[: height // 3, : width // 2] = rng.random() < 0.8
    regions = propose_regions(prediction, annotated, SCHEMA, object_size_px, n)
    covered = np.zeros((height, width), int)
    for region in regions:
        assert region.box.top >= 0
        assert region.box.left >= 0
        assert region.box.top + region.box.height <= height
        assert region.box.left + region.box.width <= width
        assert region.box.height >= 1
        assert region.box.width >= 1
        covered += pixels(region, (height, width))
        assert 0 < region.acquisition_score <= 1
        assert 0 <= region.confidence <= 1
    if min(height, width) >= 90:  # in tiny images there is no room
        for region in regions:
            top, left, side = region.box.top, region.box.left, region.box
            assert min(top, left, height - top - side.height, width - left - side.width) >= 1
    assert covered.max(initial=0) <= 1
    assert not (annotated & (covered > 0)).any()
    assert len(regions) <= n
    assert list(regions) == sorted(regions, key=lambda r: -r.acquisition_score)
    assert regions == propose_regions(prediction, annotated, SCHEMA, object_size_px, n)


@pytest.mark.parametrize("shape", [(96, 96), (256, 256), (360, 480), (1024, 500), (200, 2000)])
def test_what_is_sent_lies_apart_on_the_screen_and_off_the_edge(shape: tuple[int, int]) -> None:
    # Everything is equally unsure, so that each question would have neighbours.
    prediction = predict(np.full(shape, 0.69))
    asked = SuggestionSettings(max_questions=12)
    sent = build_suggestion(prediction, SCHEMA, nothing_known(prediction), [], asked).regions
    on_screen = SHOWN_PX / max(shape)
    assert len(sent) >= 3
    for index, region in enumerate(sent):
        box = region.box
        beyond = min(box.top, box.left, shape[0] - box.top - box.height, shape[1] - box.left - box.width)
        assert beyond >= 1
        for other in sent[index + 1 :]:
            assert free_px(box, other.box) * on_screen >= CLEAR_PX


def test_the_least_sure_place_is_asked_about_first() -> None:
    entropy = np.full((400, 400), 0.01)
    entropy[200:250, 100:150] = 0.9
    entropy[300:340, 300:340] = 0.5
    first, second, *_ = propose_regions(predict(entropy), np.zeros((400, 400), bool), SCHEMA, 24, 5)
    assert pixels(first, (400, 400))[225, 125]
    assert pixels(second, (400, 400))[320, 320]


def test_a_region_says_which_classes_are_confused_and_how_sure_the_model_is() -> None:
    entropy = np.full((200, 200), 0.5)
    (region,) = propose_regions(predict(entropy), np.zeros((200, 200), bool), SCHEMA, 24, 1)
    assert (region.class_index, region.runner_up_index) == (1, 0)
    assert reason(region, SCHEMA) == "Nucleus or Background? 52 %"


def test_the_confidence_is_that_of_the_unsure_pixels_and_not_of_the_sure_ones() -> None:
    entropy = np.zeros((96, 96))
    entropy[:10] = 1.0
    prediction = predict(entropy)
    prediction.confidence[10:] = 1.0
    prediction.runner_up[10:] = 2
    (region, *_) = propose_regions(prediction, nothing_known(prediction), SCHEMA, 24, 1)
    assert abs(region.confidence - 0.52) < 0.01
    assert region.runner_up_index == 0


def test_questions_are_spread_over_the_classes() -> None:
    entropy = np.full((600, 600), 0.5)
    entropy[500:, 500:] = 0.3
    runner_up = np.zeros((600, 600), np.uint8)
    runner_up[500:, 500:] = 2
    prediction = predict(entropy, runner_up=runner_up)
    regions = propose_regions(prediction, nothing_known(prediction), SCHEMA, 24, 4)
    assert len(regions) == 4
    assert {r.runner_up_index for r in regions} == {0, 2}


def test_a_pair_of_classes_that_is_hardly_confused_does_not_push_out_a_real_question() -> None:
    entropy = np.full((600, 600), 0.9)
    entropy[500:, 500:] = 0.05
    runner_up = np.zeros((600, 600), np.uint8)
    runner_up[500:, 500:] = 2
    prediction = predict(entropy, runner_up=runner_up)
    regions = propose_regions(prediction, nothing_known(prediction), SCHEMA, 24, 4)
    assert {r.runner_up_index for r in regions} == {0}


def test_the_outline_of_a_sure_object_is_no_better_question_than_an_unsure_patch() -> None:
    labels = np.zeros((300, 300), np.uint8)
    labels[60:100, 60:100] = 1
    entropy = np.zeros((300, 300))
    entropy[58:102, 58:102] = 0.8
    entropy[62:98, 62:98] = 0  # the model is unsure of the outline alone, as models are
    entropy[200:230, 200:230] = 0.2
    prediction = predict(entropy, labels)
    first = propose_regions(prediction, nothing_known(prediction), SCHEMA, 24, 5)[0]
    assert pixels(first, (300, 300))[215, 215]


def test_nothing_is_asked_where_everything_is_known_or_sure() -> None:
    unsure = predict(np.ones((100, 100)))
    assert propose_regions(unsure, np.ones((100, 100), bool), SCHEMA, 24, 5) == ()
    sure = predict(np.zeros((100, 100)))
    assert propose_regions(sure, nothing_known(sure), SCHEMA, 24, 5) == ()
    assert propose_regions(unsure, nothing_known(unsure), SCHEMA, 24, 0) == ()
    assert propose_regions(unsure, nothing_known(unsure), LabelSchema.of("A"), 24, 5) == ()


def test_boxes_follow_the_size_of_the_objects_within_limits() -> None:
    prediction = predict(np.ones((900, 900)))
    for size_px, expected in ((3, MIN_SIDE_PX), (60, 120), (800, MAX_SIDE_PX)):
        (region,) = propose_regions(prediction, nothing_known(prediction), SCHEMA, size_px, 1)
        assert region.box.height == region.box.width == expected - 2 * inset(expected, (900, 900))


def test_small_images_may_have_smaller_boxes() -> None:
    # They are shown enlarged, but no question is more than a third of the image.
    for side_px, size_px, expected in ((256, 4, 32), (256, 20, 40), (384, 4, 48), (90, 20, 30)):
        prediction = predict(np.ones((side_px, side_px + 9)))
        (region,) = propose_regions(prediction, nothing_known(prediction), SCHEMA, size_px, 1)
        assert region.box.height == region.box.width
        given_up = 2 * inset(expected, prediction.shape)
        assert abs(region.box.width + given_up - expected) <= 2  # a whole number of pixels per block


def test_wrong_inputs_are_refused() -> None:
    prediction = predict(np.ones((50, 50)))
    with pytest.raises(ValueError, match="annotated is"):
        propose_regions(prediction, np.zeros((50, 49), bool), SCHEMA, 24, 5)
    prediction.predictive_entropy[10, 10] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        propose_regions(prediction, nothing_known(prediction), SCHEMA, 24, 5)


def test_stripes_do_not_change_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, (40, 30), np.uint8).repeat(8, 0).repeat(8, 1)
    prediction = predict(rng.random((320, 240)), labels)
    whole = propose_regions(prediction, nothing_known(prediction), SCHEMA, 24, 5)
    monkeypatch.setattr("core.asking.region_grid.ROWS_AT_ONCE", 30)
    assert propose_regions(prediction, nothing_known(prediction), SCHEMA, 24, 5) == whole
