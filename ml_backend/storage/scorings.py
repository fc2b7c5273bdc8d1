"""Tasks that were chosen to be scored by a model. A row goes when it was done, tried, or is out of date.

Every query here starts at one end of an index and takes as many rows as are asked for, so its cost does not
grow with the number of tasks.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from ml_backend.storage import row_leases, tables
from ml_backend.storage.upserts import insert_or_ignore


def list_never(connection: Connection, project_id: int, limit: int) -> list[int]:
    """Tasks that no model has scored; those that failed last come last."""
    t = tables.tasks.c
    query = _living(project_id).where(t.scored_version.is_(None)).order_by(t.looked_at, t.lot)
    return list(connection.execute(query.limit(limit)).scalars())


def list_stale(connection: Connection, project_id: int, model_version: str, limit: int) -> list[int]:
    """Tasks that another version scored, the longest ago first."""
    t = tables.tasks.c
    query = _stale(project_id, model_version).where(t.looked_at > 0).order_by(t.looked_at)
    return list(connection.execute(query.limit(limit)).scalars())


def list_unsure(connection: Connection, project_id: int, model_version: str, limit: int) -> list[int]:
    """Tasks that another version was least sure of."""
    t = tables.tasks.c
    query = _stale(project_id, model_version).where(t.score.is_not(None)).order_by(t.score)
    return list(connection.execute(query.limit(limit)).scalars())


def list_random(
    connection: Connection, project_id: int, model_version: str, lot: int, limit: int
) -> list[int]:
    """Tasks from this lot on, then from the first one on; without those that the version has scored."""
    t = tables.tasks.c
    other = sa.or_(t.scored_version.is_(None), t.scored_version != model_version)
    query = _living(project_id).where(other).order_by(t.lot)
    task_ids = list(connection.execute(query.where(t.lot >= lot).limit(limit)).scalars())
    if len(task_ids) < limit:
        task_ids += connection.execute(query.where(t.lot < lot).limit(limit - len(task_ids))).scalars()
    return task_ids


def plan(connection: Connection, project_id: int, model_version: str, task_ids: Sequence[int]) -> None:
    """Choose these tasks, in this order, instead of whatever was chosen before."""
    drop_all(connection, project_id)
    rows = [
        {"project_id": project_id, "task_id": task_id, "model_version": model_version, "position": position}
        for position, task_id in enumerate(task_ids)
    ]
    insert_or_ignore(connection, tables.scorings, rows)


def has_any(connection: Connection, project_id: int) -> bool:
    s = tables.scorings.c
    query = sa.select(s.task_id).where(s.project_id == project_id).limit(1)
    return connection.execute(query).first() is not None


def has_free(connection: Connection, project_id: int, now: float, gone: Collection[str]) -> bool:
    """Whether a task waits that nobody is scoring."""
    s = tables.scorings
    is_free = row_leases.is_free(s, now, gone)
    query = sa.select(s.c.task_id).where(s.c.project_id == project_id, is_free).limit(1)
    return connection.execute(query).first() is not None


def lease_next(
    connection: Connection, project_id: int, model_version: str, owner: str, now: float, until: float,
    gone: Collection[str],
) -> int | None:  # fmt: skip
    """Take the next task for this version; None when all are taken or done."""
    s = tables.scorings
    query = sa.select(s.c.task_id).where(s.c.project_id == project_id, s.c.model_version == model_version)
    task_ids = row_leases.lock_free(connection, query.order_by(s.c.position).limit(1), s, now, gone)
    if not task_ids:
        return None
    row_leases.lease(connection, s, project_id, task_ids, owner, until)
    return task_ids[0]


def give_back(connection: Connection, project_id: int, task_id: int, owner: str) -> None:
    """Leave the task to the next one."""
    given = sa.update(tables.scorings).where(_mine(project_id, task_id, owner))
    connection.execute(given.values(leased_by=None, leased_until=None))


def drop(connection: Connection, project_id: int, task_id: int, owner: str) -> bool:
    """The task was done or tried; False when somebody else had taken it over, or it is no longer wanted."""
    dropped = connection.execute(sa.delete(tables.scorings).where(_mine(project_id, task_id, owner)))
    return dropped.rowcount == 1


def drop_all(connection: Connection, project_id: int) -> None:
    connection.execute(sa.delete(tables.scorings).where(tables.scorings.c.project_id == project_id))


def note_try(connection: Connection, project_id: int, task_id: int, now: float) -> None:
    """The task could not be scored: others are scored before it is tried again."""
    t = tables.tasks
    tried = sa.update(t).where(t.c.project_id == project_id, t.c.task_id == task_id)
    connection.execute(tried.values(looked_at=now))


def _living(project_id: int) -> sa.Select[Any]:
    t = tables.tasks.c
    return sa.select(t.task_id).where(t.project_id == project_id, t.deleted.is_(False))


def _stale(project_id: int, model_version: str) -> sa.Select[Any]:
    t = tables.tasks.c
    return _living(project_id).where(t.scored_version.is_not(None), t.scored_version != model_version)


def _mine(project_id: int, task_id: int, owner: str) -> sa.ColumnElement[bool]:
    s = tables.scorings.c
    return sa.and_(s.project_id == project_id, s.task_id == task_id, s.leased_by == owner)
