"""One database for all processes: SQLite beside the artifacts, or PostgreSQL by `DATABASE_URL`."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, OperationalError, SQLAlchemyError

from ml_backend.errors import DatabaseRefusedError
from ml_backend.storage.installation import identify, refuse_lost_database
from ml_backend.storage.migration_lock import locked_file, locked_server

SQLITE_NAME = "brushloop.sqlite3"
BESIDE = ("-wal", "-shm")
"""Endings of the files in which SQLite keeps what was written last, and where it is."""
BUSY_TIMEOUT_MS = 15_000
"""How long a writer waits for another one; every write here takes milliseconds."""
PROBE_TIMEOUT_MS = 2_000
"""A writer that keeps all others out for longer is in trouble."""
POOL_SIZE, POOL_OVERFLOW = 8, 24
IDLE_TIMEOUT_MS = 60_000
"""A process that was stopped inside a transaction holds the others; then PostgreSQL ends its session."""
CLOCK_LIFE_S = 10.0
"""So often the server is asked for its time; between, this process counts on by itself."""


class Database:
    """Owns the engine. Reads see one moment; writes are one after the other and all or nothing."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._asked_at, self._offset_s = 0.0, None  # type: float, float | None

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees the database as it was at its first query."""
        with self.engine.connect() as connection:
            if self.is_postgres:
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            yield connection
            connection.rollback()

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that may change things; SQLite takes its write lock at the start, not half-way."""
        options = {} if self.is_postgres else {"immediate": True}
        with self.engine.connect() as connection, connection.execution_options(**options).begin():
            yield connection

    def check_writable(self) -> None:
        """Raise `SQLAlchemyError` where nothing can be written: it is locked by another one, or read-only."""
        with self.engine.connect() as connection:
            if self.is_postgres:
                if connection.exec_driver_sql("SHOW transaction_read_only").scalar_one() == "on":
                    raise OperationalError("SHOW", {}, PermissionError("the server is read-only"))
                # A server whose disk is full, or whose rights changed, answers what is read.
                connection.exec_driver_sql(f"SET LOCAL lock_timeout = {PROBE_TIMEOUT_MS}")
                connection.exec_driver_sql("UPDATE installation SET identity = identity")
                connection.rollback()
                return
            connection.exec_driver_sql(f"PRAGMA busy_timeout = {PROBE_TIMEOUT_MS}")
            connection.rollback()
            try:
                with connection.execution_options(immediate=True).begin():
                    # The lock is had also where the file cannot be written to.
                    connection.exec_driver_sql("UPDATE installation SET identity = identity")
            finally:
                connection.exec_driver_sql(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
                connection.rollback()

    def clock(self) -> float:
        """Unix seconds by one clock for all processes: the server's, or that of the machine they share."""
        if not self.is_postgres:
            return time.time()
        if time.monotonic() - self._asked_at > CLOCK_LIFE_S or self._offset_s is None:
            self._ask_clock()
        return time.monotonic() + (self._offset_s or 0.0)

    def _ask_clock(self) -> None:
        self._asked_at = time.monotonic()
        try:
            with self.engine.connect() as connection:
                clock = sa.func.extract("epoch", sa.func.clock_timestamp())
                server_s = float(connection.execute(sa.select(clock)).scalar_one())
            self._offset_s = server_s - time.monotonic()
        except SQLAlchemyError:
            # While the server is away its time goes on as before, or as here where it was never asked.
            if self._offset_s is None:
                self._offset_s = time.time() - time.monotonic()

    @property
    def is_postgres(self) -> bool:
        return self.engine.dialect.name == "postgresql"

    def close(self) -> None:
        self.engine.dispose()


def connect_database(data_dir: Path, database_url: str | None = None) -> Database:
    """Connect to a database as it is."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DatabaseRefusedError(
            f"the data folder {data_dir} cannot be made or is no folder ({error.strerror}): see DATA_DIR"
        ) from None
    return Database(_postgres(database_url) if database_url else _sqlite(data_dir / SQLITE_NAME))


def migrate(database: Database, data_dir: Path) -> None:
    """Bring the schema up to date; several processes may do so at once. What is refused is closed."""
    try:
        _migrate_or_refuse(database, data_dir)
    except DatabaseRefusedError:
        database.close()
        raise


def _migrate_or_refuse(database: Database, data_dir: Path) -> None:
    place = database.engine.url.render_as_string(hide_password=True).removeprefix("sqlite:///")
    try:
        if database.is_postgres:
            with database.engine.connect() as connection, locked_server(connection, BUSY_TIMEOUT_MS):
                _migrate(connection, data_dir, place)
        else:
            lock = data_dir / f"{SQLITE_NAME}.migration.lock"
            with locked_file(lock), database.engine.connect() as connection:
                _check_pages(connection, place)
                _migrate(connection, data_dir, place)
    except CommandError:
        raise DatabaseRefusedError(
            f"the database {place} was written by a newer Brushloop: install that one again, or bring back a"
            " backup from before with `brushloop restore`"
        ) from None
    except (SQLAlchemyError, OSError) as error:
        cause = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise DatabaseRefusedError(
            f"the database {place} cannot be used ({cause}): see that it is there and may be written,"
            " or bring it back with `brushloop restore`"
        ) from None


def _sqlite(path: Path) -> Engine:
    engine = sa.create_engine(f"sqlite:///{path}", pool_size=POOL_SIZE, max_overflow=POOL_OVERFLOW)

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: Any) -> None:
        # The driver must not begin transactions by itself: it would begin them as readers, and a reader that
        # turns into a writer fails at once when somebody else wrote meanwhile.
        connection.isolation_level = None
        for pragma in (
            f"busy_timeout = {BUSY_TIMEOUT_MS}",
            "journal_mode = WAL",
            "synchronous = NORMAL",  # a killed process loses nothing, a power cut what reconciliation finds
            "foreign_keys = ON",
        ):
            connection.execute(f"PRAGMA {pragma}")

    # Of the files at the first transaction. One that lies there later is another database.
    inodes: dict[str, int] = {}

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        try:
            _refuse_other_files(connection, path, inodes)
        except OSError as error:  # whoever waits for a database that is away waits for its folder, too
            raise OperationalError("BEGIN", {}, error) from None
        immediate = connection.get_execution_options().get("immediate", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    return engine


def _refuse_other_files(connection: Connection, path: Path, known: dict[str, int]) -> None:
    """Refuse to write into files whose names are gone: all of it would be lost without a word."""
    for suffix in ("", *BESIDE):
        file = path.with_name(path.name + suffix)
        present = file.stat().st_ino if file.exists() else 0
        if known.setdefault(suffix, present) == present:
            continue
        if not suffix:
            cause = f"the file {file} was removed or replaced: bring it back, and start every process again"
            raise OperationalError("BEGIN", {}, sqlite3.OperationalError(cause))
        if _holds_removed(file):
            _save_log(connection)
            cause = f"the file {file} was removed while it was in use: start every process again"
            raise OperationalError("BEGIN", {}, sqlite3.OperationalError(cause))
        known[suffix] = present  # SQLite makes them and removes them by itself


def _holds_removed(file: Path) -> bool:
    """Whether this process has a file open whose name was taken away; known on Linux alone."""
    removed = f"{file.parent.resolve() / file.name} (deleted)"
    handles = Path("/proc/self/fd")
    for handle in handles.iterdir() if handles.exists() else ():
        with suppress(OSError):  # it was that of this look
            if str(handle.readlink()) == removed:
                return True
    return False


def _save_log(connection: Connection) -> None:
    """Write what the removed log holds into the database: nobody could read it there after this process."""
    with suppress(sqlite3.Error):  # a connection that was made since has another log
        connection.connection.cursor().execute("PRAGMA wal_checkpoint(PASSIVE)")


def _postgres(url: str) -> Engine:
    try:
        parsed = make_url(re.sub(r"^postgres(ql)?://", "postgresql+psycopg://", url))
    except (ArgumentError, ValueError):
        raise DatabaseRefusedError(  # without the address, which holds a password
            "DATABASE_URL cannot be read: write it as postgresql://user:password@host:5432/name,"
            " and signs of the password such as @ or / as %40 or %2F"
        ) from None
    engine = sa.create_engine(parsed, pool_size=POOL_SIZE, max_overflow=POOL_OVERFLOW, pool_pre_ping=True)

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: Any) -> None:
        connection.execute(f"SET lock_timeout = {BUSY_TIMEOUT_MS}")
        connection.execute(f"SET idle_in_transaction_session_timeout = {IDLE_TIMEOUT_MS}")
        connection.commit()

    return engine


def _check_pages(connection: Connection, place: str) -> None:
    """Refuse a file with damaged pages: what looks healthy today is lost tomorrow."""
    (verdict,) = connection.exec_driver_sql("PRAGMA quick_check(1)").one()
    connection.rollback()
    if verdict != "ok":
        raise DatabaseRefusedError(
            f"the database {place} is damaged ({str(verdict).splitlines()[-1]}): bring back a backup with"
            " `brushloop restore`"
        )


def _migrate(connection: Connection, data_dir: Path, place: str) -> None:
    refuse_lost_database(connection, data_dir, place)
    connection.rollback()
    config = Config()
    config.set_main_option("script_location", "ml_backend.storage:migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    identify(connection, data_dir, place)
    connection.commit()
