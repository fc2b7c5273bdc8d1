"""What the service says about an image, read from `/predict` as Label Studio would, and what is wrong."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.annotator import OBJECT
from bench.fake_label_studio import FakeLabelStudio
from bench.http_calls import Service
from bench.scores import edge_band
from core.painting import PAINTED_ALPHA, Box, Mask
from core.rle import decode
from simulation.annotator import ShownMask

BATCH = 16
"""Tasks per call, so that none runs into the service's deadline."""

MAX_CALLS = 4


@dataclass(frozen=True)
class Answer:
    """One prediction. `questions` are boxes with their acquisition scores, most uncertain first."""

    shown: tuple[ShownMask, ...]
    questions: tuple[tuple[Box, float], ...]
    shape: tuple[int, int]

    @property
    def objects(self) -> Mask:
        found = np.zeros(self.shape, bool)
        for one in self.shown:
            if one.class_index == OBJECT:
                found |= one.mask
        return found


def ask(
    service: Service,
    fake: FakeLabelStudio,
    project_id: int,
    tasks: Mapping[str, int],
    shapes: Mapping[str, tuple[int, int]],
) -> dict[str, Answer]:
    """Predictions of the current model for all these tasks; what a deadline left out is asked for again."""
    found: dict[str, Answer] = {}
    for _ in range(MAX_CALLS):
        missing = [name for name in tasks if name not in found]
        for first in range(0, len(missing), BATCH):
            names = missing[first : first + BATCH]
            body = fake.predict_body(project_id, [tasks[name] for name in names])
            results = service.post("/predict", body)["results"]
            for name, entry in zip(names, results, strict=True):
                if entry:
                    found[name] = read_answer(entry["result"], shapes[name])
    if len(found) < len(tasks):
        raise RuntimeError(f"no prediction for {sorted(set(tasks) - set(found))}")
    return found


def read_answer(result: Sequence[Mapping[str, Any]], shape: tuple[int, int]) -> Answer:
    """Read the regions of one prediction."""
    shown, questions = [], []
    for region in result:
        value = region["value"]
        if region["type"] == "brushlabels":
            mask = decode(value["rle"], shape) >= PAINTED_ALPHA
            class_index = OBJECT if value["brushlabels"] == ["Nucleus"] else 0
            shown.append(ShownMask(str(region["id"]), class_index, mask))
        elif value["rectanglelabels"] == ["Uncertain"]:
            questions.append((_to_box(value, shape), 1 - float(region["score"])))
    questions.sort(key=lambda question: -question[1])
    return Answer(tuple(shown), tuple(questions), shape)


def mean_uncertainty(service: Service, project_id: int, task_id: int) -> float:
    """Mean over an image of one minus the margin, from the picture that the service draws of it."""
    _, png = service.call("GET", f"/api/projects/{project_id}/tasks/{task_id}/uncertainty.png")
    picture = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(np.int64)
    steps = np.arange(256, dtype=np.uint8)[:, None]
    palette = cv2.applyColorMap(steps, cv2.COLORMAP_INFERNO)[:, 0, ::-1].astype(np.int64)
    value_of = {int(code): value for value, code in enumerate(_codes(palette))}
    codes, counts = np.unique(_codes(picture), return_counts=True)
    values = np.array([value_of[int(code)] for code in codes])
    return float((values * counts).sum() / counts.sum() / 255)


def wrong_pixels(objects: Mask, instances: NDArray[np.int32]) -> Mask:
    """Where a pre-annotation is wrong, the band along true outlines left out."""
    true = instances > 0
    return np.asarray((objects != true) & ~edge_band(true))


def questions_hit(
    answers: Mapping[str, Answer], instances: Mapping[str, NDArray[np.int32]], known: Mapping[str, Mask]
) -> list[int]:
    """Wrong pixels in boxes, pixels in boxes, wrong pixels in images, pixels in images.

    Edges are left out, and what is annotated: nothing is asked there, however wrong it still is.
    """
    counts = np.zeros(4, np.int64)
    for name, answer in answers.items():
        counted = ~edge_band(instances[name] > 0) & ~known[name]
        wrong = wrong_pixels(answer.objects, instances[name]) & counted
        inside = np.zeros(answer.shape, bool)
        for box, _ in answer.questions:
            inside[box.slices] = True
        if inside.any():
            counts += [(wrong & inside).sum(), (counted & inside).sum(), wrong.sum(), counted.sum()]
    return [int(count) for count in counts]


def _codes(colours: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.asarray(colours @ np.array([65536, 256, 1]))


def _to_box(value: Mapping[str, float], shape: tuple[int, int]) -> Box:
    height, width = shape
    top, left = round(value["y"] * height / 100), round(value["x"] * width / 100)
    bottom = round((value["y"] + value["height"]) * height / 100)
    right = round((value["x"] + value["width"]) * width / 100)
    return Box(top, left, min(bottom, height) - top, min(right, width) - left)
