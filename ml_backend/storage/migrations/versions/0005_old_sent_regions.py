"""Find the regions that were sent long ago without reading all of them."""

from __future__ import annotations

from alembic import op

revision = "0005_old_sent_regions"
down_revision = "0004_diversity"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(op.f("ix_sent_regions_project_id_sent_at"), "sent_regions", ["project_id", "sent_at"])


def downgrade() -> None:
    op.drop_index(op.f("ix_sent_regions_project_id_sent_at"), "sent_regions")
