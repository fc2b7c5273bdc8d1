"""How far a project's review round has come: chosen, scored, ranked, told. One row per project."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from ml_backend.storage import row_leases, tables
from ml_backend.storage.upserts import insert_or_ignore, insert_or_replace


@dataclass(frozen=True)
class Review:
    """One row; all empty before the first model."""

    planned_version: str | None = None
    spent_s: float = 0.0
    score_retry_at: float | None = None
    kept_version: str | None = None
    settled_version: str | None = None
    ranked_version: str | None = None
    keep_retry_at: float | None = None
    keep_attempts: int = 0
    leased_by: str | None = None
    leased_until: float | None = None

    def is_planned(self, version: str, scores_tasks: bool) -> bool:
        """Whether it is settled which tasks the version scores; none where nothing is scored."""
        return self.planned_version == version or not scores_tasks

    def is_ranked(self, version: str, scores_tasks: bool) -> bool:
        """Whether the version's scores are diverse."""
        return self.is_planned(version, scores_tasks) and self.ranked_version == version


_COLUMNS = [tables.reviews.c[field.name] for field in fields(Review)]


def get_review(connection: Connection, project_id: int) -> Review:
    row = connection.execute(sa.select(*_COLUMNS).where(tables.reviews.c.project_id == project_id)).first()
    return Review(*row) if row else Review()


def update_review(connection: Connection, project_id: int, **values: Any) -> None:
    insert_or_replace(connection, tables.reviews, [{"project_id": project_id, **values}])


def add_spent(connection: Connection, project_id: int, seconds: float) -> float:
    """Add to the time that scoring took, over all workers; returns the sum."""
    r = tables.reviews
    added = sa.update(r).where(r.c.project_id == project_id).values(spent_s=r.c.spent_s + seconds)
    return float(connection.execute(added.returning(r.c.spent_s)).scalar_one())


def lease_sync(
    connection: Connection, project_id: int, owner: str, now: float, until: float, gone: set[str]
) -> bool:
    """True for the one that may talk to Label Studio about the project."""
    r = tables.reviews
    # A project has no row before its first review, and an update alone would lease nothing.
    insert_or_ignore(connection, r, [{"project_id": project_id}])
    free = row_leases.is_free(r, now, gone)
    taken = sa.update(r).where(r.c.project_id == project_id, free).values(leased_by=owner, leased_until=until)
    return connection.execute(taken).rowcount == 1


def note_asked(connection: Connection, project_id: int, now: float) -> None:
    """Somebody waits for a prediction."""
    update_review(connection, project_id, asked_at=now)


def last_asked(connection: Connection) -> float:
    """When somebody last waited for a prediction, in any project; 0 for never."""
    return float(connection.execute(sa.select(sa.func.max(tables.reviews.c.asked_at))).scalar_one() or 0.0)
