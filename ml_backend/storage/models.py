"""Published models as rows. A version never changes and is never published twice."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from ml_backend.errors import NotFoundError
from ml_backend.moments import to_iso
from ml_backend.storage import tables

UNTRAINED = "untrained"
"""What `/setup` names before the first model; it must never be null."""

OUR_NAME = re.compile(r"r(\d{4,})-[0-9a-f]{8}")
"""How rounds name their versions: an older database that was brought back does not know the newest ones."""


def is_ours(model_version: str, known: Collection[str] = ()) -> bool:
    """Whether a version is one of this project's rounds, also when the database has forgotten it.

    >>> [is_ours(version, {"v1"}) for version in ("v1", "r0012-0a1b2c3d", "theirs")]
    [True, True, False]
    """
    return model_version in known or OUR_NAME.fullmatch(model_version) is not None


def round_of(model_version: str) -> int:
    """The number of the round that made a version, 0 for a name of another kind.

    >>> [round_of(version) for version in ("r0012-0a1b2c3d", "theirs")]
    [12, 0]
    """
    named = OUR_NAME.fullmatch(model_version)
    return int(named[1]) if named else 0


@dataclass(frozen=True)
class StoredModel:
    """One row; `folder` is the name of its folder below the project's `models`, empty once it was dropped.

    `report` is that of the round that made it, `{}` once that was dropped too.
    """

    model_version: str
    round: int
    parent: str | None
    draft: bool
    truth_seq: int
    created_at: float
    report: str
    folder: str

    def to_record(self) -> dict[str, Any]:
        report = json.loads(self.report)
        return {
            "model_version": self.model_version,
            "round": self.round,
            "parent": self.parent,
            "draft": self.draft,
            "created_at": to_iso(self.created_at),
            "held_out": report.get("held_out"),
        }


_COLUMNS = [tables.models.c[field.name] for field in fields(StoredModel) if field.name != "report"]


def add_model(connection: Connection, project_id: int, model: StoredModel) -> None:
    """Add the row; its report stays in that of its round, if that has one."""
    values = {name: getattr(model, name) for name in (field.name for field in fields(model))}
    m, r = tables.models.c, tables.rounds.c
    connection.execute(sa.insert(tables.models).values(project_id=project_id, **values))
    is_kept_there = sa.exists().where(
        r.project_id == m.project_id, r.number == m.round, r.report.is_not(None)
    )
    added = sa.and_(m.project_id == project_id, m.model_version == model.model_version)
    connection.execute(sa.update(tables.models).where(added, is_kept_there).values(report=""))


def find_model(connection: Connection, project_id: int, model_version: str | None) -> StoredModel | None:
    m, r = tables.models.c, tables.rounds.c
    of_round = sa.select(r.report).where(r.project_id == m.project_id, r.number == m.round).scalar_subquery()
    report = sa.func.coalesce(sa.func.nullif(m.report, ""), of_round, "{}").label("report")
    query = sa.select(*_COLUMNS, report)
    row = connection.execute(
        query.where(m.project_id == project_id, m.model_version == model_version)
    ).first()
    return StoredModel(**row._mapping) if row else None


def get_model(connection: Connection, project_id: int, model_version: str) -> StoredModel:
    model = find_model(connection, project_id, model_version)
    if model is None:
        raise NotFoundError(f"project {project_id} has no model version {model_version!r}")
    return model


def list_known_versions(connection: Connection, project_id: int) -> set[str]:
    """Every version that a round of the project ever published, also those whose files are gone."""
    m, r = tables.models.c, tables.rounds.c
    published = sa.select(m.model_version).where(m.project_id == project_id)
    made = sa.select(r.model_version).where(r.project_id == project_id, r.model_version.is_not(None))
    return set(connection.execute(sa.union(published, made)).scalars())


def has_forgotten(connection: Connection, project_id: int, model_version: str | None) -> bool:
    """Whether a later round made this version than all that are known: an older database was brought back."""
    number = round_of(model_version or "")
    last = connection.execute(
        sa.select(sa.func.max(tables.rounds.c.number)).where(tables.rounds.c.project_id == project_id)
    ).scalar_one()
    return number > max(last or 0, last_round(connection, project_id))


def list_versions(connection: Connection, project_id: int) -> list[tuple[str, float]]:
    """Versions whose files are kept, and when each was made; newest first."""
    m = tables.models.c
    query = sa.select(m.model_version, m.created_at).where(m.project_id == project_id, m.folder != "")
    return [(row.model_version, row.created_at) for row in connection.execute(query.order_by(m.round.desc()))]


def list_folders(connection: Connection, project_id: int) -> set[str]:
    """Folders that a version still needs."""
    m = tables.models.c
    query = sa.select(m.folder).where(m.project_id == project_id, m.folder != "")
    return set(connection.execute(query).scalars())


def last_round(connection: Connection, project_id: int) -> int:
    """The newest round that made a version here, 0 before the first."""
    m = tables.models.c
    query = sa.select(sa.func.max(m.round)).where(m.project_id == project_id)
    return connection.execute(query).scalar_one() or 0


def drop_old(connection: Connection, project_id: int, n_kept: int) -> list[str]:
    """Let go of the files of all but the newest versions; the rows stay, with their reports.

    The current version and its parent stay, however old: somebody may have gone back to it. Returns the
    versions that were dropped. Their files are removed later, by whoever sweeps.
    """
    m, p = tables.models.c, tables.projects.c
    # Locked: a rollback meanwhile could make a version current whose files are dropped here.
    locked = sa.select(p.current_version).where(p.project_id == project_id).with_for_update()
    current = find_model(connection, project_id, connection.execute(locked).scalar_one())
    displaced = connection.execute(
        sa.select(p.displaced_version).where(p.project_id == project_id)
    ).scalar_one()
    needed = {current.model_version, current.parent, displaced} if current else set()
    rows = [version for version, _ in list_versions(connection, project_id)]
    old = [version for version in rows[n_kept:] if version not in needed]
    dropped = sa.and_(m.project_id == project_id, m.model_version.in_(old))
    connection.execute(sa.update(tables.models).where(dropped).values(folder=""))
    return old


def list_dropped(connection: Connection, project_id: int) -> set[str]:
    """Versions whose files are let go of."""
    m = tables.models.c
    query = sa.select(m.model_version).where(m.project_id == project_id, m.folder == "")
    return set(connection.execute(query).scalars())


def set_current(connection: Connection, project_id: int, model_version: str) -> None:
    connection.execute(
        sa.update(tables.projects)
        .where(tables.projects.c.project_id == project_id)
        # Choosing a version ends the time of one that stood in for damaged files.
        .values(current_version=model_version, displaced_version=None, live_problem=None)
    )


def to_model(
    model_version: str, number: int, parent: str | None, truth_seq: int, now: float, report: Mapping[str, Any]
) -> StoredModel:
    """The row of a model that a round has just made."""
    draft = bool(report.get("draft", False))
    return StoredModel(
        model_version, number, parent, draft, truth_seq, now, json.dumps(report), model_version
    )
