"""Drafts before a round and continuations after it are rows of their own kind."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010_round_kinds"
down_revision = "0009_project_identity"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("rounds", sa.Column("kind", sa.String(), server_default="round", nullable=False))


def downgrade() -> None:
    op.drop_column("rounds", "kind")
