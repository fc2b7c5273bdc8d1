"""Opt-in: base weights of a project's own, made from its unlabelled images while it waits for strokes.

Whatever people want comes first: new strokes, a round, or a question to a model end it at once, and it begins
again when all is quiet. A project with a model needs none.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from core.errors import ImageError, RoundCancelledError
from core.network.base_weights import save_base
from core.network.device import choose_compute
from core.pretraining.pool_pretraining import MAX_IMAGES, pretrain_on_pool
from ml_backend.due import find_due
from ml_backend.parts import Parts
from ml_backend.storage import scorings, tasks, wakeups
from ml_backend.storage.projects import Project, find_project, get_project

log = logging.getLogger(__name__)

BUDGET_S = 180.0
THREADS = 1
"""The other cores are for those that people wait for."""
LOOK_EVERY_S = 0.5
"""How often it is looked up whether people want something."""


def pretrain_pool(
    parts: Parts, project_id: int, should_stop: Callable[[], bool], max_steps: int | None = None
) -> bool:
    """Make the project's own base weights; False when something else came first.

    Raises
    ------
    ImageError
        None of the images could be read.
    """
    with parts.database.read() as connection:
        project = get_project(connection, project_id)
        task_ids = scorings.list_never(connection, project_id, MAX_IMAGES)  # in the order of their lots
    made_way = _MakeWay(parts, project_id, should_stop)
    try:
        made = pretrain_on_pool(
            _open_images(parts, project, task_ids, made_way),
            seed=project_id,
            now=time.monotonic,
            budget_s=BUDGET_S,
            max_steps=max_steps,
            n_threads=THREADS,
            should_stop=made_way,
            compute=choose_compute(parts.settings.device),
        )
    except RoundCancelledError:
        log.info("yield_pretraining project=%d", project_id)
        return False
    card = {
        "made_from": f"unlabelled images of the project, {len(task_ids)} at most, and drawn scenes",
        "steps": made.n_steps,
        "scene_loss": round(made.scene_loss, 4),
        "guess_loss": round(made.guess_loss, 4),
    }
    save_base(parts.artifacts(project).base, made.architecture, made.weights, card)
    log.info("finish_pretraining project=%d steps=%d images=%d", project_id, made.n_steps, len(task_ids))
    return True


class _MakeWay:
    """Whether to stop, looked up in the database now and then; each look says that the job is alive."""

    def __init__(self, parts: Parts, project_id: int, should_stop: Callable[[], bool]) -> None:
        self._parts, self._project_id, self._should_stop = parts, project_id, should_stop
        self._next_look, self._answer = 0.0, False

    def __call__(self) -> bool:
        if time.monotonic() >= self._next_look:
            self._answer = self._answer or self._look()
            self._next_look = time.monotonic() + LOOK_EVERY_S
        return self._answer or self._should_stop()

    def _look(self) -> bool:
        parts, now = self._parts, self._parts.clock()
        with parts.database.write() as connection:
            project = find_project(connection, self._project_id)
            if project is None or "pretrain" not in find_due(connection, project, parts.settings, now):
                return True
            wakeups.renew(connection, self._project_id, "pretrain", now)
        return False


def _open_images(
    parts: Parts, project: Project, task_ids: list[int], should_stop: Callable[[], bool]
) -> list[NDArray[Any]]:
    images = []
    for task_id in task_ids:
        if should_stop():
            raise RoundCancelledError("something else came first")
        with parts.database.read() as connection:
            task = tasks.find_task(connection, project.project_id, task_id)
        if task is None:
            continue
        try:
            images.append(parts.images.open(project.project_id, task_id, task.data))
        except ImageError as error:
            log.warning("skip_image project=%d task=%d cause=%s", project.project_id, task_id, error)
    return images
