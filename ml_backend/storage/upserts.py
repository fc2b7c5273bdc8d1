"""`INSERT ... ON CONFLICT`, which both databases speak and SQLAlchemy keeps in two dialects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite

MAX_ROWS = 500
"""Rows in one statement; SQLite counts the parameters of a statement and stops at 32766."""


def insert_or_ignore(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert the rows whose key is not there yet."""
    for start in range(0, len(rows), MAX_ROWS):
        insert = _insert(connection, table).values(rows[start : start + MAX_ROWS])
        connection.execute(insert.on_conflict_do_nothing())


def insert_or_replace(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert the rows; where the key is there already, the named columns are overwritten."""
    keys = [column.name for column in table.primary_key]
    for start in range(0, len(rows), MAX_ROWS):
        insert = _insert(connection, table).values(rows[start : start + MAX_ROWS])
        # Not `insert.excluded`: that builds proxies of all columns each time, which a webhook would pay for.
        named: dict[str, Any] = {
            name: sa.literal_column(f'excluded."{name}"') for name in rows[start] if name not in keys
        }
        connection.execute(insert.on_conflict_do_update(index_elements=keys, set_=named))


def _insert(connection: Connection, table: Table) -> Any:
    return (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(table)
