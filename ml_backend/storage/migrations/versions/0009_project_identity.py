"""Know whether Label Studio itself named a project, and what its webhook has to bring."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009_project_identity"
down_revision = "0008_healing"
branch_labels = None
depends_on = None


def upgrade() -> None:
    confirmed: sa.Column[bool] = sa.Column(
        "is_confirmed", sa.Boolean(), nullable=False, server_default=sa.text("false")
    )
    op.add_column("projects", confirmed)
    op.add_column("projects", sa.Column("webhook_key", sa.Text(), nullable=False, server_default=""))


def downgrade() -> None:
    with op.batch_alter_table("projects") as batch:
        batch.drop_column("webhook_key")
        batch.drop_column("is_confirmed")
