"""What is known of a task's image, and that it is another one than before.

Numbers of tasks are reused: somebody restores an older Label Studio, or gives a task another image. What was
painted counts for the image that is there now.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from ml_backend.storage import annotations as annotation_rows
from ml_backend.storage import predictions, tables
from ml_backend.storage.projects import next_seq
from ml_backend.storage.tasks import touch_task
from ml_backend.storage.upserts import MAX_ROWS, insert_or_ignore, insert_or_replace

NOTHING = "{}"
"""A record that says only that the task exists: what is known of its image stays."""


def remember_tasks(
    connection: Connection, project_id: int, tasks: Iterable[tuple[int, Mapping[str, Any]]], now: float
) -> None:
    """Note that the tasks exist and what their image is; a task that came back is no longer deleted.

    The truth of one that has another image now counts as changed, and what was answered for it is forgotten.
    """
    rows: list[dict[str, Any]] = [
        {
            "project_id": project_id,
            "task_id": task_id,
            "data": json.dumps(dict(data)),
            "deleted": False,
            "seen_at": now,
        }
        for task_id, data in tasks
    ]
    named = [row for row in rows if row["data"] != NOTHING]
    others = find_other_data(connection, project_id, {row["task_id"]: row["data"] for row in named})
    insert_or_replace(connection, tables.tasks, named)
    insert_or_ignore(connection, tables.tasks, [row for row in rows if row["data"] == NOTHING])
    # Label Studio shows what was answered for the image before, until it gets an answer for this one.
    answered = [task_id for task_id in others if _forget_look(connection, project_id, task_id)]
    if answered:
        predictions.enqueue_pushes(connection, project_id, answered, now, is_open=True)
    for task_id in _list_painted(connection, project_id, others):
        touch_task(connection, project_id, task_id, next_seq(connection, project_id, now))
        annotation_rows.unsettle(connection, project_id, task_id)


def find_other_data(connection: Connection, project_id: int, told: Mapping[int, str]) -> list[int]:
    """Of some tasks, those that are known with other data than the JSON that is told."""
    t = tables.tasks.c
    query = sa.select(t.task_id, t.data).where(t.project_id == project_id, t.data != NOTHING)
    ids, others = sorted(told), []
    for start in range(0, len(ids), MAX_ROWS):
        for task_id, data in connection.execute(query.where(t.task_id.in_(ids[start : start + MAX_ROWS]))):
            if data != told[task_id] and json.loads(data) != json.loads(told[task_id]):
                others.append(task_id)
    return others


def _forget_look(connection: Connection, project_id: int, task_id: int) -> bool:
    """Forget what a model saw in the image; returns whether it had answered."""
    p, t = tables.predictions, tables.tasks
    mine = sa.update(t).where(t.c.project_id == project_id, t.c.task_id == task_id)
    connection.execute(mine.values(scored_version=None, score=None))
    dropped = connection.execute(sa.delete(p).where(p.c.project_id == project_id, p.c.task_id == task_id))
    return dropped.rowcount > 0


def _list_painted(connection: Connection, project_id: int, task_ids: Sequence[int]) -> Sequence[int]:
    if not task_ids:
        return []
    t = tables.tasks.c
    query = sa.select(t.task_id).where(
        t.project_id == project_id, t.deleted.is_(False), t.truth_seq > 0, t.task_id.in_(task_ids)
    )
    return connection.execute(query.order_by(t.task_id)).scalars().all()
