"""Smart tools of the editor: a click, a box or a stroke is answered with one region."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from loop_fakes import Bench, make_bench
from numpy.typing import NDArray
from painted import LABEL_CONFIG, SIDE_PX, brush, make_picture

from core.network.predict import Predictor
from core.painting import Box, Mask
from core.prompts.prompt import Prompt
from ml_backend.label_studio.label_config import parse_label_config
from ml_backend.label_studio.paintings import parse_painting
from ml_backend.label_studio.prompts import list_capabilities, read_prompt
from ml_backend.storage.models import find_model
from ml_backend.storage.projects import find_project
from ml_backend.suggestions.prompting import find_window
from ml_backend.suggestions.seen_images import Kept

SMART = LABEL_CONFIG.replace(
    "</View>",
    '<KeyPointLabels name="click" toName="image" smart="true"><Label value="Background"/>'
    '<Label value="Nucleus"/></KeyPointLabels></View>',
)
TASK = 9
SHAPE = (SIDE_PX, SIDE_PX)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    torch.set_num_threads(1)
    bench = make_bench(tmp_path)
    yield bench
    bench.close()


def largest_object() -> Mask:
    instances = make_picture(TASK)[1]
    numbers, areas = np.unique(instances[instances > 0], return_counts=True)
    return np.asarray(instances == numbers[np.argmax(areas)])


def region(kind: str, value: dict[str, Any], label: str = "Nucleus", **more: Any) -> dict[str, Any]:
    return {
        "id": "p1", "type": kind, "from_name": "click", "to_name": "image", "original_width": SIDE_PX,
        "original_height": SIDE_PX, "image_rotation": 0, "value": {**value, kind: [label]}, **more,
    }  # fmt: skip


def point(row: float, column: float, label: str = "Nucleus", *, is_positive: bool = True) -> dict[str, Any]:
    value = {"x": 100 * column / SIDE_PX, "y": 100 * row / SIDE_PX, "width": 0.3, "labels": [label]}
    return region("keypointlabels", value, label, is_positive=is_positive)


def middle(mask: Mask) -> tuple[float, float]:
    rows, columns = np.nonzero(mask)
    return float(rows.mean()) + 0.5, float(columns.mean()) + 0.5


def box_around(mask: Mask) -> dict[str, Any]:
    rows, columns = np.nonzero(mask)
    share = 100 / SIDE_PX
    return region(
        "rectanglelabels",
        {
            "x": columns.min() * share,
            "y": rows.min() * share,
            "width": (columns.max() + 1 - columns.min()) * share,
            "height": (rows.max() + 1 - rows.min()) * share,
            "rotation": 0,
        },
    )


def ask(
    bench: Bench, *regions: Any, painted: Any = (), config: str = SMART, deadline: float | None = None
) -> dict[str, Any]:
    context = {"result": list(regions)}
    until = time.monotonic() + 60 if deadline is None else deadline
    return bench.loop.prompt(1, bench.task(TASK), context, painted, config, until)


def shown(answer: dict[str, Any], config: str = SMART) -> NDArray[np.bool_]:
    mask = np.zeros(SHAPE, bool)
    for one in parse_painting(answer["result"], parse_label_config(config), SHAPE).regions:
        mask[one.box.slices] |= one.painted
    return mask


def mask_of(one: dict[str, Any]) -> Mask:
    return shown({"result": [{**one, "origin": "manual"}]})


def deepest(mask: Mask) -> tuple[float, float]:
    """The pixel farthest from the border."""
    inside = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    row, column = np.unravel_index(int(inside.argmax()), inside.shape)
    return float(row) + 0.5, float(column) + 0.5


def overlap(one: Mask, other: Mask) -> float:
    return float(np.count_nonzero(one & other) / np.count_nonzero(one | other))


def test_a_box_is_answered_with_one_region_before_there_is_a_model(bench: Bench) -> None:
    truth = largest_object()
    answer = ask(bench, box_around(truth))
    assert answer["model_version"]
    (found,) = answer["result"]
    assert (found["type"], found["from_name"]) == ("brushlabels", "brush")
    assert found["value"]["brushlabels"] == ["Nucleus"]
    assert 0 <= answer["score"] == found["score"] <= 1
    assert overlap(shown(answer), truth) > 0.7


def test_a_click_is_answered_with_the_object_of_the_model(bench: Bench) -> None:
    bench.submit(1, 2)
    assert bench.loop.run_round(1) is not None
    answer = ask(bench, point(*middle(largest_object())))
    assert answer["model_version"] == bench.status()["model_version"]
    assert len(answer["result"]) == 1
    assert 0 < np.count_nonzero(shown(answer)) < shown(answer).size / 2


def test_what_a_person_accepts_counts_as_painted_by_hand(bench: Bench) -> None:
    answer = ask(bench, box_around(largest_object()))
    assert "origin" not in answer["result"][0]
    (read,) = parse_painting(answer["result"], parse_label_config(SMART), SHAPE).regions
    assert read.origin == "manual"


def test_the_next_click_looks_at_no_image_again(bench: Bench) -> None:
    ask(bench, box_around(largest_object()))
    bench.images.opened.clear()
    bench.images.open = lambda *_: pytest.fail("the image was opened again")  # type: ignore[method-assign]
    bench.images.shape = lambda *_: SHAPE  # type: ignore[method-assign]
    assert ask(bench, point(*middle(largest_object())))["result"]


def wait_until_looked_at(bench: Bench) -> None:
    """Until the thread that looks ahead has ended."""
    for thread in threading.enumerate():
        if thread.name == "look-ahead":
            thread.join(60)
    bench.images.open = lambda *_: pytest.fail("the image was opened again")  # type: ignore[method-assign]
    bench.images.shape = lambda *_: SHAPE  # type: ignore[method-assign]


def test_an_image_is_looked_at_when_it_is_opened_and_not_again_by_the_first_click(bench: Bench) -> None:
    bench.loop.suggest(1, [bench.task(TASK)], SMART, time.monotonic() + 60)
    wait_until_looked_at(bench)
    assert ask(bench, box_around(largest_object()))["result"]


def test_with_a_model_images_are_looked_at_ahead_where_people_click(bench: Bench) -> None:
    bench.submit(1, 2)
    assert bench.loop.run_round(1) is not None
    bench.loop.suggest(1, [bench.task(3)], SMART, time.monotonic() + 60)
    assert not [one for one in threading.enumerate() if one.name == "look-ahead"]
    context = {"result": [point(5, 5)]}
    bench.loop.prompt(1, bench.task(3), context, (), SMART, time.monotonic() + 60)
    bench.loop.suggest(1, [bench.task(TASK)], SMART, time.monotonic() + 60)
    wait_until_looked_at(bench)
    assert ask(bench, point(*middle(largest_object())))["model_version"] == bench.status()["model_version"]


def test_a_click_in_an_opened_image_asks_the_model_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.submit(1, 2)
    assert bench.loop.run_round(1) is not None
    (opened,) = bench.loop.suggest(1, [bench.task(TASK)], SMART, time.monotonic() + 60)
    assert opened is not None
    monkeypatch.setattr(Predictor, "predict", lambda *_, **__: pytest.fail("the model was asked again"))
    shapes = [mask_of(one) for one in opened["result"] if one["type"] == "brushlabels"]
    objects = max(shapes, key=np.count_nonzero)
    answer = shown(ask(bench, point(*deepest(objects))))
    assert np.any(answer)
    assert not np.any(answer & ~objects)


def test_an_image_that_was_opened_under_another_model_is_looked_at_by_the_new_one(bench: Bench) -> None:
    bench.submit(1, 2)
    assert bench.loop.run_round(1) is not None
    bench.loop.suggest(1, [bench.task(TASK)], SMART, time.monotonic() + 60)
    with bench.parts.database.read() as connection:
        project = find_project(connection, 1)
        assert project is not None
        model = find_model(connection, 1, project.current_version)
    assert model is not None
    opened, whole = bench.loop._suggester.opened, Box(0, 0, *SHAPE)
    assert opened.find(project, model, bench.task(TASK), whole, SHAPE) is not None
    part = opened.find(project, model, bench.task(TASK), Box(3, 4, 20, 30), SHAPE)
    assert part is not None
    assert part.shape == (20, 30)
    newer = replace(model, model_version="another")
    assert opened.find(project, newer, bench.task(TASK), whole, SHAPE) is None
    assert opened.find(project, model, bench.task(TASK), whole, (7, 7)) is None
    moved = replace(bench.task(TASK), data={"image": "/data/upload/1/new.png"})
    assert opened.find(project, model, moved, whole, SHAPE) is None


def test_a_setup_without_smart_key_points_is_not_looked_at_ahead(bench: Bench) -> None:
    bench.loop.suggest(1, [bench.task(TASK)], LABEL_CONFIG, time.monotonic() + 60)
    assert not [one for one in threading.enumerate() if one.name == "look-ahead"]
    assert bench.images.opened == []


def test_another_image_at_the_address_is_looked_at_anew(bench: Bench) -> None:
    ask(bench, box_around(largest_object()))
    bench.images.opened.clear()
    moved = bench.task(TASK).__class__(TASK, 1, {"image": "/data/upload/1/new.png"}, "")
    bench.loop.prompt(1, moved, {"result": [box_around(largest_object())]}, (), SMART, time.monotonic() + 60)
    assert len(bench.images.opened) == 2  # its size, and its pixels


def test_nothing_that_was_painted_by_hand_is_covered(bench: Bench) -> None:
    truth = largest_object()
    half = truth.copy()
    half[:, : int(middle(truth)[1])] = False
    drafts = [[brush("a", half, "Nucleus")]]
    assert not np.any(shown(ask(bench, box_around(truth), painted=drafts)) & half)
    suggested = [[brush("a", half, "Nucleus", "prediction")]]
    assert np.any(shown(ask(bench, box_around(truth), painted=suggested)) & half)


def test_an_answer_has_the_shape_that_the_setup_offers(bench: Bench) -> None:
    config = SMART.replace("BrushLabels", "PolygonLabels")
    answer = ask(bench, box_around(largest_object()), config=config)
    (found,) = answer["result"]
    assert found["type"] == "polygonlabels"
    assert overlap(shown(answer, config), largest_object()) > 0.6


def test_a_click_with_background_fills_the_ground_and_no_object(bench: Bench) -> None:
    image, instances = make_picture(TASK)
    rows, columns = np.nonzero(instances == 0)
    darkest = int(np.argmin(image[rows, columns, 0]))
    answer = ask(bench, point(rows[darkest] + 0.5, columns[darkest] + 0.5, "Background"))
    (found,) = answer["result"]
    assert found["value"]["brushlabels"] == ["Background"]
    ground = shown(answer)
    assert ground.sum() > 50
    assert np.count_nonzero(ground & (instances > 0)) <= 0.02 * ground.sum()


@pytest.mark.parametrize(
    "context",
    [
        {},
        {"result": None},
        {"result": "all"},
        {"result": []},
        {"result": [None, 3]},
        {"result": [{"type": "keypointlabels", "value": {}}]},
        {"result": [{"type": "keypointlabels", "value": {"keypointlabels": ["Nucleus"], "x": "a", "y": 1}}]},
        {"result": [{"type": "keypointlabels", "value": {"keypointlabels": ["Nucleus"], "x": 1}}]},
        {"result": [{"type": "brushlabels", "value": {"brushlabels": ["Nucleus"], "rle": [1, 2]}}]},
        {"result": [{"type": "rectanglelabels", "value": {"rectanglelabels": ["Nucleus"]}}]},
        {"result": [point(5, 5, "Strange")]},
        {"result": [point(float("nan"), 5)]},
        {"result": [point(5, 5, is_positive=False)]},
    ],
)
def test_a_call_that_points_at_nothing_gets_no_region(bench: Bench, context: Any) -> None:
    answer = bench.loop.prompt(1, bench.task(TASK), context, (), SMART, time.monotonic() + 60)
    assert answer["result"] == []
    assert answer["model_version"]


def test_an_image_that_cannot_be_had_gets_no_region(bench: Bench) -> None:
    bench.images.away.add(TASK)
    assert ask(bench, box_around(largest_object()))["result"] == []


def test_an_unknown_project_or_setup_gets_no_region(bench: Bench) -> None:
    assert ask(bench, box_around(largest_object()), config="<View/>")["result"] == []
    answer = bench.loop.prompt(
        77, bench.task(TASK), {"result": [point(5, 5)]}, (), SMART, time.monotonic() + 9
    )
    assert answer["result"] == []


def test_points_of_one_label_are_read_together_and_the_newest_region_decides() -> None:
    config = parse_label_config(SMART)
    listed = [point(1, 2, "Background"), point(10, 20), point(12, 22), point(30, 40, is_positive=False)]
    asked = read_prompt({"result": listed}, config, SHAPE)
    assert asked is not None
    assert config.schema.names[asked.class_index] == "Nucleus"
    assert asked.prompt == Prompt(((10.0, 20.0), (12.0, 22.0)), ((30.0, 40.0),))


def test_an_ellipse_or_an_outline_is_the_box_around_it() -> None:
    config = parse_label_config(SMART)
    ellipse = region("ellipselabels", {"x": 50, "y": 50, "radiusX": 25, "radiusY": 12.5, "rotation": 0})
    outline = region("polygonlabels", {"points": [[25, 37.5], [75, 37.5], [75, 62.5], [25, 62.5]]})
    for drawn in (ellipse, outline):
        asked = read_prompt({"result": [drawn]}, config, SHAPE)
        assert asked is not None
        assert asked.prompt.box == Box(24, 16, 16, 32)


def test_a_box_with_points_is_one_prompt() -> None:
    config = parse_label_config(SMART)
    box = region("rectanglelabels", {"x": 25, "y": 50, "width": 50, "height": 25, "rotation": 0})
    for listed in ([box, point(40, 20), point(41, 60, is_positive=False)], [point(40, 20), box]):
        asked = read_prompt({"result": listed}, config, SHAPE)
        assert asked is not None
        assert asked.prompt.box == Box(32, 16, 16, 32)
        assert asked.prompt.positive == ((40.0, 20.0),)


def newer_point(row: float, column: float, *, positive: bool = True) -> dict[str, Any]:
    """As pages of Label Studio's main branch ask: without a label, and without the setup's names."""
    value = {"x": 100 * column / SIDE_PX, "y": 100 * row / SIDE_PX, "positive": positive}
    return {"type": "keypointlabels", "value": value}


def test_a_newer_page_names_no_label_where_there_is_one_class_of_objects() -> None:
    context = {"result": [newer_point(10, 20), newer_point(30, 40, positive=False)]}
    asked = read_prompt(context, parse_label_config(SMART), SHAPE)
    assert asked is not None
    assert asked.class_index == 1
    assert asked.prompt == Prompt(((10.0, 20.0),), ((30.0, 40.0),))
    two = SMART.replace('<Label value="Nucleus"/>', '<Label value="Nucleus"/><Label value="Debris"/>')
    assert two.count("Debris") == SMART.count('<Label value="Nucleus"/>') > 0
    assert read_prompt(context, parse_label_config(two), SHAPE) is None


def test_a_newer_page_is_told_what_is_answered(bench: Bench) -> None:
    answer = bench.loop.prompt(
        1, bench.task(TASK), {"event": "capabilities"}, (), SMART, time.monotonic() + 60
    )
    (told,) = answer["result"]
    assert told["type"] == "capabilities"
    assert told["value"]["prompts"] == ["point", "box"]
    assert told["value"]["targets"] == [{"tag": "BrushLabels", "output": "mask"}]
    outlines = parse_label_config(SMART.replace("BrushLabels", "PolygonLabels"))
    assert list_capabilities(outlines, "v1")["value"]["targets"] == [
        {"tag": "PolygonLabels", "output": "polygon"}
    ]
    assert bench.images.opened == []


def test_an_image_that_a_newer_page_warms_up_is_looked_at_once(bench: Bench) -> None:
    until = time.monotonic() + 60
    (told,) = bench.loop.prompt(1, bench.task(TASK), {"event": "prewarm"}, (), SMART, until)["result"]
    assert told["type"] == "prewarm_ack"
    assert told["value"]["status"] == "ok"
    bench.images.open = lambda *_: pytest.fail("the image was opened again")  # type: ignore[method-assign]
    bench.images.shape = lambda *_: SHAPE  # type: ignore[method-assign]
    assert ask(bench, point(*middle(largest_object())))["result"]


def test_an_event_that_nobody_knows_gets_no_region(bench: Bench) -> None:
    answer = bench.loop.prompt(1, bench.task(TASK), {"event": "track"}, (), SMART, time.monotonic() + 60)
    assert answer["result"] == []
    assert answer["model_version"]


def test_strokes_of_the_smart_brush_are_one_stroke() -> None:
    config = parse_label_config(SMART)
    left, right = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    left[10:14, 10:20], right[10:14, 20:30] = True, True
    listed = [brush("a", left, "Nucleus"), brush("b", right, "Nucleus")]
    asked = read_prompt({"result": listed}, config, SHAPE)
    assert asked is not None
    assert asked.prompt.stroke is not None
    assert np.array_equal(asked.prompt.stroke, left | right)


def test_a_part_of_a_large_image_is_looked_at() -> None:
    window = find_window(Prompt(box=Box(5000, 100, 20, 20)), (9000, 9000))
    assert window == Box(4096, 0, 2048, 2048)
    assert find_window(Prompt(((8999.0, 8999.0),)), (9000, 9000)) == Box(6952, 6952, 2048, 2048)
    assert find_window(Prompt(((1.0, 1.0),)), (100, 200)) == Box(0, 0, 100, 200)


def test_what_is_kept_stays_within_its_bytes_and_the_newest_stays() -> None:
    kept: Kept[bytes] = Kept(len, limit_bytes=10)
    for name in "abc":
        kept.keep(name, name.encode() * 4)
    assert [kept.get(name) for name in "abc"] == [None, b"bbbb", b"cccc"]
    kept.keep("large", b"x" * 99)
    assert [kept.get(name) for name in ("b", "c", "large")] == [None, None, b"x" * 99]
    kept.keep("large", b"y")
    assert kept.get("large") == b"y"
