"""What annotations took: lead times, what they started from, and effort per round."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003_effort"
down_revision = "0002_review_rounds"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("annotations", sa.Column("lead_time_s", sa.Float(), nullable=True))
    op.add_column(
        "annotations",
        sa.Column("from_prediction", sa.Boolean(), server_default=sa.text("false"), nullable=False),
    )
    op.create_table(
        "efforts",
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("annotation_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("task_id", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("is_open", sa.Boolean(), nullable=False),
        sa.Column("measured", sa.Text(), nullable=False),
        sa.Column("counted", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.project_id"], name=op.f("fk_efforts_project_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("project_id", "annotation_id", name=op.f("pk_efforts")),
    )
    op.create_index(op.f("ix_efforts_project_id_task_id"), "efforts", ["project_id", "task_id"])
    op.create_index(op.f("ix_efforts_project_id_is_open"), "efforts", ["project_id", "is_open"])


def downgrade() -> None:
    op.drop_table("efforts")
    for column in ("from_prediction", "lead_time_s"):
        op.drop_column("annotations", column)
