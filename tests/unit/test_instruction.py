"""The instruction in Label Studio's project: of the classes and keys that it has, never over people's own."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import pytest

from ml_backend.command.setup_project import read_default_config
from ml_backend.label_studio.admin import LabelStudioAdmin
from ml_backend.label_studio.instruction import MAX_NAMED, write_instruction

REVIEW = (
    '<RectangleLabels name="ask" toName="image"><Label value="Uncertain"/><Label value="Reviewed"/>'
    "</RectangleLabels>"
)


class FakeConnection:
    """Label Studio's row of one project, as its API reads and changes it."""

    def __init__(self, **fields: Any) -> None:
        self.row: dict[str, Any] = {
            "id": 3,
            "title": "Cells",
            "created_at": "2026-01-02T03:04:05Z",
            "label_config": read_default_config(),
            "expert_instruction": "",
            "show_instruction": False,
            **fields,
        }
        self.changes: list[dict[str, Any]] = []

    def request(self, method: str, path: str, json: dict[str, Any] | None = None) -> dict[str, Any]:
        assert path == "/api/projects/3"
        if method == "PATCH" and json is not None:
            self.changes.append(json)
            self.row |= json
        return self.row


class Text(HTMLParser):
    """What a browser shows of HTML, and the tags that it met."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.shown, self.tags = "", set[str]()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.shown += data


def setup(*labels: str, painter: str = "BrushLabels", more: str = "") -> str:
    inner = "".join(f"<Label {label}/>" for label in labels)
    return (
        f'<View><Image name="image" value="$image"/><{painter} name="b" toName="image">{inner}</{painter}>'
        f"{more}</View>"
    )


def read(xml: str) -> str:
    return Text(write_instruction(xml)).shown


def ensure(connection: FakeConnection) -> bool:
    return LabelStudioAdmin(connection).ensure_instruction(3)  # type: ignore[arg-type]


def test_the_default_setup_is_told_with_its_classes_and_hot_keys() -> None:
    said = read(read_default_config())
    assert "Paint whole objects: Nucleus (key 2). Paint Background (key 1) around them too." in said
    assert "click its region in the list, press E, and erase" in said
    assert "A box Uncertain (key 3) is a question." in said
    assert "press V, click the box and turn it to Reviewed (key 4)" in said
    assert "check Whole image reviewed (key 5)" in said
    assert "accept without change teaches nothing" in said
    assert "reload it once" in said


def test_a_click_is_told_where_the_setup_has_a_smart_key_point() -> None:
    said = read(read_default_config())
    assert "switch Auto-Annotation on" in said
    assert "for each object key 7 and a click in it" in said
    points = '<KeyPointLabels name="p" toName="image" smart="{}"><Label value="Cell"/></KeyPointLabels>'
    assert "a label of p" in read(setup('value="Background"', 'value="Cell"', more=points.format("true")))
    assert "click in it" not in read(setup('value="Background"', 'value="Cell"', more=points.format("false")))


def test_areas_without_a_background_need_not_be_painted_whole() -> None:
    said = read(setup('value="Ferrite"', 'value="Pearlite"'))
    assert "Paint parts of the areas of every class: Ferrite, Pearlite." in said
    assert "whole objects" not in said
    assert "Background" not in said


def test_what_a_setup_does_not_offer_is_not_told() -> None:
    said = read(setup('value="Background"', 'value="Cell"'))
    assert not any(word in said for word in ("key", "Reviewed", "Uncertain", "accept", "press V"))


def test_one_label_is_told_where_its_background_comes_from() -> None:
    said = read(setup('value="Crack"', more=REVIEW))
    assert "Paint whole objects: Crack. Background has no label: it is what a reviewed place shows" in said
    assert "turn it to Reviewed: all in it" in said


def test_outlines_are_corrected_by_their_points_because_the_eraser_leaves_them() -> None:
    said = read(setup('value="Background"', 'value="Cell"', painter="PolygonLabels"))
    assert "move its points" in said
    assert "erase" not in said


def test_names_are_those_that_the_page_shows_and_stay_text() -> None:
    html = write_instruction(setup('value="Background"', 'value="&lt;i&gt;A&lt;/i&gt; &amp; B" alias="ab"'))
    assert "Paint whole objects: <i>A</i> & B. " in Text(html).shown
    assert Text(html).tags == {"ul", "li", "b"}


def test_only_the_first_classes_of_many_are_named() -> None:
    said = read(setup(*(f'value="c{number}"' for number in range(MAX_NAMED + 5))))
    assert f"c{MAX_NAMED - 1} and 5 more." in said


def test_a_project_without_an_instruction_gets_one_that_is_shown() -> None:
    connection = FakeConnection(expert_instruction=None)
    assert ensure(connection)
    assert connection.row["expert_instruction"] == write_instruction(read_default_config())
    assert connection.row["show_instruction"] is True


@pytest.mark.parametrize("is_shown", [True, False])
def test_words_that_people_wrote_stay(is_shown: bool) -> None:
    connection = FakeConnection(expert_instruction="<p>Ask Ann</p>", show_instruction=is_shown)
    assert not ensure(connection)
    assert connection.changes == []


def test_an_instruction_that_somebody_hid_stays_hidden_when_setup_runs_again() -> None:
    connection = FakeConnection()
    ensure(connection)
    connection.row["show_instruction"] = False
    assert ensure(connection)
    assert len(connection.changes) == 1
    assert connection.row["show_instruction"] is False
