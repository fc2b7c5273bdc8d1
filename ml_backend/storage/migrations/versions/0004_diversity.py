"""What images look like to the model and which classes it sees in them, and the order that came of it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004_diversity"
down_revision = "0003_effort"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("predictions", sa.Column("embedding", sa.LargeBinary(), nullable=True))
    op.add_column("predictions", sa.Column("classes", sa.Text(), server_default="[]", nullable=False))
    op.add_column("reviews", sa.Column("ranked_version", sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column("reviews", "ranked_version")
    for column in ("classes", "embedding"):
        op.drop_column("predictions", column)
