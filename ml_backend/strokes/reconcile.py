"""Bring the stored annotations in line with Label Studio's own: webhooks get lost, and nobody repeats them.

Cheap for what did not change: tasks are listed without their regions, and only those are fetched whose stamp
or list of annotations differs from what is stored. A round lists painted tasks alone, where the pool is known
already: what it costs must not grow with the pool.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from ml_backend.errors import LabelStudioError, LabelStudioRefusedError
from ml_backend.moments import has_passed
from ml_backend.parts import Parts
from ml_backend.ports import LabelStudio, TaskRecord, TaskSummary
from ml_backend.storage import annotations as annotation_rows
from ml_backend.storage import health, models, predictions, reviews, task_data, tasks
from ml_backend.storage.annotations import PackedAnnotation
from ml_backend.storage.projects import (
    Project,
    confirm_project,
    describe_other,
    find_project,
    next_seq,
    set_label_config,
    update_project,
)
from ml_backend.strokes.older_copies import note_where_gone_back, tell_again

log = logging.getLogger(__name__)

STATUS_NOT_FOUND = 404
DOUBT_S, DOUBT_ALL_S = 60.0, 24 * 3600.0
"""So long must listings have left a task out before it is dropped; and where they leave out all there are."""
LISTING_CHUNK = 500
"""Tasks whose existence is noted in one transaction, so that webhooks never wait long."""


@dataclass(frozen=True)
class Reconciled:
    """What a reconciliation found. `problem` says why it could not be done, or is None."""

    fetched_tasks: int = 0
    changed_annotations: int = 0
    deleted_annotations: int = 0
    deleted_tasks: int = 0
    problem: str | None = None


def reconcile_project(parts: Parts, project: Project, *, painted_only: bool = False) -> Reconciled:
    """Fetch what was missed, drop what was deleted; a Label Studio that cannot be reached is reported.

    With `painted_only` unpainted tasks are left alone, as far as a recent look at all of them knew as many.
    """
    listed_at, began = parts.clock(), time.monotonic()
    painted_only = painted_only and not _is_listing_due(project, parts, listed_at)
    if not painted_only:
        with parts.database.write() as connection:
            update_project(connection, project.project_id, reconciled_at=listed_at)
    try:
        reconciled = _reconcile(parts, project, parts.label_studio(project), listed_at, painted_only)
    except LabelStudioError as error:
        return _note_problem(parts, project, Reconciled(problem=_describe_refusal(project, error)))
    log.info(
        "reconcile project=%d fetched=%d changed=%d deleted=%d deleted_tasks=%d seconds=%.2f",
        project.project_id,
        reconciled.fetched_tasks,
        reconciled.changed_annotations,
        reconciled.deleted_annotations,
        reconciled.deleted_tasks,
        time.monotonic() - began,
    )
    return _note_problem(parts, project, reconciled)


def _describe_refusal(project: Project, error: LabelStudioError) -> str:
    if isinstance(error, LabelStudioRefusedError) and error.status == STATUS_NOT_FOUND:
        return (
            f"Label Studio has no project {project.project_id}: it was deleted there, or this credential may"
            f" not see it. `brushloop forget {project.project_id}` removes what is kept of it here"
        )
    return f"Label Studio could not be asked what changed: {error}"


def _note_problem(parts: Parts, project: Project, found: Reconciled) -> Reconciled:
    """Have the status say what does not work while it lasts, and the log when it begins and ends."""
    with parts.database.write() as connection:
        if find_project(connection, project.project_id) is None:
            return found
        is_news = health.note_trouble(
            connection, project.project_id, health.UNREACHED, found.problem, parts.clock()
        )
        if not found.problem and not predictions.count_due_pushes(connection, project.project_id, math.inf):
            # Nothing is left that another push could show to work again.
            health.note_trouble(connection, project.project_id, "push", None, parts.clock())
        if not predictions.has_failed_open(connection, project.project_id):
            health.note_trouble(connection, project.project_id, health.UNANSWERED, None, parts.clock())
        if is_news and not found.problem:
            # What kept Label Studio from answering may have kept its images away: their pauses are over too.
            tasks.hasten_failed(connection, project.project_id, parts.clock())
            predictions.hasten_pushes(connection, project.project_id, parts.clock(), failed=True)
            if reviews.get_review(connection, project.project_id).keep_retry_at is not None:
                reviews.update_review(connection, project.project_id, keep_retry_at=None)
    if is_news and found.problem:
        log.warning("skip_reconcile project=%d cause=%s", project.project_id, found.problem)
    elif is_news:
        log.info("resume_reconcile project=%d", project.project_id)
    return found


def _is_listing_due(project: Project, parts: Parts, now: float) -> bool:
    return has_passed(project.reconciled_at, parts.settings.reconcile_every_s, now)


def _reconcile(
    parts: Parts, project: Project, server: LabelStudio, listed_at: float, painted_only: bool
) -> Reconciled:
    record = server.get_project(project.project_id)
    webhook_key = _ask_webhook_key(server, project.project_id)
    with parts.database.write() as connection:
        created_s = int(record.created_at) if record.created_at.isdigit() else None
        confirmed = confirm_project(connection, project.project_id, created_s)
        if confirmed is None:
            problem = describe_other(project, project.project_id, created_s)
            update_project(connection, project.project_id, last_error=problem)
            return Reconciled(problem=problem)
        if webhook_key is not None:
            update_project(connection, project.project_id, webhook_key=webhook_key)
        set_label_config(connection, confirmed, record.label_config, listed_at)
        update_project(connection, project.project_id, title=record.title)
        if models.has_forgotten(connection, project.project_id, record.model_version):
            tell_again(connection, project.project_id, parts.clock(), "older_database")
        painted_only = painted_only and record.n_tasks == tasks.count_tasks(connection, project.project_id)
        if not painted_only:
            update_project(connection, project.project_id, reconciled_at=listed_at)
        painted = annotation_rows.live_ids(connection, project.project_id).keys() if painted_only else None
    if painted is None:
        summaries = list(server.iter_task_summaries(project.project_id))
    else:
        summaries = list(server.iter_painted_summaries(project.project_id, painted))
    _note_tasks(parts, project, summaries, listed_at, confirmed.truth_seq)
    note_where_gone_back(parts, project, summaries)
    changed = _find_changed(parts, project, summaries)
    n_changed = n_deleted = 0
    for summary in changed:
        more_changed, more_deleted = _refresh(parts, project, server, summary, confirmed.truth_seq)
        n_changed, n_deleted = n_changed + more_changed, n_deleted + more_deleted
    if painted is None and len(summaries) < (record.n_tasks or 0):
        problem = (
            f"Label Studio listed {len(summaries)} of {record.n_tasks} tasks; nothing is dropped for that"
        )
        return Reconciled(len(changed), n_changed, n_deleted, problem=problem)
    n_gone = _drop_gone_tasks(parts, project, summaries, listed_at, painted)
    return Reconciled(len(changed), n_changed, n_deleted, n_gone)


def _ask_webhook_key(server: LabelStudio, project_id: int) -> str | None:
    """What the project's webhook brings; None where this credential may not read webhooks."""
    try:
        return server.get_webhook_key(project_id)
    except LabelStudioRefusedError:
        return None


def _note_tasks(
    parts: Parts, project: Project, summaries: Sequence[TaskSummary], listed_at: float, listed_seq: int
) -> None:
    """Remember tasks that are new here or have another image, and those that are listed again."""
    told = {summary.task_id: json.dumps(dict(summary.data)) for summary in summaries if summary.data}
    with parts.database.read() as connection:
        stamps = tasks.reconciled_stamps(connection, project.project_id)
        others = set(task_data.find_other_data(connection, project.project_id, told))
    unknown = [one for one in summaries if one.task_id not in stamps or one.task_id in others]
    for start in range(0, len(unknown), LISTING_CHUNK):
        chunk = unknown[start : start + LISTING_CHUNK]
        with parts.database.write() as connection:
            ids = [summary.task_id for summary in chunk]
            gone = tasks.find_deleted(connection, project.project_id, ids, after_seq=listed_seq)
            living = [(summary.task_id, summary.data) for summary in chunk if summary.task_id not in gone]
            returned = tasks.find_deleted(connection, project.project_id, ids) - gone
            task_data.remember_tasks(connection, project.project_id, living, listed_at)
            # What was due when they went is not known any more: both sides are compared.
            predictions.enqueue_pushes(
                connection, project.project_id, sorted(returned), parts.clock(), is_open=False
            )


def _find_changed(parts: Parts, project: Project, summaries: Sequence[TaskSummary]) -> list[TaskSummary]:
    with parts.database.read() as connection:
        stamps = tasks.reconciled_stamps(connection, project.project_id)
        living = annotation_rows.live_ids(connection, project.project_id)
    changed = []
    for summary in summaries:
        stamp, _ = stamps.get(summary.task_id, (None, 0.0))
        here = living.get(summary.task_id, set())
        is_blank = not here and not summary.annotation_ids
        if not is_blank and (stamp != summary.updated_at or here != set(summary.annotation_ids)):
            changed.append(summary)
    return changed


def _refresh(
    parts: Parts, project: Project, server: LabelStudio, summary: TaskSummary, listed_seq: int
) -> tuple[int, int]:
    """Fetch one task and take over its annotations; how many changed, and how many were deleted."""
    asked_at = parts.clock()
    with parts.database.read() as connection:
        # Before the question: what webhooks tell while the answer is on its way is newer than it.
        current = find_project(connection, project.project_id)
    asked_seq = current.truth_seq if current else 0
    try:
        task = server.get_task(summary.task_id)
    except LabelStudioRefusedError as error:
        if error.status != STATUS_NOT_FOUND:
            raise
        return 0, 0  # deleted since it was listed, or a strange answer: the next listings will tell
    packed = [annotation_rows.pack(record) for record in task.annotations]
    with parts.database.write() as connection:
        current = find_project(connection, project.project_id)
        if current is None or tasks.find_deleted(
            connection, project.project_id, [task.task_id], after_seq=listed_seq
        ):
            return 0, 0
        return _take_over(connection, project, task, packed, asked_at, asked_seq, parts.clock())


def _take_over(
    connection: Connection,
    project: Project,
    task: TaskRecord,
    packed: Sequence[PackedAnnotation],
    asked_at: float,
    asked_seq: int,
    now: float,
) -> tuple[int, int]:
    living = annotation_rows.live_ids_of_task(connection, project.project_id, task.task_id)
    listed = {annotation.annotation_id for annotation in packed}
    task_data.remember_tasks(connection, project.project_id, [(task.task_id, task.data)], asked_at)
    seq = next_seq(connection, project.project_id, now)
    n_changed = n_deleted = 0
    for annotation in packed:
        touched = annotation_rows.save(
            connection, project.project_id, annotation, seq, now, listed_seq=asked_seq
        )
        n_changed += bool(touched)
        for task_id in touched - {task.task_id}:  # its number was another task's before
            tasks.touch_task(connection, project.project_id, task_id, seq)
    for annotation_id, known_seq in living.items():
        # One that a webhook brought after the question cannot be in the answer: it is not gone.
        if annotation_id not in listed and known_seq <= asked_seq:
            annotation_rows.delete(connection, project.project_id, annotation_id, seq, now)
            n_deleted += 1
    if n_changed or n_deleted:
        tasks.touch_task(connection, project.project_id, task.task_id, seq)
    tasks.set_reconciled(connection, project.project_id, task.task_id, task.updated_at)
    return n_changed, n_deleted


def _drop_gone_tasks(
    parts: Parts,
    project: Project,
    summaries: Sequence[TaskSummary],
    listed_at: float,
    asked: Collection[int] | None,
) -> int:
    """Drop what several listings left out: of the tasks that were `asked` about, or of all.

    One listing proves nothing: a server that is being restored lists nothing, and says that it is well.
    """
    listed = {summary.task_id for summary in summaries}
    now = parts.clock()
    with parts.database.write() as connection:
        stamps = tasks.reconciled_stamps(connection, project.project_id)
        left_out = [
            task_id
            for task_id, (_, seen_at) in stamps.items()
            if task_id not in listed
            and not listed_at <= seen_at <= now
            and (asked is None or task_id in asked)
        ]
        # A server that lists nothing at all is more likely broken than empty.
        doubt_s = DOUBT_ALL_S if len(left_out) == len(stamps) else DOUBT_S
        gone = tasks.note_left_out(connection, project.project_id, left_out, listed, now, doubt_s)
        if gone:
            tasks.delete_tasks(connection, project.project_id, gone, now)
    return len(gone)
