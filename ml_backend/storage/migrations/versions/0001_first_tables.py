"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "projects",
        sa.Column("project_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("created_s", sa.BigInteger(), nullable=True),
        sa.Column("folder", sa.String(), nullable=False),
        sa.Column("title", sa.Text(), server_default="", nullable=False),
        sa.Column("label_config", sa.Text(), server_default="", nullable=False),
        sa.Column("hostname", sa.Text(), server_default="", nullable=False),
        sa.Column("access_token", sa.Text(), server_default="", nullable=False),
        sa.Column("current_version", sa.String(), nullable=True),
        sa.Column("truth_seq", sa.Integer(), server_default="0", nullable=False),
        sa.Column("attempted_seq", sa.Integer(), server_default="0", nullable=False),
        sa.Column("last_truth_at", sa.Float(), nullable=True),
        sa.Column("train_requested_at", sa.Float(), nullable=True),
        sa.Column("cancel_requested_at", sa.Float(), nullable=True),
        sa.Column("reconciled_at", sa.Float(), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("project_id", name=op.f("pk_projects")),
    )
    op.create_table(
        "annotations",
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("annotation_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("task_id", sa.BigInteger(), nullable=True),
        sa.Column("user_id", sa.BigInteger(), nullable=True),
        sa.Column("updated_at", sa.String(), server_default="", nullable=False),
        sa.Column("was_cancelled", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("deleted", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("result", sa.LargeBinary(), nullable=True),
        sa.Column("received_at", sa.Float(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("settled_round", sa.Integer(), nullable=True),
        sa.Column("trained_round", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["projects.project_id"],
            name=op.f("fk_annotations_project_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("project_id", "annotation_id", name=op.f("pk_annotations")),
    )
    op.create_index(
        op.f("ix_annotations_project_id_task_id"), "annotations", ["project_id", "task_id"], unique=False
    )
    op.create_table(
        "class_counts",
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("task_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("class_index", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("pixels", sa.BigInteger(), nullable=False),
        sa.Column("objects", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["projects.project_id"],
            name=op.f("fk_class_counts_project_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("project_id", "task_id", "class_index", name=op.f("pk_class_counts")),
    )
    op.create_table(
        "models",
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("model_version", sa.String(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("parent", sa.String(), nullable=True),
        sa.Column("draft", sa.Boolean(), nullable=False),
        sa.Column("truth_seq", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("report", sa.Text(), nullable=False),
        sa.Column("folder", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.project_id"], name=op.f("fk_models_project_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("project_id", "model_version", name=op.f("pk_models")),
    )
    op.create_table(
        "predictions",
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("task_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("model_version", sa.String(), nullable=False),
        sa.Column("fingerprint", sa.String(), nullable=False),
        sa.Column("score", sa.Float(), nullable=True),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("regions", sa.Text(), server_default="[]", nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["projects.project_id"],
            name=op.f("fk_predictions_project_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("project_id", "task_id", "model_version", name=op.f("pk_predictions")),
    )
    op.create_index(
        op.f("ix_predictions_project_id_model_version_score"),
        "predictions",
        ["project_id", "model_version", "score"],
        unique=False,
    )
    op.create_table(
        "pushes",
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("task_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("due_at", sa.Float(), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.project_id"], name=op.f("fk_pushes_project_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("project_id", "task_id", name=op.f("pk_pushes")),
    )
    op.create_table(
        "rounds",
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("truth_seq", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.Float(), nullable=False),
        sa.Column("heartbeat_at", sa.Float(), nullable=False),
        sa.Column("finished_at", sa.Float(), nullable=True),
        sa.Column("progress", sa.Float(), server_default="0", nullable=False),
        sa.Column("eta_s", sa.Float(), nullable=True),
        sa.Column("model_version", sa.String(), nullable=True),
        sa.Column("report", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.project_id"], name=op.f("fk_rounds_project_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("project_id", "number", name=op.f("pk_rounds")),
    )
    op.create_index(
        "one_running_round",
        "rounds",
        ["project_id"],
        unique=True,
        sqlite_where=sa.text("state = 'running'"),
        postgresql_where=sa.text("state = 'running'"),
    )
    op.create_table(
        "sent_regions",
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("task_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("region_id", sa.String(), nullable=False),
        sa.Column("model_version", sa.String(), nullable=False),
        sa.Column("class_name", sa.Text(), nullable=False),
        sa.Column("top", sa.Integer(), nullable=False),
        sa.Column("left", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("mask", sa.LargeBinary(), nullable=False),
        sa.Column("sent_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["projects.project_id"],
            name=op.f("fk_sent_regions_project_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint(
            "project_id", "task_id", "region_id", "model_version", name=op.f("pk_sent_regions")
        ),
    )
    op.create_table(
        "tasks",
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("task_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("data", sa.Text(), server_default="{}", nullable=False),
        sa.Column("ls_updated_at", sa.String(), nullable=True),
        sa.Column("deleted", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("seen_at", sa.Float(), nullable=False),
        sa.Column("truth_seq", sa.Integer(), server_default="0", nullable=False),
        sa.Column("built_seq", sa.Integer(), server_default="0", nullable=False),
        sa.Column("settled_seq", sa.Integer(), server_default="0", nullable=False),
        sa.Column("retry_at", sa.Float(), nullable=True),
        sa.Column("truth", sa.Text(), nullable=True),
        sa.Column("findings", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.project_id"], name=op.f("fk_tasks_project_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("project_id", "task_id", name=op.f("pk_tasks")),
    )
    op.create_index(op.f("ix_tasks_project_id_truth_seq"), "tasks", ["project_id", "truth_seq"], unique=False)
    op.create_table(
        "wakeups",
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("sent_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.project_id"], name=op.f("fk_wakeups_project_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("project_id", "kind", name=op.f("pk_wakeups")),
    )


def downgrade() -> None:
    op.drop_table("wakeups")
    op.drop_index(op.f("ix_tasks_project_id_truth_seq"), table_name="tasks")
    op.drop_table("tasks")
    op.drop_table("sent_regions")
    op.drop_index(
        "one_running_round",
        table_name="rounds",
        sqlite_where=sa.text("state = 'running'"),
        postgresql_where=sa.text("state = 'running'"),
    )
    op.drop_table("rounds")
    op.drop_table("pushes")
    op.drop_index(op.f("ix_predictions_project_id_model_version_score"), table_name="predictions")
    op.drop_table("predictions")
    op.drop_table("models")
    op.drop_table("class_counts")
    op.drop_index(op.f("ix_annotations_project_id_task_id"), table_name="annotations")
    op.drop_table("annotations")
    op.drop_table("projects")
