"""What Label Studio tells, written down at once: it waits one second and never repeats.

No network and no decoding here.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from ml_backend.errors import ConflictError
from ml_backend.label_studio.payloads import WebhookEvent
from ml_backend.parts import Parts
from ml_backend.storage import annotations as annotation_rows
from ml_backend.storage import task_data, tasks
from ml_backend.storage.annotations import PackedAnnotation
from ml_backend.storage.projects import (
    Project,
    count_train_request,
    describe_other,
    find_project,
    next_seq,
    remember_project,
    set_label_config,
    update_project,
)
from ml_backend.strokes.admission import check_key, check_moments


def record_setup(
    parts: Parts, project_id: int, created_at: str, label_config: str, hostname: str, access_token: str | None
) -> Project:
    """Remember how to reach the project; raises `ConflictError` for another one of the same number."""
    created_s = _to_seconds(created_at)
    with parts.database.write() as connection:
        stored = find_project(connection, project_id)
        project = remember_project(connection, project_id, created_s)
        if project is not None:
            update_project(
                connection, project_id, hostname=hostname, access_token=access_token or project.access_token
            )
            set_label_config(connection, project, label_config, parts.clock())
    if project is None:  # outside, so that what was noted on the way stays
        raise ConflictError(describe_other(stored, project_id, created_s))
    return project


def record_event(parts: Parts, event: WebhookEvent, key: str = "") -> None:
    """Store one event; twice the same, or an older one late, changes nothing.

    Raises `ConflictError` for another project of the same number, `UnauthorizedError` without the key that
    the project's webhook brings, and `PayloadError` for an annotation from the future.
    """
    now = parts.clock()
    created_s = _to_seconds(event.project.created_at)
    with parts.database.read() as connection:
        stored = find_project(connection, event.project.project_id)
    check_key(stored, event, key)
    packed = [annotation_rows.pack(record) for record in event.annotations]
    check_moments(packed, created_s, now)
    with parts.database.write() as connection:
        project = remember_project(connection, event.project.project_id, created_s)
        if project is not None:
            _record(connection, project, event, packed, now)
    if project is None:
        raise ConflictError(describe_other(stored, event.project.project_id, created_s))


def _record(
    connection: Connection,
    project: Project,
    event: WebhookEvent,
    packed: Sequence[PackedAnnotation],
    now: float,
) -> None:
    if event.project.title and event.project.title != project.title:
        update_project(connection, project.project_id, title=event.project.title)
    set_label_config(connection, project, event.project.label_config, now)
    _record_tasks(connection, project, event, now)
    if packed:
        _record_annotations(connection, project, packed, now)
    if event.deleted_annotation_ids:
        _record_deletions(connection, project, event, now)
    if event.deleted_task_ids:
        tasks.delete_tasks(connection, project.project_id, event.deleted_task_ids, now)
    if event.kind == "start-training":
        request_training(connection, project.project_id, now)
    if event.kind == "tasks-created":
        # Imported tasks may bring annotations, and no other event tells of them.
        update_project(connection, project.project_id, reconciled_at=None)


def request_training(connection: Connection, project_id: int, now: float) -> None:
    """Request a round even if too little is painted for one; what failed before is tried again."""
    count_train_request(connection, project_id)
    tasks.retry_failed(connection, project_id, now)


def _record_tasks(connection: Connection, project: Project, event: WebhookEvent, now: float) -> None:
    gone = tasks.find_deleted(connection, project.project_id, [task.task_id for task in event.tasks])
    living = [(task.task_id, task.data) for task in event.tasks if task.task_id not in gone]
    task_data.remember_tasks(connection, project.project_id, living, now)


def _record_annotations(
    connection: Connection, project: Project, packed: Sequence[PackedAnnotation], now: float
) -> None:
    seq = next_seq(connection, project.project_id, now)
    gone = tasks.find_deleted(connection, project.project_id, [annotation.task_id for annotation in packed])
    for annotation in packed:
        if annotation.task_id in gone:
            continue
        for task_id in annotation_rows.save(connection, project.project_id, annotation, seq, now):
            tasks.touch_task(connection, project.project_id, task_id, seq)


def _record_deletions(connection: Connection, project: Project, event: WebhookEvent, now: float) -> None:
    seq = next_seq(connection, project.project_id, now)
    for annotation_id in event.deleted_annotation_ids:
        task_id = annotation_rows.delete(connection, project.project_id, annotation_id, seq, now)
        if task_id is not None:
            tasks.touch_task(connection, project.project_id, task_id, seq)


def _to_seconds(created_at: str) -> int | None:
    return int(created_at) if created_at.isdigit() else None
