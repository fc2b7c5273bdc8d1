"""A PostgreSQL that answers what is read and takes nothing: `GET /ready` finds out by writing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError
from stored_rows import open_database

from ml_backend.rounds.troubles import describe
from ml_backend.storage import database as database_module
from ml_backend.storage.database import Database, connect_database

pytestmark = [
    pytest.mark.integration,
    pytest.mark.parametrize("service_backend", ["postgres+redis"], indirect=True),
]

READER = "only_reads"


@pytest.fixture
def owner(service_backend: Any) -> Iterator[Connection]:
    """Somebody who may do everything to a database that is set up."""
    database: Database = open_database(service_backend.data_dir, service_backend.database_url)
    with database.engine.connect() as connection:
        yield connection
    database.close()


def open_with(service_backend: Any, option: str) -> closing[Database]:
    """The same database, as a server with this setting would give it."""
    url = f"{service_backend.database_url}%20-c{option.replace('=', '%3D')}"
    return closing(connect_database(service_backend.data_dir, url))


def find_problem(database: Database) -> str | None:
    try:
        database.check_writable()
    except SQLAlchemyError as error:
        return describe(error)
    return None


def test_a_server_that_became_read_only_is_named(service_backend: Any, owner: Connection) -> None:
    with open_with(service_backend, "default_transaction_read_only=on") as database:
        assert "the server is read-only" in (find_problem(database) or "")
    with open_with(service_backend, "default_transaction_read_only=off") as database:
        assert find_problem(database) is None


def test_a_server_on_which_another_one_holds_the_tables_is_named_until_it_lets_them_go(
    service_backend: Any, owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "PROBE_TIMEOUT_MS", 50)
    with open_with(service_backend, "lock_timeout=0") as database:
        owner.exec_driver_sql("LOCK TABLE installation IN EXCLUSIVE MODE")
        assert "lock timeout" in (find_problem(database) or "")
        owner.rollback()
        assert find_problem(database) is None


def test_a_user_who_may_only_read_is_named(service_backend: Any, owner: Connection) -> None:
    schema = owner.exec_driver_sql("SELECT current_schema()").scalar_one()
    owner.exec_driver_sql(f"CREATE ROLE {READER}")
    owner.exec_driver_sql(f"GRANT USAGE ON SCHEMA {schema} TO {READER}")
    owner.exec_driver_sql(f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {READER}")
    owner.commit()
    try:
        with open_with(service_backend, f"role={READER}") as database:
            with database.read() as connection:
                assert connection.execute(sa.text("SELECT count(*) FROM installation")).scalar_one() == 1
            assert "permission denied" in (find_problem(database) or "")
    finally:
        owner.exec_driver_sql(f"DROP OWNED BY {READER}")
        owner.exec_driver_sql(f"DROP ROLE {READER}")
        owner.commit()


def test_what_was_probed_is_not_changed_and_holds_nobody(service_backend: Any, owner: Connection) -> None:
    with open_with(service_backend, "lock_timeout=0") as database:
        assert find_problem(database) is None
        owner.exec_driver_sql("LOCK TABLE installation IN ACCESS EXCLUSIVE MODE NOWAIT")
        owner.rollback()
        # The short patience of the probe is not that of the next one who gets the connection.
        with database.read() as connection:
            assert connection.execute(sa.text("SHOW lock_timeout")).scalar_one() != "2s"
