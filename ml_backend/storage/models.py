"""Published models as rows. A version never changes and is never published twice."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from ml_backend.errors import NotFoundError
from ml_backend.moments import to_iso
from ml_backend.storage import tables

UNTRAINED = "untrained"
"""What `/setup` names before the first model; it must never be null."""


@dataclass(frozen=True)
class StoredModel:
    """One row; `folder` is the name of its folder below the project's `models`."""

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


_COLUMNS = [tables.models.c[field.name] for field in fields(StoredModel)]


def add_model(connection: Connection, project_id: int, model: StoredModel) -> None:
    values = {name: getattr(model, name) for name in (field.name for field in fields(model))}
    connection.execute(sa.insert(tables.models).values(project_id=project_id, **values))


def find_model(connection: Connection, project_id: int, model_version: str | None) -> StoredModel | None:
    m = tables.models.c
    query = sa.select(*_COLUMNS).where(m.project_id == project_id, m.model_version == model_version)
    row = connection.execute(query).first()
    return StoredModel(*row) if row else None


def get_model(connection: Connection, project_id: int, model_version: str) -> StoredModel:
    model = find_model(connection, project_id, model_version)
    if model is None:
        raise NotFoundError(f"project {project_id} has no model version {model_version!r}")
    return model


def list_models(connection: Connection, project_id: int) -> list[StoredModel]:
    """Newest first."""
    m = tables.models.c
    query = sa.select(*_COLUMNS).where(m.project_id == project_id).order_by(m.round.desc())
    return [StoredModel(*row) for row in connection.execute(query)]


def set_current(connection: Connection, project_id: int, model_version: str) -> None:
    connection.execute(
        sa.update(tables.projects)
        .where(tables.projects.c.project_id == project_id)
        .values(current_version=model_version)
    )


def to_model(
    model_version: str, number: int, parent: str | None, truth_seq: int, now: float, report: Mapping[str, Any]
) -> StoredModel:
    """The row of a model that a round has just made."""
    draft = bool(report.get("draft", False))
    return StoredModel(
        model_version, number, parent, draft, truth_seq, now, json.dumps(report), model_version
    )
