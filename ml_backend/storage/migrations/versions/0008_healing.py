"""Damaged versions, tasks that a listing missed, troubles, workers, and the identity of an installation."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008_healing"
down_revision = "0007_requests"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("projects", sa.Column("displaced_version", sa.String(), nullable=True))
    op.add_column("projects", sa.Column("live_problem", sa.Text(), nullable=True))
    op.add_column("tasks", sa.Column("missed_at", sa.Float(), nullable=True))
    op.create_table(
        "troubles",
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("since", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.project_id"], name=op.f("fk_troubles_project_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("project_id", "kind", name=op.f("pk_troubles")),
    )
    op.create_table(
        "workers",
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("seen_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("owner", name=op.f("pk_workers")),
    )
    op.create_table(
        "installation",
        sa.Column("identity", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("identity", name=op.f("pk_installation")),
    )


def downgrade() -> None:
    op.drop_table("installation")
    op.drop_table("workers")
    op.drop_table("troubles")
    op.drop_column("tasks", "missed_at")
    op.drop_column("projects", "live_problem")
    op.drop_column("projects", "displaced_version")
