"""Shapes of every tag, drawn with the mouse in the real editor, teach the pixels that its canvas shows.

Konva, which draws the editor's regions, keeps them on canvases that a page can read. The picture is shown at
its own size, outlines have no width and fills are opaque, so a pixel of the canvas is one of the image.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_shapes import TOLERANCE, differing_share, to_runs
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser
from running_services import RealLabelStudio
from shape_annotator import ShapeAnnotator

from ml_backend.label_studio.admin import LabelStudioAdmin
from ml_backend.label_studio.client import LabelStudioClient
from ml_backend.label_studio.label_config import parse_label_config
from ml_backend.label_studio.paintings import parse_painting

SHAPE = (480, 640)
KEYS = {"Brush": "1", "Bitmask": "2", "Polygon": "3", "Vector": "4", "Ellipse": "5", "Rectangle": "6"}
AROUND_PX = 8
"""Between what was drawn and the edge of the part of the canvas in which it is looked for."""

CORNERS = [(20.0, 30.0), (35.5, 150.0), (120.25, 130.75), (90.0, 20.0)]
STROKE = [(350.0, 40.0), (400.0, 90.0), (350.0, 150.0)]

Mask = NDArray[np.bool_]


def write_setup() -> str:
    """Every tag that draws areas, beside each other; one class is enough for shapes."""
    shown = 'opacity="1" fillOpacity="1" strokeWidth="0"'
    tags = "".join(
        f'<{tag}Labels name="{tag.lower()}" toName="image" curves="true" closable="true" {shown}>'
        f'<Label value="Nucleus" hotkey="{key}" background="#ff0000"/>'
        f'<Label value="Background"/></{tag}Labels>'
        for tag, key in KEYS.items()
    )
    row = f'<View style="display: flex; flex-wrap: wrap">{tags}</View>'
    return f'<View><Image name="image" value="$image" defaultzoom="original"/>{row}</View>'


@pytest.fixture(scope="module")
def task(label_studio: RealLabelStudio, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, int]:
    admin = LabelStudioAdmin(label_studio.connection)
    project_id = admin.ensure_project("Every shape", write_setup()).project_id
    picture = tmp_path_factory.mktemp("shapes") / "grey.png"
    Image.fromarray(np.full((*SHAPE, 3), 200, np.uint8)).save(picture)
    admin.upload_images(project_id, [picture])
    (found,) = LabelStudioClient(label_studio.connection).iter_task_summaries(project_id)
    return project_id, found.task_id


def test_every_shape_teaches_the_pixels_that_the_editor_draws(
    label_studio: RealLabelStudio, task: tuple[int, int], browser: Browser, artifacts: Path
) -> None:
    annotator = ShapeAnnotator(browser, label_studio.url)
    annotator.log_in(label_studio.login.email, label_studio.login.password)
    annotator.open_task(*task)
    draw_all(annotator)
    shown = annotator.painted_pixels(SHAPE)
    annotator.save_picture(artifacts / "editor-shapes.jpg")
    result = annotator.submit()["result"]
    assert annotator.script_errors == []

    recorded = [record(region, shown) for region in result]
    (artifacts / "editor_shapes.json").write_text(
        json.dumps({"height": SHAPE[0], "width": SHAPE[1], "shapes": recorded}, separators=(",", ":"))
    )
    assert [one["type"] for one in recorded] == [
        "polygonlabels",
        "ellipselabels",
        "ellipselabels",
        "rectanglelabels",
        "rectanglelabels",
        "bitmasklabels",
        "brushlabels",
    ]
    assert sum(bool(one["value"].get("rotation")) for one in recorded) == 2
    for one in recorded:
        assert differing_share(one, SHAPE) < TOLERANCE[one["type"]], (one["type"], one["value"])


def draw_all(annotator: ShapeAnnotator) -> None:
    """Draw each shape in a part of the picture of its own: outlines by clicks, the others by dragging.

    Vectors are left to the recording: on a busy machine the editor sets their first point twice, and then no
    click closes them.
    """
    annotator.outline(KEYS["Polygon"], CORNERS)
    annotator.drag(KEYS["Ellipse"], [(75, 500), (130.5, 580.25)])
    annotator.drag(KEYS["Ellipse"], [(230, 100), (280, 160)])
    annotator.turn_last((200, 180))
    annotator.drag(KEYS["Rectangle"], [(180.3, 240.6), (280, 340.2)])
    annotator.drag(KEYS["Rectangle"], [(200, 450), (260, 560)])
    annotator.turn_last((250, 600))
    annotator.drag(KEYS["Bitmask"], STROKE)
    annotator.drag(KEYS["Brush"], [(row, column + 200) for row, column in STROKE])
    annotator.press("Escape")
    annotator.page.mouse.move(1, 1)  # nothing is drawn under the pointer


def record(region: dict[str, Any], shown: Mask) -> dict[str, Any]:
    """A region's value, with the pixels around it that the canvas shows, as runs."""
    (painted,) = parse_painting([region], parse_label_config(write_setup()), SHAPE).regions
    near = np.zeros(SHAPE, np.bool_)
    rows = slice(max(painted.top - AROUND_PX, 0), painted.top + painted.alpha.shape[0] + AROUND_PX)
    columns = slice(max(painted.left - AROUND_PX, 0), painted.left + painted.alpha.shape[1] + AROUND_PX)
    near[rows, columns] = shown[rows, columns]
    return {
        "type": region["type"],
        "value": region["value"],
        "pixels": int(np.count_nonzero(near)),
        "runs": to_runs(near),
    }
