"""What is kept for a term: sent regions, and all that belongs to deleted tasks and annotations.

A server that lists too little once, or is brought back from a backup, may have what it deleted again.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import Connection

from ml_backend.storage import tables

KEPT_S = 30 * 24 * 3600.0
"""So long may a task stay open in a browser, and then be submitted with an older prediction's regions."""


def drop_expired(connection: Connection, project_id: int, now: float) -> None:
    """Forget what is older than its term."""
    drop_sent(connection, project_id, now - KEPT_S)
    _drop_of_deleted(connection, project_id, now - KEPT_S)


def drop_sent(connection: Connection, project_id: int, before: float) -> int:
    """Forget what was sent `before` and nobody painted on since; returns how many regions.

    What Label Studio holds now stays, however old, and so does everything of tasks with annotations: their
    truth is built from it again when they change.
    """
    s, a, p = tables.sent_regions.c, tables.annotation_table.c, tables.predictions.c
    painted = sa.exists().where(a.project_id == s.project_id, a.task_id == s.task_id, a.deleted.is_(False))
    held = sa.exists().where(
        p.project_id == s.project_id, p.task_id == s.task_id, p.model_version == s.model_version
    )
    old = sa.and_(s.project_id == project_id, s.sent_at < before)
    return connection.execute(sa.delete(tables.sent_regions).where(old, ~painted, ~held)).rowcount


def _drop_of_deleted(connection: Connection, project_id: int, before: float) -> None:
    """Forget what belongs to tasks and annotations that were deleted `before`; their tombstones stay."""
    t, a, e = tables.tasks.c, tables.annotation_table.c, tables.efforts.c
    tasks = sa.select(t.task_id).where(t.project_id == project_id, t.deleted, t.seen_at < before)
    for table in (tables.predictions, tables.sent_regions, tables.efforts):
        connection.execute(
            sa.delete(table).where(table.c.project_id == project_id, table.c.task_id.in_(tasks))
        )
    annotations = sa.select(a.annotation_id).where(
        a.project_id == project_id, a.deleted, a.received_at < before
    )
    connection.execute(
        sa.delete(tables.efforts).where(e.project_id == project_id, e.annotation_id.in_(annotations))
    )
