"""What annotations took of people, as rows: one per annotation, open until a round has counted it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from ml_backend.storage import tables
from ml_backend.storage.upserts import insert_or_replace


@dataclass(frozen=True)
class OpenEffort:
    """An annotation that no round has counted as it is now; `counted` is what earlier rounds did count."""

    annotation_id: int
    measured: Mapping[str, Any]
    counted: Mapping[str, Any] | None


def find_measured(connection: Connection, project_id: int, task_id: int) -> dict[int, dict[str, Any]]:
    """What is known of the task's annotations."""
    e = tables.efforts.c
    query = sa.select(e.annotation_id, e.measured).where(e.project_id == project_id, e.task_id == task_id)
    return {row.annotation_id: json.loads(row.measured) for row in connection.execute(query)}


def save(
    connection: Connection,
    project_id: int,
    task_id: int,
    seq: int,
    measured: Mapping[int, Mapping[str, Any]],
) -> None:
    """Store what the task's annotations took, as of its truth `seq`; one that is as before stays as it is."""
    # Rewriting an unchanged row would open it again, and the next round would count it twice.
    stored = find_measured(connection, project_id, task_id)
    rows = [
        {
            "project_id": project_id,
            "annotation_id": annotation_id,
            "task_id": task_id,
            "seq": seq,
            "is_open": True,
            "measured": json.dumps(dict(values)),
        }
        for annotation_id, values in measured.items()
        if stored.get(annotation_id) != values
    ]
    insert_or_replace(connection, tables.efforts, rows)


def list_open(connection: Connection, project_id: int, truth_seq: int) -> list[OpenEffort]:
    """What a round over the truth up to `truth_seq` has to count; deleted annotations are left out."""
    e, a = tables.efforts.c, tables.annotation_table.c
    query = (
        sa.select(e.annotation_id, e.measured, e.counted)
        .join(
            tables.annotation_table,
            sa.and_(a.project_id == e.project_id, a.annotation_id == e.annotation_id),
        )
        .where(e.project_id == project_id, e.is_open, e.seq <= truth_seq)
        .where(a.deleted.is_(False), a.was_cancelled.is_(False))
    )
    return [
        OpenEffort(
            row.annotation_id, json.loads(row.measured), json.loads(row.counted) if row.counted else None
        )
        for row in connection.execute(query.order_by(e.annotation_id))
    ]


@dataclass(frozen=True)
class NewestTruth:
    """What the newest change of a task gave: its truth and findings, and what its annotations took."""

    task_id: int
    truth: Mapping[str, Any]
    findings: Sequence[Mapping[str, str]]
    measured: Sequence[Mapping[str, Any]]


def list_newest(connection: Connection, project_id: int, limit: int) -> list[NewestTruth]:
    """The tasks whose truth changed last and was built, newest first."""
    t = tables.tasks.c
    query = (
        sa.select(t.task_id, t.truth, t.findings)
        .where(t.project_id == project_id, t.deleted.is_(False), t.truth.is_not(None))
        .order_by(t.truth_seq.desc(), t.task_id.desc())
        .limit(limit)
    )
    rows = connection.execute(query).all()
    e = tables.efforts.c
    of_tasks = sa.select(e.task_id, e.measured).where(
        e.project_id == project_id, e.task_id.in_([row.task_id for row in rows])
    )
    measured: dict[int, list[dict[str, Any]]] = {row.task_id: [] for row in rows}
    for effort in connection.execute(of_tasks):
        measured[effort.task_id].append(json.loads(effort.measured))
    return [
        NewestTruth(
            row.task_id, json.loads(row.truth), json.loads(row.findings or "[]"), measured[row.task_id]
        )
        for row in rows
    ]


def close(connection: Connection, project_id: int, truth_seq: int) -> None:
    """Note that a round over the truth up to `truth_seq` counted everything open as it is now."""
    e = tables.efforts
    counted = sa.and_(e.c.project_id == project_id, e.c.is_open, e.c.seq <= truth_seq)
    # What was counted is kept beside: of a later edit only the difference counts.
    connection.execute(sa.update(e).where(counted).values(is_open=False, counted=e.c.measured))


def find_newest_version(connection: Connection, project_id: int, task_id: int) -> str | None:
    """The model version whose prediction was made for the task last."""
    p = tables.predictions.c
    query = sa.select(p.model_version).where(p.project_id == project_id, p.task_id == task_id)
    version: str | None = connection.execute(query.order_by(p.created_at.desc()).limit(1)).scalar()
    return version
