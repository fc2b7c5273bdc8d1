"""Leases on rows: one worker at a time works on a row, until it is done, its time is over, or it dies."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Table

from ml_backend.processes.process_identity import is_gone

LONGEST_S = 600.0
"""Nobody leases rows for longer: an end further ahead was set by a clock that was wrong."""


def list_owners(connection: Connection, table: Table, project_id: int, now: float) -> set[str]:
    """Who has leased rows of the project, as many as there are threads at work."""
    leased = sa.and_(table.c.project_id == project_id, table.c.leased_until > now)
    return set(connection.execute(sa.select(table.c.leased_by).where(leased).distinct()).scalars())


def list_gone(connection: Connection, table: Table, project_id: int, now: float) -> set[str]:
    """Those with leases in the project's rows of a table that are known to have ended."""
    return {owner for owner in list_owners(connection, table, project_id, now) if is_gone(owner)}


def is_free(table: Table, now: float, gone: Collection[str]) -> sa.ColumnElement[bool]:
    """Nobody works on the row; `gone` are owners that are known to have ended."""
    until = table.c.leased_until
    return sa.or_(until.is_(None), is_reached(until, now, LONGEST_S), table.c.leased_by.in_(gone))


def is_reached(moment: sa.ColumnElement[float], now: float, longest_s: float) -> sa.ColumnElement[bool]:
    """`ml_backend.moments.is_reached` in SQL; an empty moment is not reached."""
    return sa.or_(moment <= now, moment > now + longest_s)


def lock_free(
    connection: Connection, query: sa.Select[Any], table: Table, now: float, gone: Collection[str]
) -> list[int]:
    """Task ids of the query's first free rows; nobody else gets them before the transaction ends.

    SQLite has one writer at a time; PostgreSQL is asked to pass over rows that another one is taking.
    """
    free = query.where(is_free(table, now, gone)).with_for_update(skip_locked=True)
    return list(connection.execute(free).scalars())


def lease(
    connection: Connection, table: Table, project_id: int, task_ids: Collection[int], owner: str, until: float
) -> None:
    """Write the name into rows that were locked."""
    rows = sa.and_(table.c.project_id == project_id, table.c.task_id.in_(task_ids))
    connection.execute(sa.update(table).where(rows).values(leased_by=owner, leased_until=until))
