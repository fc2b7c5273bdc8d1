"""What people must know of the service itself: which workers were seen, and what does not work just now."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import Connection

from ml_backend.storage import tables
from ml_backend.storage.upserts import insert_or_ignore, insert_or_replace

FORGET_WORKER_S = 24 * 3600.0

UNREACHED, UNANSWERED = "reconcile", "open"
"""The kinds of trouble that a project has while Label Studio does not answer what it is asked, and while what
somebody opened there cannot be answered."""


def note_worker(connection: Connection, owner: str, now: float) -> None:
    """A worker is alive; those that have long been silent are forgotten."""
    w = tables.workers
    insert_or_replace(connection, w, [{"owner": owner, "seen_at": now}])
    connection.execute(sa.delete(w).where(w.c.seen_at < now - FORGET_WORKER_S))


def list_workers(connection: Connection) -> list[tuple[str, float]]:
    """Every worker that is remembered, and when it was last seen."""
    w = tables.workers.c
    return [(row.owner, row.seen_at) for row in connection.execute(sa.select(w.owner, w.seen_at))]


def note_trouble(connection: Connection, project_id: int, kind: str, message: str | None, now: float) -> bool:
    """Remember what does not work, or with None that it does again; True when that is news."""
    t = tables.troubles
    mine = sa.and_(t.c.project_id == project_id, t.c.kind == kind)
    noted = connection.execute(sa.select(t.c.message).where(mine)).scalar_one_or_none()
    if message is None:
        connection.execute(sa.delete(t).where(mine))
    elif noted is None:
        row = {"project_id": project_id, "kind": kind, "message": message, "since": now}
        insert_or_ignore(connection, t, [row])
    elif noted != message:
        connection.execute(sa.update(t).where(mine).values(message=message))
    return noted != message


def drop_troubles(connection: Connection, prefix: str) -> None:
    """Forget the troubles whose kind begins so, of all projects: whoever meets them says them anew."""
    t = tables.troubles
    connection.execute(sa.delete(t).where(t.c.kind.startswith(prefix, autoescape=True)))


def has_trouble(connection: Connection, project_id: int, kind: str) -> bool:
    """Whether something of this kind does not work now."""
    t = tables.troubles.c
    return connection.execute(
        sa.select(sa.exists().where(t.project_id == project_id, t.kind == kind))
    ).scalar_one()


def list_troubles(connection: Connection, project_id: int | None = None) -> list[str]:
    """What does not work, oldest first: of one project, or of all."""
    t = tables.troubles.c
    query = sa.select(t.message).order_by(t.since)
    if project_id is not None:
        query = query.where(t.project_id == project_id)
    return list(connection.execute(query).scalars())
