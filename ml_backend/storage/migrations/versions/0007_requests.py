"""Requests as counters instead of moments, and what an interrupted round met."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007_requests"
down_revision = "0006_leases"
branch_labels = None
depends_on = None

COUNTERS = ("train_requests", "train_answered", "cancel_requests")


def upgrade() -> None:
    for name in COUNTERS:
        op.add_column("projects", sa.Column(name, sa.Integer(), nullable=False, server_default="0"))
    op.execute("UPDATE projects SET train_requests = 1 WHERE train_requested_at IS NOT NULL")
    op.drop_column("projects", "train_requested_at")
    op.drop_column("projects", "cancel_requested_at")
    op.add_column("rounds", sa.Column("requests", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("rounds", sa.Column("trouble", sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column("rounds", "trouble")
    op.drop_column("rounds", "requests")
    op.add_column("projects", sa.Column("cancel_requested_at", sa.Float(), nullable=True))
    op.add_column("projects", sa.Column("train_requested_at", sa.Float(), nullable=True))
    op.execute("UPDATE projects SET train_requested_at = 0 WHERE train_requests > train_answered")
    for name in COUNTERS:
        op.drop_column("projects", name)
