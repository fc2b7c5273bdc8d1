"""Alembic's changes of the schema, applied at every start."""
