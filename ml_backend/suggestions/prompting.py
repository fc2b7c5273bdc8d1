"""Answer a smart tool of the editor: one region of the class that was asked for, never the whole image.

The answer is not stored: Label Studio hands it to the page, and what the person accepts comes back as painted
by hand. So it carries no `origin`, which the page reads as `manual`.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.asking.suggestion import SuggestedMask
from core.errors import BrushloopError, CheckpointError, RoundCancelledError
from core.painting import Box, Mask, filled_box
from core.prompts.ground import fill_ground
from core.prompts.lab_colours import to_colours
from core.prompts.prompt import Point, Prompt, PromptedMask
from core.prompts.segment import segment
from ml_backend.label_studio.label_config import LabelConfig, find_config
from ml_backend.label_studio.prompts import (
    AskedPrompt,
    acknowledge_prewarm,
    list_capabilities,
    read_event,
    read_painted,
    read_prompt,
)
from ml_backend.label_studio.results import to_prompted_regions
from ml_backend.parts import Parts
from ml_backend.ports import TaskRecord
from ml_backend.processes.patience import is_over, patience, waiting_for
from ml_backend.storage import models
from ml_backend.storage.models import UNTRAINED, StoredModel
from ml_backend.storage.projects import Project, find_project
from ml_backend.suggestions.answers import offers_clicks
from ml_backend.suggestions.opened_images import OpenedImages, address_of
from ml_backend.suggestions.predictors import Predictors
from ml_backend.suggestions.seen_images import Kept, Look, ModelLook, known_of, look_of_model
from ml_backend.suggestions.single_flight import SingleFlight

log = logging.getLogger(__name__)

MAX_AT_ONCE = 2
"""Images that are looked at side by side for people who click."""

CLICKED_LATELY_S = 3600.0
"""For so long after a click, images of its project are looked at when somebody opens them."""

WINDOW_PX, STEP_PX = 2048, 1024
"""Of larger images, a part of this size is looked at; parts begin at multiples of the step, to be kept."""


@dataclass(frozen=True)
class _Call:
    """One task that somebody opened or points at, with all that an answer depends on."""

    project: Project
    model: StoredModel | None
    config: LabelConfig
    task: TaskRecord
    context: Mapping[str, Any] = field(default_factory=dict)
    painted: Sequence[Sequence[Any]] = ()

    @property
    def version(self) -> str:
        return UNTRAINED if self.model is None else self.model.model_version


class Prompter:
    """Answers clicks, boxes and strokes; what was seen in an image is kept for the next click."""

    def __init__(self, parts: Parts, predictors: Predictors, opened: OpenedImages) -> None:
        self._parts, self._predictors, self._opened = parts, predictors, opened
        self._looks: Kept[Look] = Kept(lambda look: look.n_bytes)
        self._flights: SingleFlight[Look] = SingleFlight()
        self._places = threading.BoundedSemaphore(MAX_AT_ONCE)
        self._asked: dict[str, float] = {}
        self._ahead = threading.Lock()

    def answer(
        self,
        project_id: int,
        task: TaskRecord,
        context: Mapping[str, Any],
        painted: Sequence[Sequence[Any]],
        label_config: str | None,
        deadline: float,
    ) -> dict[str, Any]:
        """One prediction with one region, or with none where nothing was found; the log says why.

        `painted` are results with what the person has painted in this task so far.
        """
        project, model = self._find(project_id)
        nothing = {"result": [], "score": 0.0, "model_version": model.model_version if model else UNTRAINED}
        config, cause = find_config(label_config or (project.label_config if project else ""))
        if project is None or config is None:
            log.warning("skip_prompt project=%d cause=%s", project_id, cause or "unknown project")
            return nothing
        self._asked[project.folder] = time.monotonic()
        try:
            with patience(deadline - time.monotonic()):
                found = self._answer_event(_Call(project, model, config, task, context, painted))
        except (BrushloopError, FutureTimeoutError) as error:
            cause = str(error) or "no time left"
            log.warning("skip_prompt project=%d task=%d cause=%s", project_id, task.task_id, cause)
            return nothing
        return nothing if found is None else {**nothing, **found}

    def look_ahead(self, project_id: int, task: TaskRecord, label_config: str | None) -> None:
        """Look at an image that somebody opened before they click in it; returns at once.

        Only where the setup offers smart key points. With a model it costs a prediction, so only where
        people have clicked lately.
        """
        project, model = self._find(project_id)
        config, _ = find_config(label_config or (project.label_config if project else ""))
        if project is None or config is None or not offers_clicks(config):
            return
        since = time.monotonic() - self._asked.get(project.folder, -math.inf)
        if (model is None or since < CLICKED_LATELY_S) and self._ahead.acquire(blocking=False):
            arguments = (_Call(project, model, config, task),)
            threading.Thread(target=self._look_now, args=arguments, name="look-ahead", daemon=True).start()

    def _find(self, project_id: int) -> tuple[Project | None, StoredModel | None]:
        with self._parts.database.read() as connection:
            project = find_project(connection, project_id)
            model = models.find_model(connection, project_id, project.current_version) if project else None
        return project, model

    def _look_now(self, call: _Call) -> None:
        try:
            with patience(self._parts.settings.predict_deadline_s):
                self._warm_up(call)
        except (BrushloopError, FutureTimeoutError) as error:
            project_id, task_id = call.project.project_id, call.task.task_id
            log.info("skip_look_ahead project=%d task=%d cause=%s", project_id, task_id, error)
        finally:
            self._ahead.release()

    def _warm_up(self, call: _Call) -> None:
        # The first mask of a process loads the compiled encoder, which takes half a second.
        one_pixel = SuggestedMask(0, np.ones((1, 1), bool), 0, 0, 1.0)
        to_prompted_regions(one_pixel, call.config, (1, 1), "warm-up")
        self._look(call, find_window(Prompt(), self._shape(call)))

    def _shape(self, call: _Call) -> tuple[int, int]:
        return self._parts.images.shape(call.project.project_id, call.task.task_id, call.task.data)

    def _answer_event(self, call: _Call) -> dict[str, Any] | None:
        event = read_event(call.context)
        if event == "predict":
            return self._answer(call)
        if event == "capabilities":
            return {"result": [list_capabilities(call.config, call.version)]}
        if event == "prewarm":
            self._warm_up(call)
            return {"result": [acknowledge_prewarm(call.config)]}
        project_id, task_id = call.project.project_id, call.task.task_id
        log.warning("skip_prompt project=%d task=%d cause=event event=%r", project_id, task_id, event)
        return None

    def _answer(self, call: _Call) -> dict[str, Any] | None:
        shape, task_id = self._shape(call), call.task.task_id
        asked = read_prompt(call.context, call.config, shape)
        if asked is None:
            log.warning("skip_prompt project=%d task=%d cause=unreadable", call.project.project_id, task_id)
            return None
        window = find_window(asked.prompt, shape)
        taken = read_painted(call.painted, call.config, shape)[window.slices]
        look = self._look(call, window)
        found = _ask(look, asked, call.config, _moved(asked.prompt, window), taken)
        if found is None:
            return None
        mask = SuggestedMask(
            asked.class_index, found.mask, found.top + window.top, found.left + window.left, found.score
        )
        regions = to_prompted_regions(mask, call.config, shape, f"{task_id}-{time.monotonic_ns()}")
        return {"result": regions, "score": regions[0]["score"]} if regions else None

    def _look(self, call: _Call, window: Box) -> Look:
        key = (call.project.folder, call.task.task_id, call.version, address_of(call.task), window)
        kept = self._looks.get(key)
        if kept is None:
            patience_s = self._parts.settings.predict_deadline_s
            kept = self._flights.run(key, lambda: self._make_look(call, window), patience_s)
            self._looks.keep(key, kept)
        return kept

    def _make_look(self, call: _Call, window: Box) -> Look:
        image = self._parts.images.open(call.project.project_id, call.task.task_id, call.task.data)
        seen = np.ascontiguousarray(image[window.slices])
        with waiting_for(self._places) as is_ours:
            if not is_ours:
                raise RoundCancelledError("no time left to look at the image")
            return Look(to_colours(seen), self._ask_model(call, seen, window, image.shape[:2]))

    def _ask_model(
        self, call: _Call, seen: NDArray[Any], window: Box, shape: tuple[int, ...]
    ) -> ModelLook | None:
        if call.model is None:
            return None
        try:
            predictor = self._predictors.get(call.project, call.model)
        except CheckpointError as error:
            # A click is answered from the pixels too; the round's own rules take care of the model.
            log.warning("skip_model project=%d cause=%s", call.project.project_id, error)
            return None
        # Most often the model has just said what it sees here: for the suggestion that the person looks at.
        prediction = self._opened.find(call.project, call.model, call.task, window, (shape[0], shape[1]))
        if prediction is None:
            prediction = predictor.predict(seen, n_augmentations=1, keep_details=False, should_stop=is_over)
        return look_of_model(predictor.checkpoint, prediction)


def find_window(prompt: Prompt, shape: tuple[int, int]) -> Box:
    """The part of an image to look at: all of a usual one, else a part around what is pointed at.

    >>> find_window(Prompt(((500.0, 3000.0),)), (1000, 5000))
    Box(top=0, left=2048, height=1000, width=2048)
    """
    middle = _middle_of(prompt, shape)
    sides = []
    for at, size in zip(middle, shape, strict=True):
        first = round((at - WINDOW_PX / 2) / STEP_PX) * STEP_PX
        start = min(max(first, 0), max(size - WINDOW_PX, 0))
        sides.append((start, min(WINDOW_PX, size - start)))
    (top, height), (left, width) = sides
    return Box(top, left, height, width)


def _middle_of(prompt: Prompt, shape: tuple[int, int]) -> Point:
    box = prompt.box if prompt.stroke is None else filled_box(prompt.stroke)
    if box is not None:
        return box.top + box.height / 2, box.left + box.width / 2
    points = (*prompt.positive, *prompt.negative)
    return points[0] if points else (shape[0] / 2, shape[1] / 2)


def _moved(prompt: Prompt, window: Box) -> Prompt:
    """The prompt as seen from the corner of a window."""

    def move(points: Sequence[Point]) -> tuple[Point, ...]:
        return tuple((row - window.top, column - window.left) for row, column in points)

    box = prompt.box
    if box is not None:
        box = Box(box.top - window.top, box.left - window.left, box.height, box.width)
    stroke = None if prompt.stroke is None else prompt.stroke[window.slices]
    return Prompt(move(prompt.positive), move(prompt.negative), box, stroke)


def _ask(
    look: Look, asked: AskedPrompt, config: LabelConfig, prompt: Prompt, taken: Mask
) -> PromptedMask | None:
    schema = config.schema
    known = known_of(look, schema.names[asked.class_index], taken)
    is_ground = asked.class_index == schema.background_index
    if is_ground and prompt.box is None and prompt.stroke is None:
        return fill_ground(look.colours, prompt.positive[-1], known) if prompt.positive else None
    return segment(look.colours, prompt, known)
