"""The page for people: complete, escaped, self-contained, and right below any path."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from urllib.parse import urljoin

import pytest

from ml_backend.web.charts import HEIGHT, WIDTH, sparkline
from ml_backend.web.dashboard import to_legend, to_round_row, to_trends


class Page(HTMLParser):
    """Tags and attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def values(self, *names: str) -> list[str]:
        return [
            value
            for _, attributes in self.tags
            for name, value in attributes.items()
            if name in names and value
        ]


BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.mark.parametrize("accepted", ["*/*", "application/json", None])
def test_programs_that_ask_for_no_page_hear_that_the_server_is_up(client, accepted):
    answer = client.get("/", headers={"Accept": accepted} if accepted else {})
    assert answer.get_json() == {"status": "UP", "model_class": "Brushloop"}


@pytest.fixture
def page(client):
    return client.get("/projects/3").text


def test_the_index_lists_the_projects(client):
    text = client.get("/", headers=BROWSER).text
    assert 'href="projects/3"' in text
    assert "Up to date" in text


def test_the_index_says_how_to_connect_when_there_is_no_project(client, loop):
    loop.known.clear()
    assert "brushloop setup" in client.get("/", headers=BROWSER).text


def test_the_page_shows_state_missing_pixels_remarks_rounds_and_pictures(page):
    for words in (
        "Training",
        "42 %",
        "about 12 s left",
        "1,180 of 5,000 px",
        "3,820 px missing",
        "41 of 50 advised",
        "A long thin stroke of Nucleus",
        "r0007-0a1b2c3d",
        "0.84",
        "worse on the held-out part",
        "the loss stopped being a number",
        "confidence 0.30, 1 question<",
        "2 questions",
        "api/projects/3/tasks/11/uncertainty.png",
    ):
        assert words in page
    assert page.count("<polyline") == 6 + 4


def test_the_page_shows_that_effort_falls_and_agreement_grows(page):
    section = page[page.index('id="effort"') : page.index('id="tasks"')]
    for words in (
        "over 6 rounds, from 6,000 to 857",
        "from 12.0 to 1.5",
        "from 65.0 to 9.3",
        "from 0.76 to 0.91",
        "Corrective Dice: how well what was sent agrees",
    ):
        assert words in section


def test_effort_of_one_round_is_a_number_without_a_line():
    (strokes,) = to_trends(
        [{"effort": {"annotations": 2, "strokes": 3}}, {"error": "failed"}, {"effort": None}]
    )
    assert (strokes["last"], strokes["curve"]) == ("1.5", "")
    assert strokes["meaning"] == ""  # and no word about what nobody measured


def test_rounds_that_counted_nothing_are_no_points():
    assert to_trends([{"effort": {"annotations": 0, "strokes": 0}}]) == []


def test_names_from_outside_are_escaped(client, page):
    assert "<script>alert" not in client.get("/", headers=BROWSER).text
    assert "Mitosis &lt;b&gt;" in page
    assert "Mitosis <b>" not in page


@pytest.mark.parametrize("path", ["/", "/projects/3"])
def test_nothing_comes_from_elsewhere_or_breaks_the_content_policy(client, path):
    text = client.get(path, headers=BROWSER).text
    page = Page(text)
    links = {a["href"] for tag, a in page.tags if tag == "a" and a.get("target") == "_blank"}
    for address in set(page.values("href", "src", "data-src", "data-status", "data-post")) - links:
        assert not re.match(r"([a-z]+:|/)", address), address
    assert not page.values("style", "onclick", "onload", "onerror")
    assert all(attributes.get("src") for tag, attributes in page.tags if tag == "script")
    assert "<style" not in text


@pytest.mark.parametrize("path", ["/", "/projects/3"])
@pytest.mark.parametrize("prefix", ["", "/behind/a/proxy"])
def test_every_address_on_the_page_exists_below_any_prefix(client, path, prefix):
    page = Page(client.get(path, headers=BROWSER, environ_overrides={"SCRIPT_NAME": prefix}).text)
    addresses = page.values("href", "src", "data-src", "data-status")
    addresses = [address for address in addresses if not address.startswith("http://paint.example.org/")]
    assert len(addresses) >= 6
    for address in addresses:
        target = urljoin(f"http://host{prefix}{path}", address).removeprefix("http://host")
        assert target.startswith(f"{prefix}/")
        assert client.get(target.removeprefix(prefix), buffered=True).status_code == 200, target


def test_pictures_and_bars_have_words_for_those_who_do_not_see_them(page):
    parsed = Page(page)
    ids = set(parsed.values("id"))
    for tag, attributes in parsed.tags:
        if tag == "img":
            assert "alt" in attributes
        if tag == "progress":
            assert attributes.get("aria-labelledby") in ids or attributes.get("id") in parsed.values("for")
        if tag == "svg":
            assert attributes["role"] == "img"
            assert attributes["aria-label"]


def test_tasks_are_links_into_label_studio(page):
    links = [a for tag, a in Page(page).tags if tag == "a" and a.get("target") == "_blank"]
    assert {a["href"] for a in links} >= {
        f"http://paint.example.org/projects/3/data?task={n}" for n in (11, 14)
    }
    assert all(a["rel"] == "noopener" for a in links)


def test_a_page_without_an_address_of_label_studio_names_tasks_without_links(client, loop, monkeypatch):
    view = loop.view
    monkeypatch.setattr(loop, "view", lambda *given: replace(view(*given), task_address=""))
    text = client.get("/projects/3").text
    assert "Task 11" in text
    assert "data?task" not in text


def test_images_are_shown_with_their_classes_over_them_and_a_legend(page, loop):
    assert "api/projects/3/tasks/11/overlay.png" in page
    section = page[page.index('id="tasks"') :]
    assert section.count("<rect") == len(to_legend(loop.status(3)["readiness"]["classes"]))


def test_a_button_that_cannot_work_is_not_there_or_says_why(client, loop, monkeypatch):
    status = loop.status(3)
    assert "Stop the round" in client.get("/projects/3").text
    classes = [{**row, "pixels": 0} for row in status["readiness"]["classes"]]
    idle = {**status, "training": None, "readiness": {**status["readiness"], "classes": classes}}
    monkeypatch.setattr(loop, "status", lambda project_id: idle)
    text = client.get("/projects/3").text
    assert "Stop the" not in text
    assert "Paint and submit two classes first." in text
    assert 'data-post="../api/projects/3/train"' not in text


def test_one_reviewed_box_is_one_box(client, loop, monkeypatch):
    status = loop.status(3)
    taught = [{**row, "questions_answered": min(row["questions_answered"], 1)} for row in status["taught"]]
    monkeypatch.setattr(loop, "status", lambda project_id: {**status, "taught": taught})
    assert "1 box reviewed)" in client.get("/projects/3").text


def test_the_page_says_what_the_last_answers_teach_and_why_one_teaches_nothing(page):
    section = page[page.index('id="taught"') : page.index('id="rounds"')]
    for words in (
        "4,100 px of Background, 820 px of Nucleus",
        "(3 painted by hand, 1 drawn by a click, 1 corrected, 2 boxes reviewed)",
        "teaches nothing. It was accepted without a change.",
    ):
        assert words in section


def test_curves_say_their_range_and_what_runs_across(page):
    effort = page[page.index('id="effort"') : page.index('id="tasks"')]
    assert "<span>6,000</span><span>857</span>" in effort
    assert "6 rounds" in effort
    assert "first to last step" in page


def test_live_sections_have_ids_by_which_they_are_swapped(page):
    live = [attributes["id"] for _, attributes in Page(page).tags if "data-live" in attributes]
    assert live == ["state", "actions", "readiness", "lint", "taught", "rounds", "effort", "tasks"]


def test_the_round_whose_model_is_in_use_says_so(page):
    assert page.count("in use</span>") == 1
    assert page.index("in use</span>") < page.index("r0006-")


def test_an_unknown_project_has_no_page(client):
    assert client.get("/projects/99").status_code == 404


def test_a_project_without_anything_has_a_page(client, loop, monkeypatch):
    bare = loop.status(3) | {"model_version": None, "training": None, "advice": "", "state": "waiting"}
    bare["readiness"] = {"ready": False, "classes": [], "lint": []}
    monkeypatch.setattr(loop, "status", lambda _: bare)
    monkeypatch.setattr(loop, "rounds", lambda _: [])
    monkeypatch.setattr(loop, "ranked_tasks", lambda *_: [])
    text = client.get("/projects/3").text
    for words in (
        "none yet",
        "No round yet",
        "No round has counted annotations yet",
        "No task has been scored yet",
        "No class is known yet",
        "Nothing to remark",
    ):
        assert words in text


def test_the_page_asks_for_one_reload_after_the_first_round_until_an_answer_came_back(
    client, loop, monkeypatch
):
    first = {"round": 2, "kind": "round", "state": "done", "promoted": True}
    first["effort"] = {"annotations": 3, "corrective_dice": {"mean": None}}
    draft, later = first | {"round": 1, "kind": "draft"}, first | {"round": 3}
    answered = first | {"effort": {"annotations": 3, "corrective_dice": {"mean": 0.9}}}
    for reports, is_said in (
        ([draft], True),
        ([first, draft], True),
        ([first | {"round": 3, "kind": "continuation"}, first, draft], True),
        ([later, first, draft], False),
        ([answered, draft], False),
    ):
        monkeypatch.setattr(loop, "rounds", lambda _, found=reports: found)
        assert ("reload a page of Label Studio" in client.get("/projects/3").text) is is_said
    bare = loop.status(3) | {"model_version": None}
    monkeypatch.setattr(loop, "status", lambda _: bare)
    monkeypatch.setattr(loop, "rounds", lambda _: [])
    assert "reload a page of Label Studio" not in client.get("/projects/3").text


def test_a_sparkline_stays_inside_its_picture_and_keeps_the_last_value():
    points = [tuple(map(float, p.split(","))) for p in sparkline([float(i) for i in range(1000)]).split()]
    assert len(points) <= 81
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in points)
    assert points[0] == (2.0, HEIGHT - 2.0)
    assert points[-1] == (WIDTH - 2.0, 2.0)


def test_loss_curves_may_be_numbers_or_pairs_of_step_and_loss():
    rows = [
        to_round_row({"state": "done", "loss_curve": curve}, None)
        for curve in ([1.0, 0.5], [[0, 1.0], [10, 0.5]])
    ]
    assert rows[0]["curve"] == rows[1]["curve"] != ""
    assert rows[0]["last_loss"] == rows[1]["last_loss"] == 0.5
