"""A process that waits for another one's migration says so, and goes on when that one is done."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from filelock import FileLock
from stack import wait_until
from stored_rows import open_database

from ml_backend.errors import DatabaseRefusedError
from ml_backend.storage import migration_lock
from ml_backend.storage.database import SQLITE_NAME, Database, connect_database

pytestmark = pytest.mark.integration


@contextmanager
def held(database: Database, folder: Path) -> Iterator[None]:
    """The lock, as a process holds it that was stopped in the middle."""
    if not database.is_postgres:
        with FileLock(folder / f"{SQLITE_NAME}.migration.lock"):
            yield
        return
    with database.engine.connect() as connection:
        connection.execute(sa.select(sa.func.pg_advisory_lock(migration_lock.KEY)))
        connection.commit()
        yield
        connection.invalidate()  # its session ends, as that of a killed process


def test_waiting_for_a_migration_is_told_and_ends_with_it(
    service_backend: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(migration_lock, "TELL_S", 0.2)
    caplog.set_level(logging.WARNING)
    holder = connect_database(service_backend.data_dir, service_backend.database_url)
    opened: list[Database] = []
    waiter = threading.Thread(
        target=lambda: opened.append(open_database(service_backend.data_dir, service_backend.database_url))
    )
    with held(holder, service_backend.data_dir):
        waiter.start()
        wait_until(lambda: "wait_for_migration" in caplog.text, 60, "somebody is told")
        assert not opened
        remedy = "pg_terminate_backend" if holder.is_postgres else "stop every Brushloop of this folder"
        assert remedy in caplog.text
        assert "session None" not in caplog.text
    holder.close()
    waiter.join(60)
    assert opened, "it went on by itself"
    opened[0].check_writable()
    opened[0].close()


def test_what_fails_in_a_migration_is_named_and_the_next_one_may_try(
    service_backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock of a session outlives its transaction: one that failed must not keep it."""

    def broken(connection: sa.Connection, *_: object) -> None:
        connection.exec_driver_sql("SELECT * FROM no_such_table")

    with monkeypatch.context() as patched:
        patched.setattr("ml_backend.storage.database.refuse_lost_database", broken)
        with pytest.raises(DatabaseRefusedError, match="no_such_table"):
            open_database(service_backend.data_dir, service_backend.database_url)
    open_database(service_backend.data_dir, service_backend.database_url).close()
