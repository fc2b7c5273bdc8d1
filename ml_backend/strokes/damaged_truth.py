"""Label maps on disk that cannot be used: found, said, and built again from the rows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from sqlalchemy import Connection

from core.errors import MachineError
from ml_backend.label_studio.label_config import LabelConfig
from ml_backend.parts import Parts
from ml_backend.storage import health, tasks
from ml_backend.storage.label_map_files import find_wrong_class, read_shape
from ml_backend.storage.projects import Project
from ml_backend.strokes.build_truth import TROUBLE, TaskTruth, build_changed

log = logging.getLogger(__name__)


def rebuild_damaged(
    parts: Parts, project: Project, config: LabelConfig, should_stop: Callable[[], bool] = lambda: False
) -> int:
    """Build the label maps again that are missing, cannot be read, or name a class that there is not."""
    mark_damaged(parts, project, find_damage)
    return build_changed(parts, project, config, should_stop)


def mark_damaged(
    parts: Parts, project: Project, find: Callable[[Parts, Project, TaskTruth], str | None] | None = None
) -> int:
    """Have damaged label maps built again, and say so until they are; returns how many they are.

    Without `find`, what is inside the files is left unread: damage to it shows in the next round.
    """
    find = find or _find_unreadable
    with parts.database.read() as connection:
        listed = tasks.list_truth(connection, project.project_id)
    damage: dict[int, str] = {}
    for task in listed:
        truth = TaskTruth.from_record(task.truth) if task.truth else TaskTruth()
        cause = find(parts, project, truth) if truth.maps else None
        if cause and task.built_seq >= task.truth_seq:
            damage[task.task_id] = cause
    if damage:
        with parts.database.write() as connection:
            _note_damage(parts, connection, project, damage, len(listed))
    return len(damage)


def mark_one_damaged(parts: Parts, project: Project, task_id: int, name: str, cause: str) -> None:
    """The same for one task's label maps of this name, whoever met the damage.

    Those that were built anew meanwhile, and swept, were not damaged.
    """
    with parts.database.write() as connection:
        task = tasks.find_task(connection, project.project_id, task_id)
        if task and task.truth and task.truth["maps"] == name:
            _note_damage(parts, connection, project, {task_id: cause})


def _note_damage(
    parts: Parts,
    connection: Connection,
    project: Project,
    damage: Mapping[int, str],
    n_tasks: int | None = None,
) -> None:
    for task_id, cause in damage.items():
        log.warning("rebuild_truth project=%d task=%d cause=%s", project.project_id, task_id, cause)
        tasks.mark_unbuilt(connection, project.project_id, task_id)
    share = f" ({len(damage)} of {n_tasks} tasks)" if n_tasks else ""
    said = f"{next(iter(damage.values()))}{share}; they are made again"
    health.note_trouble(connection, project.project_id, TROUBLE, said, parts.clock())


def _find_unreadable(parts: Parts, project: Project, truth: TaskTruth) -> str | None:
    try:
        read_shape(parts.artifacts(project).truth / str(truth.maps))
    except MachineError as error:
        return str(error)
    return None


def find_damage(parts: Parts, project: Project, truth: TaskTruth) -> str | None:
    """Why stored label maps cannot be used, or None."""
    path = parts.artifacts(project).truth / str(truth.maps)
    try:
        shape, stat = read_shape(path), path.stat()
        wrong = find_wrong_class(path, stat.st_mtime_ns, stat.st_size, len(truth.classes))
    except (MachineError, OSError) as error:
        return str(error)
    if shape != tuple(truth.shape):
        return f"it is of {shape} pixels, not {truth.shape}"
    return None if wrong is None else f"it names the class index {wrong}"
