"""Predictions as Label Studio accepts them, and what is remembered of them."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.asking.regions import Region
from core.asking.suggestion import SuggestedMask, Suggestion
from core.painting import Box
from core.rle import decode
from ml_backend.label_studio.label_config import parse_label_config
from ml_backend.label_studio.paintings import parse_painting
from ml_backend.label_studio.results import to_prediction

CONFIG = parse_label_config(
    """
    <View>
      <Image name="img" value="$image"/>
      <BrushLabels name="paint" toName="img"><Label value="Background"/><Label value="Nucleus"/></BrushLabels>
      <RectangleLabels name="ask" toName="img">
        <Label value="Uncertain"/><Label value="Reviewed"/>
      </RectangleLabels>
    </View>
    """
)
WITHOUT_RECTANGLES = replace(CONFIG, uncertain_tag=None, uncertain_label=None)
SHAPE = (20, 30)
MASK = np.array([[True, True, False], [False, True, True]])
NUCLEUS = SuggestedMask(class_index=1, mask=MASK, top=4, left=7, confidence=0.9)
QUESTION = Region(
    Box(10, 15, 5, 6), acquisition_score=0.7, class_index=1, runner_up_index=0, confidence=0.521
)
SUGGESTION = Suggestion(SHAPE, (NUCLEUS,), (QUESTION,), score=0.3)


def test_a_mask_is_sent_at_its_place_with_values_that_can_be_seen() -> None:
    prediction, _ = to_prediction(SUGGESTION, CONFIG, "r0001-abcd", "7")
    region = prediction["result"][0]
    alpha = decode(region["value"]["rle"], SHAPE)
    assert set(np.unique(alpha)) == {0, 255}
    assert np.array_equal(alpha[4:6, 7:10] == 255, MASK)
    assert int((alpha == 255).sum()) == int(MASK.sum())
    assert all(isinstance(number, int) and 0 <= number <= 255 for number in region["value"]["rle"])
    assert region["value"]["brushlabels"] == ["Nucleus"]
    assert (region["type"], region["from_name"], region["to_name"]) == ("brushlabels", "paint", "img")
    assert (region["original_width"], region["original_height"], region["image_rotation"]) == (30, 20, 0)
    assert region["score"] == 0.9


def test_a_question_is_an_editable_rectangle_in_percent_with_its_reason() -> None:
    prediction, _ = to_prediction(SUGGESTION, CONFIG, "r0001-abcd", "7")
    question = prediction["result"][1]
    assert question["value"] == {
        "x": 50.0,
        "y": 50.0,
        "width": 20.0,
        "height": 25.0,
        "rotation": 0,
        "rectanglelabels": ["Uncertain"],
    }
    assert question["meta"] == {"text": ["Nucleus or Background? 52 %"]}
    assert question["score"] == 0.521  # the number of the reason, so that it has one meaning
    assert "readonly" not in question


def test_the_prediction_carries_version_and_score_and_is_plain_json() -> None:
    prediction, _ = to_prediction(SUGGESTION, CONFIG, "r0001-abcd", "7")
    assert prediction["model_version"] == "r0001-abcd"
    assert prediction["score"] == 0.3
    assert json.loads(json.dumps(prediction, allow_nan=False)) == prediction


def test_questions_are_left_out_where_the_project_has_no_tag_for_them() -> None:
    prediction, _ = to_prediction(SUGGESTION, WITHOUT_RECTANGLES, "v", "7")
    assert [region["type"] for region in prediction["result"]] == ["brushlabels"]


def test_an_empty_mask_is_never_sent() -> None:
    empty = SuggestedMask(1, np.zeros((2, 2), bool), 0, 0, 0.5)
    prediction, sent = to_prediction(replace(SUGGESTION, masks=(empty,), regions=()), CONFIG, "v", "7")
    assert prediction["result"] == []
    assert sent == ()


def test_what_was_sent_is_remembered_under_the_same_id() -> None:
    prediction, (sent,) = to_prediction(SUGGESTION, CONFIG, "r0001-abcd", "7")
    assert sent.region_id == prediction["result"][0]["id"]
    assert (sent.class_name, sent.model_version, sent.top, sent.left) == ("Nucleus", "r0001-abcd", 4, 7)
    assert np.array_equal(sent.mask, MASK)


def test_a_sent_region_that_comes_back_untouched_is_the_models() -> None:
    prediction, (sent,) = to_prediction(SUGGESTION, CONFIG, "v", "7")
    painting = parse_painting(prediction["result"], CONFIG, SHAPE)
    (region,) = painting.regions
    assert (region.region_id, region.origin) == (sent.region_id, "prediction")
    assert np.array_equal(region.painted, sent.mask)
    assert painting.reviewed == painting.findings == ()


def test_ids_are_ten_characters_the_same_each_time_and_different_for_anything_else() -> None:
    two = replace(SUGGESTION, masks=(NUCLEUS, replace(NUCLEUS, top=9)), regions=(QUESTION, QUESTION))

    def ids(suggestion: Suggestion, version: str, task: str) -> list[str]:
        return [region["id"] for region in to_prediction(suggestion, CONFIG, version, task)[0]["result"]]

    assert ids(two, "v1", "7") == ids(two, "v1", "7")
    other = replace(two, masks=(replace(NUCLEUS, mask=~MASK), NUCLEUS))
    everything = ids(two, "v1", "7") + ids(two, "v2", "7") + ids(two, "v1", "8") + ids(other, "v1", "7")[:1]
    assert len(set(everything)) == len(everything) == 13
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{10}", region_id) for region_id in everything)


def test_without_a_model_version_nothing_is_built() -> None:
    with pytest.raises(ValueError, match="model version"):
        to_prediction(SUGGESTION, CONFIG, "", "7")


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -0.2, 1.5])
def test_a_score_that_is_no_share_is_never_sent(score: float) -> None:
    with pytest.raises(ValueError, match="score"):
        to_prediction(replace(SUGGESTION, score=score), CONFIG, "v", "7")
    with pytest.raises(ValueError, match="score"):
        to_prediction(replace(SUGGESTION, masks=(replace(NUCLEUS, confidence=score),)), CONFIG, "v", "7")


@given(
    height=st.integers(1, 3000),
    width=st.integers(1, 3000),
    top=st.integers(-50, 3000),
    left=st.integers(-50, 3000),
    size=st.integers(0, 400),
)
def test_rectangles_stay_inside_the_image(height: int, width: int, top: int, left: int, size: int) -> None:
    question = replace(QUESTION, box=Box(top, left, size, size))
    suggestion = Suggestion((height, width), (), (question,), 0.5)
    for region in to_prediction(suggestion, CONFIG, "v", "7")[0]["result"]:
        value = region["value"]
        assert 0 <= value["x"] < 100
        assert 0 <= value["y"] < 100
        assert 0 < value["width"] <= 100 - value["x"]
        assert 0 < value["height"] <= 100 - value["y"]


@given(top=st.integers(0, 19), left=st.integers(0, 29), height=st.integers(1, 20), width=st.integers(1, 30))
def test_a_question_answered_with_reviewed_comes_back_as_the_same_pixels(
    top: int, left: int, height: int, width: int
) -> None:
    box = Box(top, left, min(height, 20 - top), min(width, 30 - left))
    prediction, _ = to_prediction(Suggestion(SHAPE, (), (replace(QUESTION, box=box),), 0.5), CONFIG, "v", "7")
    prediction["result"][0]["value"]["rectanglelabels"] = ["Reviewed"]
    assert parse_painting(prediction["result"], CONFIG, SHAPE).reviewed == (box,)
