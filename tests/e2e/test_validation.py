"""What a real model sends is accepted by the real Label Studio, its validation of predictions switched on."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from running_services import RealLabelStudio

from bench.annotator import SCHEMA, LabelledImage, paint
from bench.painted_source import PaintedSource
from core.asking.suggestion import SuggestedMask, Suggestion, SuggestionSettings, build_suggestion
from core.network.checkpoint import Checkpoint
from core.network.predict import Predictor
from core.rounds import RoundSettings
from core.synthetic import make_image
from core.training.trainer import train_round
from ml_backend.command.setup_project import read_default_config
from ml_backend.errors import LabelStudioRefusedError
from ml_backend.label_studio.admin import LabelStudioAdmin
from ml_backend.label_studio.client import LabelStudioClient
from ml_backend.label_studio.label_config import parse_label_config
from ml_backend.label_studio.results import to_prediction

VERSION = "r0001-0a1b2c3d"
SOFTENED = 4.0

WITHOUT_QUESTIONS = """
<View>
  <Image name="slide" value="$image"/>
  <BrushLabels name="classes" toName="slide">
    <Label value="Hintergrund" role="background"/>
    <Label value="Zellkern &amp; &quot;Rand&quot; &lt;1 µm"/>
  </BrushLabels>
</View>
"""

SETTINGS = {
    "classes": SuggestionSettings(),
    "objects": SuggestionSettings(regions="objects"),
    "with background": SuggestionSettings(send_background=True),
}


@cache
def make_images() -> tuple[LabelledImage, ...]:
    """Four images that are not square, so that rows and columns cannot be mixed up."""
    drawn = [make_image("tissue", np.random.default_rng((3, index)), (192, 256), 12) for index in range(4)]
    return tuple(LabelledImage(f"tissue-{n}", *image) for n, image in enumerate(drawn))


@cache
def train_tiny_model() -> Checkpoint:
    """A few dozen steps, enough for masks; softened, so that it has doubts about images that it has seen."""
    source = PaintedSource(paint(make_images(), 12, np.random.default_rng(0)))
    settings = RoundSettings(budget_s=60, max_steps=60, n_threads=1, learners=("network",))
    checkpoint = train_round(source, SCHEMA, None, settings, now=time.monotonic).checkpoint
    return replace(checkpoint, temperature=SOFTENED)


def upload(
    label_studio: RealLabelStudio, folder: Path, title: str, label_config: str
) -> tuple[int, list[int]]:
    """A project with the four images; its id and its tasks."""
    connection = label_studio.connection
    admin = LabelStudioAdmin(connection)
    project_id = admin.ensure_project(title, label_config).project_id
    paths = []
    for labelled in make_images():
        paths.append(folder / f"{labelled.name}.png")
        Image.fromarray(labelled.image).save(paths[-1])
    assert admin.upload_images(project_id, paths) == len(paths)
    return project_id, [
        task.task_id for task in LabelStudioClient(connection).iter_task_summaries(project_id)
    ]


def predict(settings: SuggestionSettings, label_config: str, task_ids: list[int]) -> list[dict[str, Any]]:
    """The predictions of the four images, by the code that answers Label Studio."""
    checkpoint, config = train_tiny_model(), parse_label_config(label_config)
    predictor = Predictor(checkpoint, n_threads=1)
    predictions = []
    for task_id, labelled in zip(task_ids, make_images(), strict=True):
        found = predictor.predict(labelled.image)
        nothing = np.zeros(found.shape, np.bool_)
        suggestion = build_suggestion(found, config.schema, nothing, checkpoint.limits, settings)
        predictions.append(to_prediction(suggestion, config, VERSION, str(task_id))[0])
    return predictions


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("label_config", [read_default_config(), WITHOUT_QUESTIONS], ids=["default", "other"])
def test_predictions_of_a_trained_model_are_accepted_one_by_one_and_in_bulk(
    label_studio: RealLabelStudio, tmp_path: Path, name: str, label_config: str
) -> None:
    title = f"Validation of {name}, {len(label_config)}"
    project_id, task_ids = upload(label_studio, tmp_path, title, label_config)
    predictions = predict(SETTINGS[name], label_config, task_ids)
    kinds = {region["type"] for prediction in predictions for region in prediction["result"]}
    assert "brushlabels" in kinds
    assert ("rectanglelabels" in kinds) == (label_config != WITHOUT_QUESTIONS)

    connection = label_studio.connection
    for task_id, prediction in zip(task_ids, predictions, strict=True):
        stored = connection.request("POST", "/api/predictions/", json={"task": task_id, **prediction})
        assert stored["result"] == prediction["result"], "Label Studio keeps it as it is"
    pushed = list(zip(task_ids, predictions, strict=True))
    assert LabelStudioClient(connection).push_predictions(project_id, pushed) == len(predictions)


def test_the_validation_is_really_switched_on(label_studio: RealLabelStudio, tmp_path: Path) -> None:
    config = read_default_config()
    project_id, task_ids = upload(label_studio, tmp_path, "Validation of the validation", config)
    good = predict(SETTINGS["classes"], config, task_ids)[0]
    wrong = {**good, "score": 1.5}
    connection = label_studio.connection
    with pytest.raises(LabelStudioRefusedError):
        connection.request("POST", "/api/predictions/", json={"task": task_ids[0], **wrong})
    both = [(task_ids[0], wrong), (task_ids[1], good)]
    assert LabelStudioClient(connection).push_predictions(project_id, both) == 1


TAGS = ("Brush", "Bitmask", "Polygon", "Vector", "Ellipse", "Rectangle")
OFFERED = '<Label value="Background"/><Label value="Nucleus"/>'


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("is_bare", [False, True], ids=["with labels", "beside Labels"])
def test_answers_in_every_shape_are_accepted(
    label_studio: RealLabelStudio, tmp_path: Path, tag: str, is_bare: bool
) -> None:
    labels = "Labels" if is_bare else f"{tag}Labels"
    tool = f'<{tag} name="tool" toName="image"/>' if is_bare else ""
    config = (
        f'<View><Image name="image" value="$image"/><{labels} name="paint" toName="image">'
        f"{OFFERED}</{labels}>{tool}</View>"
    )
    project_id, task_ids = upload(label_studio, tmp_path, f"Answers by {tool or labels}", config)
    mask = np.zeros((60, 80), np.bool_)
    mask[5:50, 10:70] = True
    mask[20:30, 30:50] = False  # a hole
    suggestion = Suggestion((192, 256), (SuggestedMask(1, mask, 8, 9, 0.75),), (), 0.5)
    prediction, _ = to_prediction(suggestion, parse_label_config(config), VERSION, str(task_ids[0]))
    connection = label_studio.connection
    stored = connection.request("POST", "/api/predictions/", json={"task": task_ids[0], **prediction})
    assert stored["result"] == prediction["result"], "Label Studio keeps it as it is"
    pushed = [(task_ids[1], prediction)]
    assert LabelStudioClient(connection).push_predictions(project_id, pushed) == 1
