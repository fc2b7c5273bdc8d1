"""A database of its own for a test, and what only tests read of it."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import Connection

from ml_backend.storage import tables
from ml_backend.storage.database import Database, connect_database, migrate


def open_database(data_dir: Path, database_url: str | None = None) -> Database:
    """Connect, and bring the schema up to date."""
    database = connect_database(data_dir, database_url)
    migrate(database, data_dir)
    return database


def list_trained(connection: Connection, project_id: int) -> dict[int, int]:
    """Annotations of the training set, each with the round that last settled it."""
    a = tables.annotation_table.c
    query = sa.select(a.annotation_id, a.trained_round).where(
        a.project_id == project_id, a.deleted.is_(False), a.trained_round.is_not(None)
    )
    return {row.annotation_id: row.trained_round for row in connection.execute(query)}
