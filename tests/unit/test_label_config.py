"""The labeling setup: which classes a project has, and where its questions and answers live."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from core.schema import LabelClass
from ml_backend.errors import LabelConfigError
from ml_backend.label_studio.label_config import add_background, find_image_address, parse_label_config
from ml_backend.label_studio.setup_tags import MAX_CONFIG_CHARS, read_tags

IMAGE = '<Image name="image" value="$image"/>'
LABELS = '<Label value="Nucleus"/><Label value="Background"/>'
BRUSH = f'<BrushLabels name="brush" toName="image">{LABELS}</BrushLabels>'


def brush(*labels: str, name: str = "b") -> str:
    """A brush whose labels have these attributes."""
    inner = "".join(f"<Label {label}/>" for label in labels)
    return f'<BrushLabels name="{name}" toName="image">{inner}</BrushLabels>'


def view(*tags: str) -> str:
    return f"<View>{''.join(tags)}</View>"


def test_the_plain_setup_gives_classes_and_names() -> None:
    config = parse_label_config(
        view(
            IMAGE,
            brush('value="Background"', 'value="Nucleus"', name="brush"),
            '<RectangleLabels name="ask" toName="image">',
            '<Label value="Uncertain"/><Label value="Reviewed"/></RectangleLabels>',
            '<Choices name="done" toName="image"><Choice value="Whole image reviewed"/></Choices>',
        )
    )
    assert config.schema.names == ("Background", "Nucleus")
    assert config.schema.background_index == 0
    assert (config.image_tag, config.image_key, config.brush_tag) == ("image", "image", "brush")
    assert (config.uncertain_tag, config.uncertain_label) == ("ask", "Uncertain")
    assert (config.reviewed_tag, config.reviewed_label) == ("ask", "Reviewed")
    assert (config.review_tag, config.review_choice) == ("done", "Whole image reviewed")


def test_the_setup_that_comes_with_the_project_offers_everything() -> None:
    config = parse_label_config(Path("label_config.xml").read_text(encoding="utf-8"))
    assert config.schema.names == ("Background", "Nucleus")
    assert config.uncertain_tag == config.reviewed_tag is not None
    assert config.review_choice == "Whole image reviewed"


def test_the_questions_of_the_setup_that_comes_with_the_project_hide_no_pixel() -> None:
    tags = read_tags(Path("label_config.xml").read_text(encoding="utf-8"))
    (boxes,) = (tag for tag in tags if tag.kind == "rectanglelabels" and tag.name == "uncertain")
    assert float(boxes.attributes["fillopacity"]) == 0
    assert float(boxes.attributes["strokewidth"]) > 1


def test_the_setup_that_comes_with_the_project_is_asked_by_a_click_and_by_nothing_else() -> None:
    xml = Path("label_config.xml").read_text(encoding="utf-8")
    drawing = [tag for tag in read_tags(xml) if tag.kind.endswith("labels")]
    asking = [tag.name for tag in drawing if tag.attributes["smart"] == "true"]
    assert asking == ["click"], "the page takes every other drawing tag for a smart tool unless it says false"
    (click,) = (tag for tag in drawing if tag.name == "click")
    assert click.attributes["smartonly"] == "true", "a plain tool would leave key points that mean nothing"
    assert [label.value for label in click.within("label")] == list(parse_label_config(xml).schema.names)


@pytest.mark.parametrize("attribute", ["smart", "smartOnly", "SMART"])
def test_a_smart_box_beside_the_brush_asks_and_does_not_paint(attribute: str) -> None:
    boxes = '<RectangleLabels name="box" toName="image" {}><Label value="Nucleus"/></RectangleLabels>'
    painted = brush('value="Background"', 'value="Nucleus"')
    smart = parse_label_config(view(IMAGE, painted, boxes.format(f'{attribute}="true"')))
    plain = parse_label_config(view(IMAGE, painted, boxes.format('smart="false"')))
    assert list(smart.class_tags) == ["b"]
    assert list(plain.class_tags) == ["b", "box"]
    assert smart.schema == plain.schema


def test_smart_boxes_hold_the_classes_where_nothing_else_does() -> None:
    boxes = '<RectangleLabels name="box" toName="image" smart="true"><Label value="A"/><Label value="B"/>'
    config = parse_label_config(view(IMAGE, boxes + "</RectangleLabels>"))
    assert (config.brush_tag, config.schema.names) == ("box", ("A", "B"))


def test_what_a_project_does_not_offer_is_none() -> None:
    config = parse_label_config(view(IMAGE, brush('value="Ferrite"', 'value="Pearlite"')))
    assert config.uncertain_tag is config.uncertain_label is None
    assert config.reviewed_tag is config.reviewed_label is None
    assert config.review_tag is config.review_choice is None
    assert config.schema.background_index is None


@pytest.mark.parametrize("label", ['value="BACKGROUND"', 'value="Stroma" role="background"'])
def test_background_is_found_by_name_in_any_case_or_by_role(label: str) -> None:
    config = parse_label_config(view(IMAGE, brush('value="X"', label)))
    assert config.schema.background_index == 1


def test_a_label_named_background_can_be_made_an_object() -> None:
    labels = brush('value="Background" role="object"', 'value="Void" role="background"')
    assert parse_label_config(view(IMAGE, labels)).schema.background_index == 1


def test_autofill_is_off_unless_asked_for() -> None:
    labels = brush('value="A"', 'value="B" autofill="true"', 'value="C" autofill="false"')
    assert parse_label_config(view(IMAGE, labels)).schema.classes == (
        LabelClass("A"),
        LabelClass("B", autofill=True),
        LabelClass("C"),
    )


def test_an_alias_is_what_results_will_hold() -> None:
    labels = brush('value="Zellkern" alias="Nucleus"', 'value="Grund" alias="Background"')
    config = parse_label_config(view(IMAGE, labels))
    assert config.schema.names == ("Nucleus", "Background")
    assert config.schema.background_index == 1
    assert config.class_index("Nucleus") == config.class_index("Zellkern") == 0
    assert config.class_index("Mitose") is None


def test_an_alias_hides_no_role_and_no_offer() -> None:
    config = parse_label_config(
        view(
            IMAGE,
            brush('value="Background" alias="0"', 'value="Nucleus" alias="1"'),
            '<RectangleLabels name="ask" toName="image">',
            '<Label value="Uncertain" alias="u"/><Label value="Reviewed" alias="r"/></RectangleLabels>',
            '<Choices name="done" toName="image"><Choice value="Whole image reviewed" alias="w"/></Choices>',
        )
    )
    assert config.schema.names == ("0", "1")
    assert config.schema.background_index == 0
    assert (config.uncertain_label, config.reviewed_label, config.review_choice) == ("u", "r", "w")
    assert config.offers("ask", "r", ["Reviewed"])
    assert config.offers("ask", "r", ["r"])
    assert not config.offers("ask", "r", ["u"])


def test_a_value_that_is_the_alias_of_another_label_means_that_one() -> None:
    labels = brush('value="A" alias="B"', 'value="B" alias="C"')
    config = parse_label_config(view(IMAGE, labels))
    assert [config.class_index(name) for name in "ABC"] == [0, 0, 1]


def test_tags_and_attributes_are_read_in_any_case() -> None:
    brushes = '<brushlabels name="b" toname="i"><label value="A"/><label value="B"/></brushlabels>'
    config = parse_label_config(f'<view><image NAME="i" Value="$img"/>{brushes}</view>')
    assert (config.image_key, config.schema.names) == ("img", ("A", "B"))


def test_labels_inside_views_of_the_brush_are_found_in_their_order() -> None:
    inner = '<View><Label value="A"/></View><!-- note --><Label value="B"/>'
    labels = f'<BrushLabels name="b" toName="image">{inner}</BrushLabels>'
    assert parse_label_config(view(IMAGE, labels)).schema.names == ("A", "B")


def test_labels_of_other_controls_are_not_classes() -> None:
    boxes = '<RectangleLabels name="r" toName="image"><Label value="Car"/></RectangleLabels>'
    assert parse_label_config(view(IMAGE, boxes, BRUSH)).schema.names == ("Nucleus", "Background")


def test_an_image_that_is_only_shown_is_left_alone() -> None:
    config = parse_label_config(view(IMAGE, BRUSH, '<Image name="other" value="$other"/>'))
    assert (config.brush_tag, config.image_tag) == ("brush", "image")


REVIEW_BOX = '<RectangleLabels name="ask" toName="image"><Label value="Reviewed"/></RectangleLabels>'
REVIEW_CHOICE = '<Choices name="done" toName="image"><Choice value="Whole image reviewed"/></Choices>'


@pytest.mark.parametrize("offer", [REVIEW_BOX, REVIEW_CHOICE])
def test_a_single_label_takes_its_background_from_what_is_reviewed(offer: str) -> None:
    schema = parse_label_config(view(IMAGE, brush('value="Crack"'), offer)).schema
    assert schema.names == ("Crack", "Background")
    assert schema.background_index == 1
    assert [label.is_painted for label in schema.classes] == [True, False]


def test_a_single_label_without_any_review_is_refused_with_the_mend() -> None:
    xml = view(IMAGE, brush('value="Crack"'))
    with pytest.raises(LabelConfigError, match='Add <Label value="Background"/>'):
        parse_label_config(xml)
    assert parse_label_config(add_background(xml)).schema.names == ("Background", "Crack")


def test_an_address_may_lie_in_a_list() -> None:
    data = {"pages": [{"scan": "a.png"}, {"scan": "b.png"}], "images[0]": "plain.png"}
    assert find_image_address(data, "pages[1].scan") == "b.png"
    assert find_image_address(data, "pages[2].scan") is None
    assert find_image_address(data, "images[0]") == "plain.png"


def test_questions_on_another_image_do_not_count() -> None:
    other = (
        '<Image name="other" value="$other"/>'
        '<RectangleLabels name="ask" toName="other"><Label value="Uncertain"/></RectangleLabels>'
    )
    assert parse_label_config(view(IMAGE, BRUSH, other)).uncertain_tag is None


@pytest.mark.parametrize(
    ("xml", "named"),
    [
        ("", "not XML"),
        ("<View>", "not XML"),
        ("<View>\ud800</View>", "not XML"),
        (view(BRUSH), "<Image"),
        (view(IMAGE), "<BrushLabels>"),
        (view(IMAGE, '<Brush name="b" toName="image"/>'), "<BrushLabels>"),
        (view(IMAGE, '<BrushLabels name="b" toName="text"><Label value="A"/></BrushLabels>'), 'name="b"'),
        (view(IMAGE, '<BrushLabels name="b" toName="image"/>'), 'name="b"'),
        (view(IMAGE, '<BrushLabels name="b" toName="image" value="$labels"/>'), 'name="b"'),
        (view(IMAGE, '<BrushLabels name="b" toName="image"><Label/></BrushLabels>'), "<Label>"),
        (
            view(
                IMAGE,
                '<Image name="other" value="$other"/>',
                BRUSH,
                BRUSH.replace('"brush"', '"second"').replace('"image"', '"other"'),
            ),
            'name="second"',
        ),
        (
            view(
                IMAGE,
                '<Image name="other" value="$other"/>',
                BRUSH.replace('toName="image"', 'toName="image,other"'),
            ),
            '"other"',
        ),
        (view(IMAGE, BRUSH.replace("toName", 'value="$labels" toName')), "from the data of each task"),
        (view('<Image name="image" value="$image" valueList="$pages"/>', BRUSH), "valueList"),
        (view(f'<Repeater on="$pages">{IMAGE}{BRUSH}</Repeater>'), "<Repeater>"),
        (
            view(
                '<Image name="page_{{idx}}" value="$pages[{{idx}}].page"/>',
                BRUSH.replace('"image"', '"page_{{idx}}"'),
            ),
            "page_{{idx}}",
        ),
        (view(IMAGE, brush('value="Background"')), "what is to be found"),
        (view('<Image name="image" valueList="$pages"/>', BRUSH), '<Image name="image">'),
        (view('<Image name="image" value="fixed.png"/>', BRUSH), '<Image name="image">'),
        (view(IMAGE, BRUSH.replace('"Nucleus"', '"Nucleus" role="thing"')), 'role="thing"'),
        (
            view(
                IMAGE,
                '<BrushLabels name="b" toName="image"><Label value="A"/><Label value="A"/></BrushLabels>',
            ),
            "same name",
        ),
        (
            view(IMAGE, brush('value="Background"', 'value="X" role="background"')),
            "only one class",
        ),
    ],
)
def test_a_setup_that_cannot_work_is_refused_with_the_tag_to_change(xml: str, named: str) -> None:
    with pytest.raises(LabelConfigError, match=re.escape(named)):
        parse_label_config(xml)


@pytest.mark.parametrize(
    "prologue",
    [
        '<!DOCTYPE View [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>',
        '<!DOCTYPE View SYSTEM "http://127.0.0.1/evil.dtd">',
        '<!DOCTYPE View [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
    ],
)
def test_entities_and_document_types_are_refused(prologue: str) -> None:
    with pytest.raises(LabelConfigError, match="DOCTYPE"):
        parse_label_config(prologue + view(IMAGE, BRUSH))


def test_a_huge_setup_is_refused_before_it_is_read() -> None:
    with pytest.raises(LabelConfigError, match="characters"):
        parse_label_config("<View>" + " " * MAX_CONFIG_CHARS + "</View>")


def test_deep_nesting_does_no_harm() -> None:
    depth = 50_000
    with pytest.raises(LabelConfigError, match="deeper than"):
        parse_label_config("<a>" * depth + "</a>" * depth)


def test_the_image_address_is_found_at_the_top_or_deeper() -> None:
    assert find_image_address({"image": "/data/a.png"}, "image") == "/data/a.png"
    assert find_image_address({"views": {"front": "b.png"}}, "views.front") == "b.png"
    assert find_image_address({"views.front": "c.png"}, "views.front") == "c.png"
    assert find_image_address({"views": "b.png"}, "views.front") is None
    assert find_image_address({"image": 3}, "image") is None
    assert find_image_address({"image": ""}, "image") is None


@pytest.mark.parametrize("kind", ["RectangleLabels", "Choices", "BrushLabels", "View", "Label"])
def test_a_setup_that_nests_its_tags_without_end_is_refused_at_once(kind: str) -> None:
    nested = f'<{kind} name="a" toName="i">' * 10_000 + f"</{kind}>" * 10_000
    brush = '<BrushLabels name="b" toName="i"><Label value="A"/></BrushLabels>'
    setup = f'<View><Image name="i" value="$i"/>{brush}{nested}</View>'
    began = time.process_time()
    with pytest.raises(LabelConfigError, match="deeper than"):
        parse_label_config(setup)
    assert time.process_time() - began < 5


def test_people_can_change_zoom_brightness_and_contrast_in_the_setup_that_we_write() -> None:
    xml = Path("ml_backend/label_config.xml").read_text(encoding="utf-8")
    for switch in ("zoom", "zoomControl", "brightnessControl", "contrastControl"):
        assert f'{switch}="true"' in xml
