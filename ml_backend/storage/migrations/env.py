"""How Alembic reaches the database: over the connection that `database.py` hands it."""

from __future__ import annotations

from alembic import context

from ml_backend.storage.tables import metadata

connection = context.config.attributes["connection"]
# SQLite changes tables inside a transaction too; Alembic believes it only when told.
context.configure(
    connection=connection, target_metadata=metadata, render_as_batch=True, transactional_ddl=True
)
with context.begin_transaction():
    context.run_migrations()
