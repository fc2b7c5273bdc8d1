"""Regions of an annotation: what becomes paint, what becomes a reviewed area, and what only a remark."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.painting import Box
from core.rle import encode
from ml_backend.label_studio.label_config import parse_label_config
from ml_backend.label_studio.paintings import parse_painting
from ml_backend.label_studio.payloads import parse_webhook

FIXTURES = Path(__file__).parents[1] / "fixtures" / "label_studio"
SHAPE = (6, 8)
CONFIG = parse_label_config(
    """
    <View>
      <Image name="image" value="$image"/><Image name="other" value="$other"/>
      <BrushLabels name="brush" toName="image">
        <Label value="Background"/><Label value="Nucleus"/>
      </BrushLabels>
      <Choices name="quality" toName="image" perRegion="true"><Choice value="blurry"/></Choices>
      <PolygonLabels name="poly" toName="image"><Label value="Nucleus"/></PolygonLabels>
      <TextArea name="note" toName="image"/>
      <KeyPointLabels name="click" toName="image" smart="true"><Label value="Nucleus"/></KeyPointLabels>
      <MagicWand name="wand" toName="image"/>
      <RectangleLabels name="uncertain" toName="image">
        <Label value="Uncertain"/><Label value="Reviewed"/>
      </RectangleLabels>
      <Choices name="review" toName="image"><Choice value="Whole image reviewed"/></Choices>
    </View>
    """
)


def square(top: int = 1, left: int = 2, size: int = 3, shape: tuple[int, int] = SHAPE) -> list[int]:
    mask = np.zeros(shape, bool)
    mask[top : top + size, left : left + size] = True
    return encode(mask)


def brush(label: str = "Nucleus", **changes: Any) -> dict[str, Any]:
    return {
        "id": "r1",
        "type": "brushlabels",
        "from_name": "brush",
        "to_name": "image",
        "original_width": SHAPE[1],
        "original_height": SHAPE[0],
        "image_rotation": 0,
        "origin": "manual",
        "value": {"format": "rle", "rle": square(), "brushlabels": [label]},
        **changes,
    }


def rectangle(label: str, x: float, y: float, width: float, height: float, **value: Any) -> dict[str, Any]:
    box = {"x": x, "y": y, "width": width, "height": height, "rotation": 0, "rectanglelabels": [label]}
    return {
        "id": "u1",
        "type": "rectanglelabels",
        "from_name": "uncertain",
        "to_name": "image",
        "image_rotation": 0,
        "value": {**box, **value},
    }


def polygon(**changes: Any) -> dict[str, Any]:
    value = {"points": [[1, 1], [50, 1], [50, 50]], "closed": True, "polygonlabels": ["Nucleus"]}
    return {
        "id": "p1",
        "type": "polygonlabels",
        "from_name": "poly",
        "to_name": "image",
        "origin": "manual",
        "value": value,
        **changes,
    }


def reviewed_choice(**changes: Any) -> dict[str, Any]:
    choices = {"choices": ["Whole image reviewed"]}
    return {"type": "choices", "from_name": "review", "to_name": "image", "value": choices, **changes}


def codes(*regions: Any, shape: tuple[int, int] = SHAPE) -> list[str]:
    return [finding.code for finding in parse_painting(regions, CONFIG, shape).findings]


def load(name: str) -> list[dict[str, Any]]:
    result: list[dict[str, Any]] = json.loads((FIXTURES / f"{name}.annotation_response.json").read_text())[
        "result"
    ]
    return result


def test_a_stroke_is_cut_to_the_rectangle_it_fills() -> None:
    (region,) = parse_painting([brush()], CONFIG, SHAPE).regions
    assert (region.region_id, region.class_index, region.origin) == ("r1", 1, "manual")
    assert region.box == Box(1, 2, 3, 3)
    assert region.painted.all()


def test_an_emptied_region_is_no_mistake() -> None:
    empty = brush(value={"format": "rle", "rle": encode(np.zeros(SHAPE, bool)), "brushlabels": ["Nucleus"]})
    painting = parse_painting([empty], CONFIG, SHAPE)
    assert painting.regions[0].alpha.shape == (0, 0)
    assert painting.findings == ()


def test_real_strokes_have_the_browsers_pixel_counts() -> None:
    expected = json.loads((FIXTURES / "browser_rle_expectations.json").read_text())
    for name, shape in (
        ("browser_paint_plain", (240, 320)),
        ("browser_edited_prediction", (240, 320)),
        ("browser_big_2400x1600", (1600, 2400)),
    ):
        for region in parse_painting(load(name), CONFIG, shape).regions:
            assert int(region.painted.sum()) == expected[f"{name}:{region.region_id}"]["ge128"]


def test_a_submitted_prediction_keeps_who_made_what() -> None:
    painting = parse_painting(load("browser_edited_prediction"), CONFIG, (240, 320))
    assert [(r.region_id, r.origin) for r in painting.regions] == [
        ("bg0", "prediction"),
        ("nu0", "prediction-changed"),
        ("ZifTqUyts-", "manual"),
    ]
    assert painting.reviewed == ()  # two rectangles still say Uncertain
    assert painting.findings == ()


def test_regions_made_over_the_api_without_origin_count_as_manual() -> None:
    region = brush()
    del region["origin"]
    assert parse_painting([region], CONFIG, SHAPE).regions[0].origin == "manual"


def test_copies_of_predictions_are_not_counted_as_manual() -> None:
    copied = brush()
    del copied["origin"]
    body = json.loads((FIXTURES / "webhook_ANNOTATIONS_CREATED.request.json").read_text())["body"]
    body["annotation"][0]["result"] = [copied]
    annotation = parse_webhook(body).annotations[0]
    assert parse_painting(annotation.result, CONFIG, SHAPE).regions[0].origin == "prediction"


def test_sizes_may_be_missing_when_the_stream_fits() -> None:
    region = brush()
    del region["original_width"], region["original_height"], region["image_rotation"]
    assert codes(region) == []


def test_the_magic_wand_leaves_no_label_and_is_remarked_on() -> None:
    painting = parse_painting(load("browser_magicwand"), CONFIG, (240, 320))
    assert painting.regions == ()
    assert [finding.code for finding in painting.findings] == ["unlabelled-region"]


def test_a_stroke_on_a_rotated_picture_is_remarked_on() -> None:
    painting = parse_painting(load("browser_rotated"), CONFIG, (240, 320))
    assert painting.regions == ()
    assert [finding.code for finding in painting.findings] == ["rotated-region"]


@pytest.mark.parametrize(
    ("region", "code"),
    [
        ("no region", "broken-region"),
        ({"value": 3}, "broken-region"),
        (brush("Mitosis"), "unknown-label"),
        (brush(value={"format": "rle", "rle": square()}), "unlabelled-region"),
        (brush(value={"format": "rle", "rle": square(), "brushlabels": []}), "unlabelled-region"),
        (brush(value={"format": "rle", "rle": square(), "brushlabels": [3]}), "broken-region"),
        (
            brush(value={"format": "rle", "rle": square(), "brushlabels": ["Nucleus", "Background"]}),
            "several-labels",
        ),
        (brush(original_width=9), "size-mismatch"),
        (brush(original_height="tall"), "unreadable-size"),
        (brush(original_height=[6]), "unreadable-size"),
        (brush(original_width=float("nan")), "unreadable-size"),
        (brush(original_width="9"), "size-mismatch"),
        (brush(image_rotation="a quarter"), "unreadable-size"),
        (brush(from_name="tag"), "strange-control"),
        (brush(from_name=None), "strange-control"),
        (brush(from_name=["brush"]), "strange-control"),
        (brush(from_name="poly"), "strange-control"),
        (brush(from_name="quality"), "strange-control"),
        (brush(to_name="img"), "strange-target"),
        (brush(to_name="other"), "strange-target"),
        (polygon(value={"points": [[1, 1], [9, 9]], "polygonlabels": ["Nucleus"]}), "open-outline"),
        (polygon(from_name="brush"), "not-painted"),
        (polygon(from_name="gone"), "strange-control"),
        (rectangle("Cell", 0, 0, 50, 50), "not-painted"),
        ({**rectangle("Reviewed", 0, 0, 50, 50), "to_name": "other"}, "strange-target"),
        ({**rectangle("Uncertain", 0, 0, 50, 50), "origin": "manual"}, "question-by-hand"),
        (reviewed_choice(from_name="gone"), "strange-control"),
        (reviewed_choice(to_name="other"), "strange-target"),
        (brush(original_height=10**400), "size-mismatch"),
        (brush(image_rotation=90), "rotated-region"),
        (brush(origin="elsewhere"), "unknown-origin"),
        (brush(origin=["manual"]), "unknown-origin"),
        (brush(value={"format": "png", "rle": square(), "brushlabels": ["Nucleus"]}), "broken-rle"),
        (brush(value={"format": "rle", "rle": [], "brushlabels": ["Nucleus"]}), "broken-rle"),
        (brush(value={"format": "rle", "rle": [1, 2, 3], "brushlabels": ["Nucleus"]}), "broken-rle"),
        (brush(value={"format": "rle", "rle": ["x"] * 30, "brushlabels": ["Nucleus"]}), "broken-rle"),
        (
            brush(value={"format": "rle", "rle": square(shape=(8, 8)), "brushlabels": ["Nucleus"]}),
            "broken-rle",
        ),
        (rectangle("Reviewed", 0, 0, 50, 50, rotation=20), "rotated-rectangle"),
        (rectangle("Reviewed", 120, 0, 50, 50), "empty-rectangle"),
        (rectangle("Reviewed", 0, 0, 0, 50), "empty-rectangle"),
        (rectangle("Reviewed", float("nan"), 0, 50, 50), "broken-region"),
        (rectangle("Reviewed", 10**400, 0, 50, 50), "broken-region"),
        ({**rectangle("Reviewed", 0, 0, 50, 50), "image_rotation": 90}, "rotated-region"),
    ],
)
def test_a_region_that_cannot_teach_becomes_a_finding_and_the_others_stay(region: Any, code: str) -> None:
    painting = parse_painting([region, brush(id="good")], CONFIG, SHAPE)
    assert [finding.code for finding in painting.findings] == [code]
    assert [r.region_id for r in painting.regions] == ["good"]
    assert painting.reviewed == ()


@pytest.mark.parametrize("size", [None, "8", 8.0, " 8 "])
def test_sizes_may_be_null_or_text(size: Any) -> None:
    assert codes(brush(original_width=size, original_height=None, image_rotation="0")) == []


def test_what_is_said_of_a_region_besides_its_label_is_no_region() -> None:
    same = {"id": "r1", "to_name": "image", "original_width": SHAPE[1], "original_height": SHAPE[0]}
    mask = {"format": "rle", "rle": square()}
    choice = {**same, "from_name": "quality", "type": "choices", "value": {**mask, "choices": ["blurry"]}}
    note = {**same, "from_name": "note", "type": "textarea", "value": {**mask, "text": ["see left"]}}
    gone = {**same, "from_name": "gone", "type": "rating", "value": {**mask, "rating": 3}}
    wand = {**same, "from_name": "wand", "type": "magicwand", "value": mask}
    painting = parse_painting([brush(), choice, note, gone, wand], CONFIG, SHAPE)
    assert painting.findings == ()
    assert len(painting.regions) == 1


def test_controls_that_mean_nothing_here_are_passed_over() -> None:
    relation = {"type": "relation", "from_id": "a", "to_id": "b", "direction": "right"}
    text = {"id": "t", "type": "textarea", "from_name": "note", "to_name": "image", "value": {"text": ["x"]}}
    assert codes(relation, text) == []


def test_a_reviewed_rectangle_is_whole_pixels_of_the_image() -> None:
    painting = parse_painting([rectangle("Reviewed", 25, 50, 50, 33.4)], CONFIG, SHAPE)
    assert painting.reviewed == (Box(top=3, left=2, height=2, width=4),)


def test_a_reviewed_rectangle_is_cut_to_the_image() -> None:
    painting = parse_painting([rectangle("Reviewed", -50, 50, 500, 500)], CONFIG, SHAPE)
    assert painting.reviewed == (Box(top=3, left=0, height=3, width=8),)


def test_an_uncertain_rectangle_teaches_nothing() -> None:
    painting = parse_painting([rectangle("Uncertain", 0, 0, 50, 50)], CONFIG, SHAPE)
    assert painting.reviewed == ()
    assert painting.findings == ()


def test_a_question_whose_label_was_changed_counts_although_its_origin_is_the_model() -> None:
    answered = {**rectangle("Reviewed", 0, 0, 50, 50), "origin": "prediction"}
    assert parse_painting([answered], CONFIG, SHAPE).reviewed == (Box(0, 0, 3, 4),)


def test_the_whole_image_can_be_reviewed_by_choice() -> None:
    choice = {"type": "choices", "from_name": "review", "to_name": "image"}
    chosen = {**choice, "value": {"choices": ["Whole image reviewed"]}}
    other = {**choice, "value": {"choices": ["Later"]}}
    assert parse_painting([chosen, other], CONFIG, SHAPE).reviewed == (Box(0, 0, *SHAPE),)


def test_five_hundred_objects_on_a_large_image_take_seconds_and_little_memory() -> None:
    shape = (4096, 4096)
    regions = [
        brush(
            id=f"r{i}",
            original_width=shape[1],
            original_height=shape[0],
            value={"format": "rle", "rle": square(i * 8, i * 8, 20, shape), "brushlabels": ["Nucleus"]},
        )
        for i in range(0, 500, 10)
    ] * 10
    parse_painting(regions[:1], CONFIG, shape)  # the decoder compiles once
    started = time.process_time()
    painting = parse_painting(regions, CONFIG, shape)
    assert len(painting.regions) == 500
    assert sum(region.alpha.nbytes for region in painting.regions) == 500 * 20 * 20
    assert time.process_time() - started < 5


def test_a_message_does_not_repeat_long_input() -> None:
    (finding,) = parse_painting([brush("x" * 10_000)], CONFIG, SHAPE).findings
    assert len(finding.message) < 200


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=6,
)
keys = st.sampled_from(sorted(brush()))
value_keys = st.sampled_from(
    ["format", "rle", "brushlabels", "x", "y", "width", "height", "rotation", "choices"]
)


@settings(deadline=None, max_examples=300)
@given(st.booleans(), keys, anything, value_keys, anything)
def test_no_damage_to_a_region_raises(
    is_brush: bool, key: str, value: Any, inner_key: str, inner: Any
) -> None:
    region = brush() if is_brush else rectangle("Reviewed", 0, 0, 50, 50)
    region["value"][inner_key] = inner
    region[key] = value
    parse_painting([region, inner], CONFIG, SHAPE)


def test_the_label_of_a_smart_tool_adds_nothing_to_the_region_that_it_asked_for() -> None:
    accepted = brush()
    value = {"rle": accepted["value"]["rle"], "format": "rle", "keypointlabels": ["Nucleus"]}
    again = {**accepted, "from_name": "click", "type": "keypointlabels", "value": value}
    alone = {**again, "id": "left over", "value": {"x": 1, "y": 1, "width": 1, "keypointlabels": ["Nucleus"]}}
    painting = parse_painting([accepted, again], CONFIG, SHAPE)
    assert len(painting.regions) == 1
    assert painting.findings == ()
    (finding,) = parse_painting([alone], CONFIG, SHAPE).findings
    assert finding.code == "not-painted"
