"""Label maps are compressed from here on, which earlier versions cannot read; reports are kept once."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012_compressed_truth"
down_revision = "0010_round_kinds"
branch_labels = None
depends_on = None

OF_ROUND = "rounds.project_id = models.project_id AND rounds.number = models.round"


def upgrade() -> None:
    kept_there = f"EXISTS (SELECT 1 FROM rounds WHERE {OF_ROUND} AND rounds.report IS NOT NULL)"  # noqa: S608
    op.execute(sa.text(f"UPDATE models SET report = '' WHERE {kept_there}"))  # noqa: S608


def downgrade() -> None:
    of_round = f"SELECT rounds.report FROM rounds WHERE {OF_ROUND}"  # noqa: S608
    op.execute(sa.text(f"UPDATE models SET report = COALESCE(({of_round}), '{{}}') WHERE report = ''"))  # noqa: S608
    # Truth is built again from the rows, in the form that earlier versions read.
    op.execute(sa.text("UPDATE tasks SET built_seq = -1 WHERE truth IS NOT NULL"))
