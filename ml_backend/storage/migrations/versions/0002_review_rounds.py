"""Scoring on a budget, and what Label Studio was told of it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002_review_rounds"
down_revision = "0001"
branch_labels = None
depends_on = None

LOTS = 2**31


def upgrade() -> None:
    _extend_tasks()
    op.add_column(
        "pushes", sa.Column("is_open", sa.Boolean(), server_default=sa.text("true"), nullable=False)
    )
    op.add_column("pushes", sa.Column("claimed_by", sa.String(), nullable=True))
    op.add_column("pushes", sa.Column("claimed_until", sa.Float(), nullable=True))
    op.create_index(op.f("ix_pushes_project_id_due_at"), "pushes", ["project_id", "due_at"])
    op.create_table(
        "scorings",
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("task_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("model_version", sa.String(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("claimed_by", sa.String(), nullable=True),
        sa.Column("claimed_until", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.project_id"], name=op.f("fk_scorings_project_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("project_id", "task_id", name=op.f("pk_scorings")),
    )
    op.create_index(op.f("ix_scorings_project_id_position"), "scorings", ["project_id", "position"])
    op.create_table(
        "reviews",
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("planned_version", sa.String(), nullable=True),
        sa.Column("spent_s", sa.Float(), server_default="0", nullable=False),
        sa.Column("score_retry_at", sa.Float(), nullable=True),
        sa.Column("kept_version", sa.String(), nullable=True),
        sa.Column("settled_version", sa.String(), nullable=True),
        sa.Column("keep_retry_at", sa.Float(), nullable=True),
        sa.Column("keep_attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("asked_at", sa.Float(), nullable=True),
        sa.Column("claimed_by", sa.String(), nullable=True),
        sa.Column("claimed_until", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.project_id"], name=op.f("fk_reviews_project_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("project_id", name=op.f("pk_reviews")),
    )


def _extend_tasks() -> None:
    # Not in batch mode: that would copy the table, which is the one that may be large.
    op.add_column("tasks", sa.Column("scored_version", sa.String(), nullable=True))
    op.add_column("tasks", sa.Column("score", sa.Float(), nullable=True))
    op.add_column("tasks", sa.Column("looked_at", sa.Float(), server_default="0", nullable=False))
    op.add_column("tasks", sa.Column("lot", sa.Integer(), server_default="0", nullable=False))
    is_postgres = op.get_bind().dialect.name == "postgresql"
    lot = f"floor(random() * {LOTS})" if is_postgres else f"abs(random() % {LOTS})"
    op.execute(f"UPDATE tasks SET lot = {lot}")
    for column, kept in (("scored_version", "model_version"), ("score", "score"), ("looked_at", "created_at")):
        newest = (
            f"SELECT p.{kept} FROM predictions p WHERE p.project_id = tasks.project_id"
            " AND p.task_id = tasks.task_id ORDER BY p.created_at DESC LIMIT 1"
        )
        op.execute(f"UPDATE tasks SET {column} = ({newest}) WHERE EXISTS ({newest})")
    for columns in (["scored_version", "looked_at"], ["looked_at"], ["score"], ["lot"]):
        name = "_".join(["ix_tasks_project_id_deleted", *columns])
        op.create_index(op.f(name), "tasks", ["project_id", "deleted", *columns])


def downgrade() -> None:
    op.drop_table("reviews")
    op.drop_table("scorings")
    op.drop_index(op.f("ix_pushes_project_id_due_at"), table_name="pushes")
    for column in ("claimed_until", "claimed_by", "is_open"):
        op.drop_column("pushes", column)
    for columns in (["scored_version", "looked_at"], ["looked_at"], ["score"], ["lot"]):
        op.drop_index(op.f("_".join(["ix_tasks_project_id_deleted", *columns])), table_name="tasks")
    for column in ("lot", "looked_at", "score", "scored_version"):
        op.drop_column("tasks", column)
