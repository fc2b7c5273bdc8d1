"""Rows that a worker works on are leased, as rounds are: one word for one thing."""

from __future__ import annotations

from alembic import op

revision = "0006_leases"
down_revision = "0005_old_sent_regions"
branch_labels = None
depends_on = None

TABLES = ("pushes", "scorings", "reviews")


def upgrade() -> None:
    _rename("claimed", "leased")


def downgrade() -> None:
    _rename("leased", "claimed")


def _rename(old: str, new: str) -> None:
    # Both databases rename a column in place; Alembic would copy SQLite's table for it.
    for table in TABLES:
        for suffix in ("by", "until"):
            op.execute(f"ALTER TABLE {table} RENAME COLUMN {old}_{suffix} TO {new}_{suffix}")
    op.execute("DELETE FROM wakeups")  # some kinds of jobs have other names now; what is due is sent again
