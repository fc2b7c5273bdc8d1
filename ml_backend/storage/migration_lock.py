"""One process at a time brings a schema up to date; the others wait, and say for whom."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import sqlalchemy as sa
from filelock import FileLock, Timeout
from sqlalchemy import Connection

log = logging.getLogger(__name__)

KEY = 0x42525553
"""Of PostgreSQL's advisory lock ("BRUS"). Schemas of one database share it."""
POLL_S = 0.1
TELL_S = 10.0
"""So often it is said that this process waits: for as long as the other one's tables are large."""


@contextmanager
def locked_file(path: Path) -> Iterator[None]:
    """Hold the lock in a file, for the database of one machine. Raises `OSError` where it cannot be made."""
    lock, asked = FileLock(path), time.monotonic()
    while True:
        with suppress(Timeout):
            lock.acquire(timeout=TELL_S)
            break
        _tell(asked, f"holds {path}; if none is at work, stop every Brushloop of this folder")
    try:
        yield
    finally:
        lock.release()


@contextmanager
def locked_server(connection: Connection, lock_timeout_ms: int) -> Iterator[None]:
    """Hold PostgreSQL's advisory lock; inside, a statement waits for tables as long as it takes.

    Parameters
    ----------
    connection : Connection
        Outside of a transaction, before and after.
    lock_timeout_ms : int
        What its statements have waited, and wait again.
    """
    asked = told = time.monotonic()
    while not connection.execute(sa.select(sa.func.pg_try_advisory_lock(KEY))).scalar_one():
        if time.monotonic() - told >= TELL_S:
            told = time.monotonic()
            _tell(asked, f"is the server's session {_holder(connection)}; pg_terminate_backend ends it")
        connection.rollback()
        time.sleep(POLL_S)
    connection.execute(sa.text("SET lock_timeout = 0"))
    connection.commit()
    try:
        yield
    finally:
        connection.rollback()  # what failed inside is the caller's to see
        connection.execute(sa.select(sa.func.pg_advisory_unlock(KEY)))
        connection.execute(sa.text(f"SET lock_timeout = {lock_timeout_ms}"))
        connection.commit()


def _holder(connection: Connection) -> int | None:
    held = sa.text(
        "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND objid = :key"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    found: int | None = connection.execute(held, {"key": KEY}).scalar()
    return found


def _tell(asked: float, who: str) -> None:
    cause = f"another process brings the database up to date, and {who}"
    log.warning("wait_for_migration seconds=%d cause=%r", time.monotonic() - asked, cause)
