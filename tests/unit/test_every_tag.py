"""Every tag that draws areas: what comes in, what goes out, corrections, reviewed areas, touching objects."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_shapes import TOLERANCE, differing_share, from_runs
from PIL import Image

from core.asking.suggestion import SuggestedMask, Suggestion
from core.painting import Painting
from core.polygons import fill_polygon
from core.rle import encode
from core.truth.label_map import SentMask, build_label_map
from ml_backend.label_studio.answer_shapes import draw_answer
from ml_backend.label_studio.label_config import LabelConfig, parse_label_config
from ml_backend.label_studio.paintings import parse_painting
from ml_backend.label_studio.results import to_prediction
from ml_backend.label_studio.shape_regions import draw_shape

FIXTURES = Path(__file__).parents[1] / "fixtures" / "label_studio"
SHAPE = (40, 50)
LABELS = '<Label value="Background"/><Label value="Nucleus"/>'
REVIEW = (
    '<RectangleLabels name="asked" toName="image"><Label value="Uncertain"/>'
    '<Label value="Reviewed"/></RectangleLabels>'
)
KINDS = ("brush", "bitmask", "polygon", "vector", "ellipse", "rectangle")
SETUPS = {
    **{
        kind: f'<{kind.title()}Labels name="paint" toName="image">{LABELS}</{kind.title()}Labels>'
        for kind in KINDS
    },
    **{
        f"bare {kind}": f'<Labels name="paint" toName="image">{LABELS}</Labels>'
        f'<{kind.title()} name="tool" toName="image"/>'
        for kind in KINDS
    },
    "bare magicwand": f'<Labels name="paint" toName="image">{LABELS}</Labels>'
    '<MagicWand name="tool" toName="image"/>',
}


def read_setup(name: str) -> LabelConfig:
    return parse_label_config(f'<View><Image name="image" value="$image"/>{SETUPS[name]}{REVIEW}</View>')


def box_value(kind: str, top: int, left: int, height: int, width: int) -> dict[str, Any]:
    """The same box of pixels in every kind of shape; an ellipse fits into it."""
    x, y, across, down = 2.0 * left, 2.5 * top, 2.0 * width, 2.5 * height
    mask = np.zeros(SHAPE, bool)
    mask[top : top + height, left : left + width] = True
    corners = [(x, y), (x + across, y), (x + across, y + down), (x, y + down)]
    if kind in ("brush", "magicwand"):
        return {"format": "rle", "rle": encode(mask)}
    if kind == "bitmask":
        file = io.BytesIO()
        Image.fromarray(np.repeat(mask[:, :, None].astype(np.uint8) * 255, 4, axis=2)).save(file, "PNG")
        return {"imageDataURL": "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()}
    if kind == "polygon":
        return {"points": [list(corner) for corner in corners], "closed": True}
    if kind == "vector":
        return {"vertices": [{"x": a, "y": b} for a, b in corners], "closed": True}
    if kind == "ellipse":
        return {
            "x": x + across / 2,
            "y": y + down / 2,
            "radiusX": across / 2,
            "radiusY": down / 2,
            "rotation": 0,
        }
    return {"x": x, "y": y, "width": across, "height": down, "rotation": 0}


def draw(
    setup: str, name: str, region_id: str, box: tuple[int, int, int, int], origin: str = "manual"
) -> list[dict[str, Any]]:
    """The entries that the editor writes for one region."""
    kind = setup.removeprefix("bare ")
    common = {"id": region_id, "to_name": "image", "origin": origin, "image_rotation": 0}
    common |= {"original_width": SHAPE[1], "original_height": SHAPE[0]}
    value = box_value(kind, *box)
    key = "labels" if setup.startswith("bare") else f"{kind}labels"
    named = {**common, "type": key, "from_name": "paint", "value": {**value, key: [name]}}
    bare = {**common, "type": kind, "from_name": "tool", "value": value}
    return [bare, named] if setup.startswith("bare") else [named]


def read(setup: str, *regions: dict[str, Any]) -> Painting:
    painting = parse_painting(regions, read_setup(setup), SHAPE)
    assert painting.findings == ()
    return painting


@pytest.mark.parametrize("setup", SETUPS)
def test_what_is_drawn_comes_in(setup: str) -> None:
    (region,) = read(setup, *draw(setup, "Nucleus", "a", (10, 20, 12, 16))).regions
    n_pixels = int(region.painted.sum())
    is_round = setup.endswith("ellipse")
    assert (region.class_index, region.origin) == (1, "manual")
    assert n_pixels == pytest.approx(np.pi * 6 * 8, abs=3) if is_round else n_pixels == 12 * 16
    assert (region.top, region.left) == (10, 20)


@pytest.mark.parametrize("setup", SETUPS)
def test_what_goes_out_comes_in_as_it_was_remembered(setup: str) -> None:
    config = read_setup(setup)
    mask = np.zeros((14, 18), bool)
    mask[2:12, 2:16] = True
    mask[0:2, 5:9] = True
    mask[5:9, 6:10] = False  # a hole
    suggestion = Suggestion(SHAPE, (SuggestedMask(1, mask, 8, 9, 0.75),), (), 0.5)
    prediction, sent = to_prediction(suggestion, config, "r1", "7")
    painting = parse_painting(prediction["result"], config, SHAPE)
    assert painting.findings == ()
    assert [r.region_id for r in painting.regions] == [s.region_id for s in sent]
    (region,), (remembered,) = painting.regions, sent
    shown = np.zeros(SHAPE, bool)
    shown[region.box.slices] = region.painted
    known = np.zeros(SHAPE, bool)
    rows, columns = remembered.mask.shape
    known[remembered.top : remembered.top + rows, remembered.left : remembered.left + columns] = (
        remembered.mask
    )
    assert np.array_equal(shown, known)
    if setup.split()[-1] not in ("ellipse", "rectangle"):
        wanted = np.zeros(SHAPE, bool)
        wanted[8:22, 9:27] = mask
        assert (shown & wanted).sum() / (shown | wanted).sum() > 0.94  # of 138 pixels, corners are rounded
        assert not shown[14:16, 16:18].any(), "the hole is open"


@pytest.mark.parametrize("setup", SETUPS)
def test_a_correction_teaches_the_difference(setup: str) -> None:
    before = read(setup, *draw(setup, "Nucleus", "a", (10, 20, 12, 16))).regions[0]
    painting = read(setup, *draw(setup, "Nucleus", "a", (10, 20, 12, 20), "prediction-changed"))
    sent = {"a": SentMask(1, before.top, before.left, before.painted)}
    label_map = build_label_map(painting, read_setup(setup).schema, sent).label_map
    assert (label_map == 1).any()
    assert not (label_map[13:19, 25:33] != 255).any(), "what was left as it was says nothing"
    assert (label_map[14:18, 37:39] == 1).all()


@pytest.mark.parametrize("setup", SETUPS)
def test_a_reviewed_area_makes_the_shown_region_true(setup: str) -> None:
    shown = draw(setup, "Nucleus", "a", (10, 20, 12, 16), "prediction")
    reviewed = {"type": "rectanglelabels", "from_name": "asked", "to_name": "image", "id": "q"}
    value = {"x": 0, "y": 0, "width": 100, "height": 100, "rotation": 0, "rectanglelabels": ["Reviewed"]}
    painting = read(setup, *shown, {**reviewed, "value": value})
    label_map = build_label_map(painting, read_setup(setup).schema).label_map
    assert (label_map[14:18, 24:32] == 1).all()
    assert (label_map[:8] == 0).all()


@pytest.mark.parametrize("setup", SETUPS)
def test_touching_objects_are_kept_apart(setup: str) -> None:
    first = draw(setup, "Nucleus", "a", (10, 5, 12, 16))
    second = draw(setup, "Nucleus", "b", (10, 21, 12, 16))
    label_map = build_label_map(read(setup, *first, *second), read_setup(setup).schema).label_map
    assert (label_map[15:17, 19:23] == 0).any(axis=1).all()


def test_several_tags_share_their_classes() -> None:
    config = parse_label_config(
        '<View><Image name="image" value="$image"/>'
        f'<PolygonLabels name="poly" toName="image">{LABELS}<Label value="Cell"/></PolygonLabels>'
        f'<BrushLabels name="brush" toName="image">{LABELS}</BrushLabels></View>'
    )
    assert config.schema.names == ("Background", "Nucleus", "Cell")
    assert (config.brush_tag, config.answer_shape) == ("brush", "brush")


def test_a_magic_wand_with_its_label_teaches() -> None:
    xml = f'<View><Image name="image" value="$image"/><Labels name="paint" toName="image">{LABELS}</Labels>'
    config = parse_label_config(xml + '<MagicWand name="wand" toName="image"/></View>')
    value = box_value("brush", 3, 4, 5, 6)
    common = {"id": "a", "to_name": "image"}
    wand = {**common, "type": "magicwand", "from_name": "wand", "value": value}
    label = {**common, "type": "labels", "from_name": "paint", "value": {"labels": ["Nucleus"]}}
    painting = parse_painting([wand, label], config, SHAPE)
    assert [int(region.painted.sum()) for region in painting.regions] == [30]
    assert painting.findings == ()


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"points": [[1, 1], [9, 9]]}, "open-outline"),
        ({"closed": False}, "open-outline"),
        ({"points": [[1, 1], [9, float("nan")], [5, 5]]}, "broken-region"),
        ({"points": [[1, 1], [9, 1e9], [5, 5]]}, "broken-region"),
        ({"points": "round"}, "broken-region"),
        ({"points": [[i % 7, 100 * (i % 2)] for i in range(300_000)]}, "broken-region"),
    ],
)
def test_a_polygon_that_cannot_be_filled_says_why(changes: dict[str, Any], code: str) -> None:
    (region,) = draw("polygon", "Nucleus", "a", (1, 1, 5, 5))
    region["value"] |= changes
    tall = {**region, "original_height": 400, "original_width": 400}
    painting = parse_painting([tall], read_setup("polygon"), (400, 400))
    assert [finding.code for finding in painting.findings] == [code]


@pytest.mark.parametrize(
    "address", [7, "data:image/png;base64,!!", "data:image/png;base64,aGVsbG8=", "http://x/a.png"]
)
def test_a_bitmask_that_is_no_png_says_so(address: Any) -> None:
    (region,) = draw("bitmask", "Nucleus", "a", (1, 1, 5, 5))
    region["value"]["imageDataURL"] = address
    assert [f.code for f in parse_painting([region], read_setup("bitmask"), SHAPE).findings] == [
        "broken-bitmask"
    ]


def test_a_region_on_another_page_is_left_out_with_a_remark() -> None:
    (region,) = draw("polygon", "Nucleus", "a", (1, 1, 5, 5))
    found = parse_painting([{**region, "item_index": 2}], read_setup("polygon"), SHAPE)
    assert [finding.code for finding in found.findings] == ["other-frame"]


def test_a_rectangle_turns_about_its_first_corner() -> None:
    (region,) = draw("rectangle", "Nucleus", "a", (10, 20, 5, 10))
    region["value"]["rotation"] = 90
    (turned,) = read("rectangle", region).regions
    assert (turned.top, turned.left, turned.alpha.shape) == (10, 15, (10, 5))


def test_outlines_may_reach_over_the_edge() -> None:
    points = np.array([[-10, -10], [60, -10], [60, 60], [-10, 60]], float)
    top, left, alpha = fill_polygon(points, SHAPE)
    assert (top, left, alpha.shape) == (0, 0, SHAPE)
    assert (alpha == 255).all()


@pytest.mark.parametrize("columns", [(-20, -5), (2, 9), (500, 520)])
@pytest.mark.parametrize("rows", [(-20, -5), (2, 9), (500, 520)])
def test_an_outline_beside_the_image_fills_nothing(rows: tuple[int, int], columns: tuple[int, int]) -> None:
    points = np.array([[x, y] for y in rows for x in columns], float)[[0, 1, 3, 2]]
    alpha = fill_polygon(points, SHAPE)[2]
    assert alpha.shape == ((7, 7) if rows == columns == (2, 9) else (0, 0))


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_an_outline_with_a_point_that_is_no_number_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="no number"):
        fill_polygon(np.array([[0, 0], [wrong, 5], [5, 5]], float), SHAPE)


def test_a_scribble_that_would_fill_the_memory_is_refused() -> None:
    scribble = np.zeros((200_000, 2))
    scribble[1::2, 1] = 1e9  # to and fro over the whole image, each time
    with pytest.raises(ValueError, match="200000 points crosses the image too often"):
        fill_polygon(scribble, SHAPE)


def test_many_random_masks_are_outlined_closely() -> None:
    rng = np.random.default_rng(0)
    worst = 1.0
    for _ in range(20):
        centre, radii = rng.uniform(15, 25, 2), rng.uniform(6, 12, 2)
        rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
        mask = ((rows - centre[0]) / radii[0]) ** 2 + ((columns - centre[1]) / radii[1]) ** 2 < 1
        (part,) = draw_answer(SuggestedMask(1, mask, 0, 0, 0.5), "polygon", SHAPE)
        shown = np.zeros(SHAPE, bool)
        shown[part.box.slices] = part.mask
        worst = min(worst, (shown & mask).sum() / (shown | mask).sum())
    assert worst > 0.93


def test_shapes_are_filled_as_chromiums_canvas_fills_them() -> None:
    """Counted at alpha >= 128. Its edges are smoothed a little differently: 1.3 % of the pixels at most."""
    recorded = json.loads((FIXTURES / "canvas_fills.json").read_text())
    shape = (recorded["height"], recorded["width"])
    for filled in recorded["shapes"]:
        _, _, alpha = draw_shape(filled["value"], "recorded", shape)
        assert int((alpha >= 128).sum()) == pytest.approx(filled["pixels"], rel=0.013)


RECORDED = json.loads((FIXTURES / "editor_shapes.json").read_text())


@pytest.mark.parametrize("index", range(len(RECORDED["shapes"])))
def test_shapes_teach_the_pixels_that_the_editor_drew(index: int) -> None:
    """Recorded in the real editor, where `tests/e2e/test_drawn_shapes.py` draws them with the mouse."""
    recorded, shape = RECORDED["shapes"][index], (RECORDED["height"], RECORDED["width"])
    assert int(from_runs(recorded["runs"], shape).sum()) == recorded["pixels"] > 2000
    assert differing_share(recorded, shape) < TOLERANCE[recorded["type"]]


def test_every_tag_that_draws_areas_was_recorded_in_the_editor() -> None:
    values = [recorded["value"] for recorded in RECORDED["shapes"]]
    assert {recorded["type"] for recorded in RECORDED["shapes"]} == set(TOLERANCE)
    assert sum(bool(value.get("rotation")) for value in values) == 2
    assert any(vertex["isBezier"] for value in values for vertex in value.get("vertices", []))
