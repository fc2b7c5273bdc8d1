"""The product in one story: strokes with the mouse become a model, and the model's questions become truth."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hand
import numpy as np
import pytest
from label_studio_browser import Annotator
from label_studio_sdk.converter.brush import decode_rle
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser
from running_services import AUTH, Backend, RealLabelStudio, run_backend

from core.painting import PAINTED_ALPHA
from core.schema import IGNORE_INDEX
from core.synthetic import NUCLEUS_RGB, make_image

BACKGROUND, NUCLEUS = 0, 1
BACKGROUND_KEY, NUCLEUS_KEY, REVIEWED_KEY, ERASER_KEY = "1", "2", "4", "e"

N_IMAGES = 3
SHAPE = (256, 256)
N_OBJECTS = 12
MIN_PIXELS = 1500
N_PAINTED = 8

N_CLEAR_ROWS, DARKEST = 156, 0.9
"""Below these rows the second image darkens until it looks as nuclei do: no training makes a model sure of
where nuclei begin there, however many steps it had time for. Where it is sure it asks nothing."""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[NDArray[np.int32]]]:
    """A folder of generated images, and the true objects of each."""
    folder = tmp_path_factory.mktemp("images")
    truths = []
    for index in range(N_IMAGES):
        image, instances = make_image("tissue", np.random.default_rng((11, index)), SHAPE, N_OBJECTS)
        image = darken_slowly(image) if index == 1 else image
        Image.fromarray(image).save(folder / f"tissue-{index}.png")
        truths.append(instances)
    return folder, truths


@pytest.fixture(scope="module")
def backend(label_studio: RealLabelStudio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    folder = tmp_path_factory.mktemp("backend")
    with run_backend(label_studio, folder, MIN_PIXELS_PER_CLASS=str(MIN_PIXELS)) as backend:
        yield backend


def test_strokes_become_a_model_and_its_questions_become_truth(
    label_studio: RealLabelStudio,
    backend: Backend,
    browser: Browser,
    images: tuple[Path, list[NDArray[np.int32]]],
    artifacts: Path,
) -> None:
    folder, truths = images
    pictures = artifacts / "first-ten-minutes"
    backend.command("setup", "--title", "Nuclei", "--images", str(folder))
    project_id, tasks = label_studio.find_tasks("Nuclei")
    annotator = Annotator(browser, label_studio.url)
    annotator.log_in(label_studio.login.email, label_studio.login.password)

    # A person paints some nuclei and some background, and submits.
    annotator.open_task(project_id, tasks[0])
    assert annotator.regions() == [], "nobody has taught the model anything yet"
    annotator.save_picture(pictures / "1-opened.jpg")
    paint(annotator, truths[0])
    annotator.save_picture(pictures / "2-painted.jpg")
    annotator.submit()

    # A round makes a model of it.
    status = backend.wait_until_learnt(project_id, 1)
    assert status["readiness"]["ready"]
    assert "Nucleus" in backend.command("status", str(project_id))
    annotator.save_page(f"{backend.url}/projects/{project_id}", pictures / "3-learnt.jpg", AUTH)

    # The next task opens with a pre-annotation and questions.
    annotator.open_task(project_id, tasks[1])
    annotator.save_picture(pictures / "4-suggested.jpg")
    shown = annotator.regions()
    assert {region.origin for region in shown} == {"prediction"}
    assert [region.label for region in shown if region.type == "brushregion"] == ["Nucleus"]
    questions = [region.id for region in shown if region.label == "Uncertain"]
    assert 1 <= len(questions) <= 5
    assert sum("Uncertain" in row for row in annotator.listed_regions()) == len(questions)
    stored = get_prediction(label_studio, tasks[1])
    assert stored["model_version"] == status["model_version"]
    assert 0 <= stored["score"] <= 1
    sent_id, sent = find_brush_mask(stored["result"])
    clear = np.s_[:N_CLEAR_ROWS]
    assert dice(sent[clear], truths[1][clear] > 0) > 0.6, "the model has learnt from the strokes"

    # The person corrects the pre-annotation and answers a question.
    box = find_box(stored["result"], questions[0])
    added, erased = choose_corrections(sent, box)
    annotator.select_region(sent_id)
    annotator.resize_brush(6)
    annotator.stroke([added, (added[0], added[1] + 6)])
    annotator.press(ERASER_KEY)
    annotator.stroke([erased, (erased[0], erased[1] + 3)])
    annotator.select_region(questions[0])
    annotator.press(REVIEWED_KEY)
    annotator.save_picture(pictures / "5-corrected.jpg")
    submitted = annotator.submit()
    assert annotator.script_errors == []

    # Exactly the difference and the reviewed box became truth.
    origins = {region["id"]: region["origin"] for region in submitted["result"]}
    assert origins[sent_id] == "prediction-changed"
    backend.wait_until_learnt(project_id, 2)
    corrected = find_brush_alpha(submitted["result"], sent_id)
    annotator.save_page(f"{backend.url}/projects/{project_id}", pictures / "6-learnt-again.jpg", AUTH)
    expected = expect_truth(sent, corrected, box)
    assert ((expected == NUCLEUS) & ~sent).any(), "something was added"
    assert ((expected == BACKGROUND) & sent).any(), "something was erased"
    learnt = backend.truth(project_id, tasks[1])
    np.testing.assert_array_equal(learnt, expected)


def darken_slowly(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Give the rows below the clear ones the colour of nuclei, a little more of it from row to row."""
    share = np.zeros(SHAPE[0])
    share[N_CLEAR_ROWS:] = np.linspace(0, DARKEST, SHAPE[0] - N_CLEAR_ROWS)
    share = share[:, None, None]
    return np.asarray(image * (1 - share) + 255 * NUCLEUS_RGB * share).round().astype(np.uint8)


def paint(annotator: Annotator, truth: NDArray[np.int32]) -> None:
    """Paint some objects whole, a ring of background around each, and some background far from all."""
    sizes = np.bincount(truth.ravel())[1:]
    chosen = np.argsort(-sizes)[:N_PAINTED] + 1
    for number in chosen:
        diameter_px = annotator.choose_brush(NUCLEUS_KEY, 5)
        annotator.stroke(hand.fill(truth == number, diameter_px))
    diameter_px = annotator.choose_brush(BACKGROUND_KEY, 5)
    not_painted = (truth > 0) & ~np.isin(truth, chosen)
    forbidden = ~hand.shrink(~not_painted, diameter_px / 2 + 1)
    for number in chosen:
        path = hand.ring(truth == number, diameter_px / 2 + 1)
        if not any(forbidden[int(row), int(column)] for row, column in path):
            annotator.stroke(path)
    diameter_px = annotator.resize_brush(16)
    for line in hand.free_lines(truth > 0, diameter_px, 4):
        annotator.stroke(line)


def get_prediction(label_studio: RealLabelStudio, task_id: int) -> dict[str, Any]:
    """The newest stored prediction of a task."""
    rows = label_studio.connection.request("GET", "/api/predictions/", params={"task": task_id})
    return dict(max(rows, key=lambda row: row["id"]))


def find_brush_mask(result: list[dict[str, Any]]) -> tuple[str, NDArray[np.bool_]]:
    """The one predicted brush region, decoded by Label Studio's own decoder."""
    [region_id] = [region["id"] for region in result if region["type"] == "brushlabels"]
    return region_id, find_brush_alpha(result, region_id) >= PAINTED_ALPHA


def find_brush_alpha(result: list[dict[str, Any]], region_id: str) -> NDArray[np.uint8]:
    [region] = [region for region in result if region["id"] == region_id]
    height, width = region["original_height"], region["original_width"]
    values = decode_rle(region["value"]["rle"]).reshape(height, width, 4)
    return values[..., 3].astype(np.uint8)


def find_box(result: list[dict[str, Any]], region_id: str) -> tuple[slice, slice]:
    """Rows and columns of a rectangle, which Label Studio keeps in percent."""
    [value] = [region["value"] for region in result if region["id"] == region_id]
    top, left = value["y"] * SHAPE[0] / 100, value["x"] * SHAPE[1] / 100
    bottom, right = top + value["height"] * SHAPE[0] / 100, left + value["width"] * SHAPE[1] / 100
    return slice(round(top), round(bottom)), slice(round(left), round(right))


def choose_corrections(
    sent: NDArray[np.bool_], box: tuple[slice, slice]
) -> tuple[tuple[float, float], tuple[float, float]]:
    """A place far from every predicted object, and one deep inside one; both off the reviewed box."""
    outside, inside = ~sent, sent.copy()
    outside[box] = inside[box] = False
    return hand.deepest(outside), hand.deepest(inside)


def expect_truth(
    sent: NDArray[np.bool_], corrected: NDArray[np.uint8], box: tuple[slice, slice]
) -> NDArray[np.uint8]:
    """What the rules say: the difference, and all that is in the reviewed box."""
    painted = corrected >= PAINTED_ALPHA
    truth = np.full(SHAPE, IGNORE_INDEX, np.uint8)
    truth[painted & ~sent] = NUCLEUS
    truth[sent & (corrected == 0)] = BACKGROUND
    truth[box] = np.where(painted[box], NUCLEUS, BACKGROUND)
    return truth


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))
