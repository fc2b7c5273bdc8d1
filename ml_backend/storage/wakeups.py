"""Which jobs are on their way, so that several schedulers do not send the same one again and again."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import Connection

from ml_backend.storage import tables
from ml_backend.storage.upserts import insert_or_ignore


def take(connection: Connection, project_id: int, kind: str, now: float, lost_after_s: float) -> bool:
    """True for the one caller that should send the job; one that nobody answered gets lost."""
    w = tables.wakeups
    # The row has to exist, because the update below is what one caller alone wins.
    insert_or_ignore(connection, w, [{"project_id": project_id, "kind": kind, "sent_at": 0.0}])
    taken = (
        sa.update(w)
        .where(w.c.project_id == project_id, w.c.kind == kind)
        # A moment ahead is of a clock that was wrong, and must not keep the job back until it comes.
        .where(sa.or_(w.c.sent_at < now - lost_after_s, w.c.sent_at > now))
        .values(sent_at=now)
    )
    return connection.execute(taken).rowcount == 1


def delay(connection: Connection, project_id: int, kind: str, sent_at: float) -> None:
    """A job failed: it is due again when it counts as lost, as if it had been sent at that moment."""
    w = tables.wakeups
    insert_or_ignore(connection, w, [{"project_id": project_id, "kind": kind, "sent_at": sent_at}])
    mine = sa.and_(w.c.project_id == project_id, w.c.kind == kind)
    connection.execute(sa.update(w).where(mine).values(sent_at=sent_at))


def clear(connection: Connection, project_id: int | None = None, kind: str | None = None) -> None:
    """The job has arrived; without arguments, forget all that were sent."""
    w = tables.wakeups
    statement = sa.update(w).values(sent_at=0.0)
    if project_id is not None:
        statement = statement.where(w.c.project_id == project_id, w.c.kind == kind)
    connection.execute(statement)
