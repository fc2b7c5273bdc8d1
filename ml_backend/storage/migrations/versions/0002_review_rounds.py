"""Scoring on a budget, and what Label Studio was told of it."""

from __future__ import annotations

from typing import Any

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
    _fill_in()
    for columns in (["scored_version", "looked_at", "lot"], ["looked_at"], ["score"], ["lot"]):
        name = "_".join(["ix_tasks_project_id_deleted", *columns])
        op.create_index(op.f(name), "tasks", ["project_id", "deleted", *columns])


def _fill_in() -> None:
    """Draw lots for the tasks that are there, and take over what was found when they were looked at."""
    names = ("project_id", "task_id", "scored_version", "score", "looked_at", "lot")
    tasks = sa.table("tasks", *map(sa.column, names))
    kept = sa.table(
        "predictions", *map(sa.column, ("project_id", "task_id", "model_version", "score", "created_at"))
    )
    is_postgres = op.get_bind().dialect.name == "postgresql"
    drawn = sa.func.floor(sa.func.random() * LOTS) if is_postgres else sa.func.abs(sa.func.random() % LOTS)
    op.execute(sa.update(tasks).values(lot=drawn))
    same = sa.and_(kept.c.project_id == tasks.c.project_id, kept.c.task_id == tasks.c.task_id)

    def newest(column: str) -> sa.ScalarSelect[Any]:
        query = sa.select(kept.c[column]).where(same).order_by(kept.c.created_at.desc()).limit(1)
        return query.scalar_subquery()

    filled = {
        "scored_version": newest("model_version"),
        "score": newest("score"),
        "looked_at": newest("created_at"),
    }
    op.execute(sa.update(tasks).where(sa.exists().where(same)).values(**filled))


def downgrade() -> None:
    op.drop_table("reviews")
    op.drop_table("scorings")
    op.drop_index(op.f("ix_pushes_project_id_due_at"), table_name="pushes")
    for column in ("claimed_until", "claimed_by", "is_open"):
        op.drop_column("pushes", column)
    for columns in (["scored_version", "looked_at", "lot"], ["looked_at"], ["score"], ["lot"]):
        op.drop_index(op.f("_".join(["ix_tasks_project_id_deleted", *columns])), table_name="tasks")
    for column in ("lot", "looked_at", "score", "scored_version"):
        op.drop_column("tasks", column)
