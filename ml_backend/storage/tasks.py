"""Tasks as rows: what their image is, and how far their truth is built and settled."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Row

from ml_backend.storage import annotations as annotation_rows
from ml_backend.storage import row_leases, tables
from ml_backend.storage.projects import next_seq
from ml_backend.storage.upserts import insert_or_ignore

_WITHOUT_TERM = (tables.class_counts, tables.pushes, tables.scorings)
"""What goes with a task at once: it is derived or due; all else stays for a term, see `storage.expiry`."""

LONGEST_RETRY_S = 300.0
"""The longest pause before a task is tried again whose image could not be read."""


@dataclass(frozen=True)
class StoredTask:
    """One row. `truth` is the JSON record of what was built up to `built_seq`, or None."""

    task_id: int
    data: Mapping[str, Any]
    truth_seq: int
    built_seq: int
    settled_seq: int
    truth: Mapping[str, Any] | None
    was_postponed: bool = False


def _to_task(row: Row[Any]) -> StoredTask:
    truth = json.loads(row.truth) if row.truth else None
    return StoredTask(
        task_id=row.task_id,
        data=json.loads(row.data),
        truth_seq=row.truth_seq,
        built_seq=row.built_seq,
        settled_seq=row.settled_seq,
        truth=truth,
        was_postponed=row.retry_at is not None,
    )


def _select() -> sa.Select[Any]:
    t = tables.tasks.c
    return sa.select(t.task_id, t.data, t.truth_seq, t.built_seq, t.settled_seq, t.truth, t.retry_at)


def _alive(project_id: int) -> sa.ColumnElement[bool]:
    return sa.and_(tables.tasks.c.project_id == project_id, tables.tasks.c.deleted.is_(False))


def find_task(connection: Connection, project_id: int, task_id: int) -> StoredTask | None:
    row = connection.execute(_select().where(_alive(project_id), tables.tasks.c.task_id == task_id)).first()
    return _to_task(row) if row else None


def list_truth(connection: Connection, project_id: int, least_seq: int = 1) -> list[StoredTask]:
    """All tasks that ever had truth, with 0 all others too; gone ones left out, in the order of ids."""
    t = tables.tasks.c
    query = _select().where(_alive(project_id), t.truth_seq >= least_seq).order_by(t.task_id)
    return [_to_task(row) for row in connection.execute(query)]


def list_unbuilt(connection: Connection, project_id: int, now: float, limit: int) -> list[StoredTask]:
    """Tasks whose truth on disk is older than what people painted, or that are to be tried again now."""
    t = tables.tasks.c
    query = _select().where(
        _alive(project_id),
        sa.or_(t.built_seq < t.truth_seq, row_leases.is_reached(t.retry_at, now, LONGEST_RETRY_S)),
    )
    return [_to_task(row) for row in connection.execute(query.order_by(t.truth_seq).limit(limit))]


def has_unbuilt(connection: Connection, project_id: int, now: float) -> bool:
    return bool(list_unbuilt(connection, project_id, now, 1))


def has_unsettled(connection: Connection, project_id: int, attempted_seq: int) -> bool:
    """Whether something changed that no round accounted for or tried."""
    t = tables.tasks.c
    query = sa.select(t.task_id).where(
        t.project_id == project_id, t.truth_seq > t.settled_seq, t.truth_seq > attempted_seq
    )
    return connection.execute(query.limit(1)).first() is not None


def touch_task(connection: Connection, project_id: int, task_id: int, seq: int) -> None:
    """Note a change of the task's truth."""
    insert_or_ignore(
        connection, tables.tasks, [{"project_id": project_id, "task_id": task_id, "seen_at": 0.0}]
    )
    _update(connection, project_id, task_id, truth_seq=seq, retry_at=None)


def save_truth(
    connection: Connection,
    project_id: int,
    task: StoredTask,
    truth: Mapping[str, Any],
    counts: Sequence[tuple[int, int]],
    findings: Sequence[Mapping[str, Any]],
    retry_at: float | None = None,
) -> None:
    """Store what was built from the task as it was read; `counts` are pixels and objects per class."""
    _update(
        connection,
        project_id,
        task.task_id,
        built_seq=task.truth_seq,
        retry_at=retry_at,
        truth=json.dumps(truth),
        findings=json.dumps(list(findings)) if findings else None,
    )
    counted = tables.class_counts
    connection.execute(
        sa.delete(counted).where(counted.c.project_id == project_id, counted.c.task_id == task.task_id)
    )
    rows = [
        {
            "project_id": project_id,
            "task_id": task.task_id,
            "class_index": i,
            "pixels": pixels,
            "objects": objects,
        }
        for i, (pixels, objects) in enumerate(counts)
        if pixels
    ]
    insert_or_ignore(connection, counted, rows)


def mark_unbuilt(connection: Connection, project_id: int, task_id: int) -> None:
    """What was built from the task is damaged: it is made again from the rows, which did not change."""
    _update(connection, project_id, task_id, built_seq=-1)


def postpone_task(connection: Connection, project_id: int, task_id: int, retry_at: float) -> None:
    """Build this task again later: its image could not be read."""
    _update(connection, project_id, task_id, retry_at=retry_at)


def revive_task(connection: Connection, project_id: int, task: StoredTask, now: float) -> StoredTask:
    """A postponed task can be used after all: count it as a change, so that a round becomes due."""
    seq = next_seq(connection, project_id, now)
    _update(connection, project_id, task.task_id, truth_seq=seq)
    annotation_rows.unsettle(connection, project_id, task.task_id)
    return replace(task, truth_seq=seq)


def settle_task(
    connection: Connection, project_id: int, task: StoredTask, round_number: int, used: Sequence[int]
) -> None:
    """A round accounted for the task as it was built; `used` are the annotations in its training set."""
    _update(connection, project_id, task.task_id, settled_seq=task.built_seq)
    annotation_rows.settle(connection, project_id, task.task_id, task.built_seq, round_number, used)


def settle_deleted(connection: Connection, project_id: int, truth_seq: int) -> None:
    """A round left out the tasks that were gone by `truth_seq`."""
    t = tables.tasks
    gone = sa.and_(t.c.project_id == project_id, t.c.deleted, t.c.truth_seq <= truth_seq)
    connection.execute(sa.update(t).where(gone).values(settled_seq=t.c.truth_seq))


def note_left_out(
    connection: Connection, project_id: int, left_out: Collection[int], listed: Collection[int], now: float,
    doubt_s: float,
) -> list[int]:  # fmt: skip
    """Note which tasks a listing left out; returns those that listings have left out for `doubt_s`."""
    t = tables.tasks
    query = sa.select(t.c.task_id, t.c.missed_at).where(_alive(project_id), t.c.missed_at.is_not(None))
    missed = {row.task_id: row.missed_at for row in connection.execute(query)}
    for task_id in set(missed) & set(listed):
        _update(connection, project_id, task_id, missed_at=None)
    for task_id in set(left_out) - set(missed):
        _update(connection, project_id, task_id, missed_at=now)
    # A moment ahead is of a wrong clock, and here that must not count as long past.
    return [task_id for task_id in left_out if task_id in missed and now - missed[task_id] >= doubt_s]


def delete_tasks(connection: Connection, project_id: int, task_ids: Sequence[int], now: float) -> None:
    """Drop tasks and forget what was painted in them; their rows stay as tombstones.

    What was sent and answered, and what annotations took, is out of sight and stays for a term: should the
    tasks come back, nothing is missing and nothing is counted twice.
    """
    seq = next_seq(connection, project_id, now)
    for task_id in task_ids:
        touch_task(connection, project_id, task_id, seq)
        gone = {"deleted": True, "seen_at": now, "truth": None, "findings": None, "missed_at": None}
        _update(connection, project_id, task_id, **gone)
        for table in _WITHOUT_TERM:
            connection.execute(
                sa.delete(table).where(table.c.project_id == project_id, table.c.task_id == task_id)
            )
        annotation_rows.delete_of_task(connection, project_id, task_id, seq, now)


def sum_counts(connection: Connection, project_id: int) -> dict[int, tuple[int, int]]:
    """Annotated pixels and painted objects per class index, over all tasks."""
    c = tables.class_counts.c
    query = sa.select(c.class_index, sa.func.sum(c.pixels), sa.func.sum(c.objects)).where(
        c.project_id == project_id
    )
    return {
        index: (int(pixels), int(objects))
        for index, pixels, objects in connection.execute(query.group_by(c.class_index))
    }


def list_findings(
    connection: Connection, project_id: int, limit: int
) -> list[tuple[int, list[dict[str, str]]]]:
    """Lint findings per task, newest truth first."""
    t = tables.tasks.c
    query = sa.select(t.task_id, t.findings).where(_alive(project_id), t.findings.is_not(None))
    rows = connection.execute(query.order_by(t.truth_seq.desc(), t.task_id).limit(limit))
    return [(row.task_id, json.loads(row.findings)) for row in rows]


def count_tasks(connection: Connection, project_id: int) -> int:
    return int(
        connection.execute(
            sa.select(sa.func.count()).select_from(tables.tasks).where(_alive(project_id))
        ).scalar_one()
    )


def reconciled_stamps(connection: Connection, project_id: int) -> dict[int, tuple[str | None, float]]:
    """Of each living task: Label Studio's stamp at the last reconciliation, and when it was last seen."""
    t = tables.tasks.c
    query = sa.select(t.task_id, t.ls_updated_at, t.seen_at).where(_alive(project_id))
    return {row.task_id: (row.ls_updated_at, row.seen_at) for row in connection.execute(query)}


def find_deleted(
    connection: Connection, project_id: int, task_ids: Sequence[int], after_seq: int = 0
) -> set[int]:
    """Which of these tasks were deleted, by a change of the truth behind the number `after_seq`."""
    t = tables.tasks.c
    query = sa.select(t.task_id).where(
        t.project_id == project_id, t.deleted, t.truth_seq > after_seq, t.task_id.in_(task_ids)
    )
    return set(connection.execute(query).scalars())


def set_reconciled(connection: Connection, project_id: int, task_id: int, ls_updated_at: str) -> None:
    _update(connection, project_id, task_id, ls_updated_at=ls_updated_at)


def retry_failed(connection: Connection, project_id: int, now: float) -> None:
    """Have the tasks that could not be used tried again at once."""
    failed = sa.select(tables.tasks.c.task_id).where(_alive(project_id), tables.tasks.c.retry_at.is_not(None))
    for task_id in connection.execute(failed).scalars().all():
        touch_task(connection, project_id, task_id, next_seq(connection, project_id, now))
        annotation_rows.unsettle(connection, project_id, task_id)


def hasten_failed(connection: Connection, project_id: int, now: float) -> None:
    """Have the tasks that could not be used tried again now, as what kept them may be over."""
    t = tables.tasks.c
    waiting = sa.and_(_alive(project_id), t.retry_at > now)
    connection.execute(sa.update(tables.tasks).where(waiting).values(retry_at=now))


def _update(connection: Connection, project_id: int, task_id: int, **values: Any) -> None:
    t = tables.tasks
    connection.execute(
        sa.update(t).where(t.c.project_id == project_id, t.c.task_id == task_id).values(**values)
    )
