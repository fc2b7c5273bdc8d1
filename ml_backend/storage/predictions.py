"""Predictions per task and model version, and pushes that are due.

A push is due wherever Label Studio may hold something else than what is stored here: an answer came too late
for a call, a task was scored, or Label Studio stored an answer by itself, which it does twice when a task is
opened.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy import Connection

from ml_backend.storage import row_leases, tables
from ml_backend.storage.upserts import insert_or_ignore, insert_or_replace

LONGEST_DELAY_S = 900.0
"""No push is put off for longer: one that seems to be was written by a clock that was wrong."""


@dataclass(frozen=True)
class RankedTask:
    """One task as the current model sees it. `score`: low = look here first; `regions` is JSON."""

    task_id: int
    score: float | None
    regions: str


@dataclass(frozen=True)
class DuePush:
    """One row. `is_open`: nothing was computed yet for the task, and somebody asked; `attempts` failed."""

    task_id: int
    is_open: bool
    attempts: int = 0


def find_prediction(
    connection: Connection, project_id: int, task_id: int, model_version: str, fingerprint: str
) -> dict[str, Any] | None:
    p = tables.predictions.c
    query = sa.select(p.payload, p.score).where(
        p.project_id == project_id,
        p.task_id == task_id,
        p.model_version == model_version,
        p.fingerprint == fingerprint,
    )
    row = connection.execute(query).first()
    return _unpack(row.payload, row.score) if row is not None else None


def save_prediction(
    connection: Connection,
    project_id: int,
    task_id: int,
    fingerprint: str,
    prediction: Mapping[str, Any],
    regions: Sequence[Mapping[str, Any]],
    now: float,
    embedding: NDArray[np.float16] | None = None,
    classes: Sequence[str] = (),
) -> None:
    """Keep an answer, and for the ranking what the image looks like and which classes are in it."""
    row = {
        "project_id": project_id,
        "task_id": task_id,
        "model_version": prediction["model_version"],
        "fingerprint": fingerprint,
        "score": prediction.get("score"),
        "payload": zlib.compress(json.dumps(prediction, separators=(",", ":")).encode(), 1),
        "regions": json.dumps(list(regions)),
        # Little-endian on every machine that shares the database.
        "embedding": None if embedding is None else embedding.astype("<f2").tobytes(),
        "classes": json.dumps(list(classes)),
        "created_at": now,
    }
    p = tables.predictions.c
    older = sa.and_(p.project_id == project_id, p.task_id == task_id, p.model_version != row["model_version"])
    connection.execute(sa.delete(tables.predictions).where(older))  # one per task is enough, and bounded
    insert_or_replace(connection, tables.predictions, [row])
    t = tables.tasks
    looked = sa.update(t).where(t.c.project_id == project_id, t.c.task_id == task_id)
    connection.execute(looked.values(scored_version=row["model_version"], score=row["score"], looked_at=now))


def find_stored(connection: Connection, project_id: int, task_id: int) -> dict[str, Any] | None:
    """The newest answer for the task, of whatever version."""
    p = tables.predictions.c
    query = sa.select(p.payload, p.score).where(p.project_id == project_id, p.task_id == task_id)
    row = connection.execute(query.order_by(p.created_at.desc()).limit(1)).first()
    return _unpack(row.payload, row.score) if row is not None else None


def list_answered(connection: Connection, project_id: int) -> list[int]:
    """The living tasks that an answer is stored for."""
    p, t = tables.predictions.c, tables.tasks.c
    is_gone = sa.exists().where(t.project_id == p.project_id, t.task_id == p.task_id, t.deleted)
    query = sa.select(p.task_id).where(p.project_id == project_id, ~is_gone)
    return list(connection.execute(query.distinct()).scalars())


def rank_tasks(
    connection: Connection, project_id: int, model_version: str | None, limit: int
) -> list[RankedTask]:
    """The tasks that the model scored, least sure first."""
    p, t = tables.predictions.c, tables.tasks.c
    is_gone = sa.exists().where(t.project_id == p.project_id, t.task_id == p.task_id, t.deleted)
    # Ordered as the index is, so that the first ones are read and no others.
    query = sa.select(p.task_id, p.score, p.regions).where(
        p.project_id == project_id, p.model_version == model_version, p.score.is_not(None), ~is_gone
    )
    rows = connection.execute(query.order_by(p.score).limit(limit))
    return [RankedTask(row.task_id, row.score, row.regions) for row in rows]


def count_scored(connection: Connection, project_id: int, model_version: str | None) -> tuple[int, int]:
    """How many tasks the current model scored, and how many only another one."""
    t = tables.tasks.c
    looked = sa.select(sa.func.count()).where(
        t.project_id == project_id, t.deleted.is_(False), t.scored_version.is_not(None)
    )
    n_ever = int(connection.execute(looked).scalar_one())
    n_scored = int(connection.execute(looked.where(t.scored_version == model_version)).scalar_one())
    return n_scored, n_ever - n_scored


def enqueue_pushes(
    connection: Connection, project_id: int, task_ids: Sequence[int], due_at: float, *, is_open: bool
) -> None:
    """Note tasks that Label Studio is to hold one answer for; a row that is there gets due the earlier.

    One that somebody works on is due again after that: what is sent may be older than what is asked for.
    """
    p = tables.pushes
    rows = [
        {"project_id": project_id, "task_id": task_id, "due_at": due_at, "attempts": 0, "is_open": is_open}
        for task_id in task_ids
    ]
    insert_or_ignore(connection, p, rows)
    owed = sa.and_(p.c.project_id == project_id, p.c.task_id.in_(task_ids))
    at_work = p.c.leased_by.is_not(None)
    connection.execute(sa.update(p).where(owed, ~at_work, p.c.due_at > due_at).values(due_at=due_at))
    connection.execute(
        sa.update(p).where(owed, at_work).values(due_at=due_at, attempts=-1 - _count_attempts())
    )
    if is_open:
        connection.execute(sa.update(p).where(owed).values(is_open=True))


def _asked_again() -> sa.ColumnElement[bool]:
    """Whether a push was asked for anew while somebody works on it, who knows nothing of that.

    Then `attempts` is below zero: -1 where there was none before, -2 after one.
    """
    return tables.pushes.c.attempts < 0


def _count_attempts() -> sa.ColumnElement[int]:
    attempts = tables.pushes.c.attempts
    return sa.case((attempts < 0, -1 - attempts), else_=attempts)


def _is_due(now: float) -> sa.ColumnElement[bool]:
    return row_leases.is_reached(tables.pushes.c.due_at, now, LONGEST_DELAY_S)


def hasten_pushes(connection: Connection, project_id: int, now: float, *, failed: bool = False) -> None:
    """What was put off until the next round is due now; or what `failed`, which keeps its pause else."""
    p = tables.pushes
    is_wanted = p.c.attempts > 0 if failed else p.c.attempts == 0
    waiting = sa.and_(p.c.project_id == project_id, p.c.due_at > now, is_wanted)
    connection.execute(sa.update(p).where(waiting).values(due_at=now))


def has_due_push(connection: Connection, project_id: int, now: float, gone: Collection[str] = ()) -> bool:
    """Whether a push waits that nobody is working on."""
    p = tables.pushes
    due = sa.and_(p.c.project_id == project_id, _is_due(now))
    query = sa.select(p.c.task_id).where(due, row_leases.is_free(p, now, gone)).limit(1)
    return connection.execute(query).first() is not None


def has_failed_open(connection: Connection, project_id: int) -> bool:
    """Whether a push waits whose answer could not be computed when it was tried."""
    p = tables.pushes.c
    query = sa.select(p.task_id).where(p.project_id == project_id, p.is_open, p.attempts > 0)
    return connection.execute(query.limit(1)).first() is not None


def count_due_pushes(connection: Connection, project_id: int, now: float) -> int:
    """How many are due, those included that somebody is working on."""
    p = tables.pushes.c
    query = sa.select(sa.func.count()).where(p.project_id == project_id, _is_due(now))
    return int(connection.execute(query).scalar_one())


def lease_pushes(
    connection: Connection, project_id: int, owner: str, now: float, until: float, gone: Collection[str],
    limit: int,
) -> list[DuePush]:  # fmt: skip
    """Take due pushes: two workers that push one task at the same time would store it twice."""
    p = tables.pushes
    query = sa.select(p.c.task_id).where(p.c.project_id == project_id, _is_due(now))
    task_ids = row_leases.lock_free(
        connection, query.order_by(p.c.due_at, p.c.task_id).limit(limit), p, now, gone
    )
    row_leases.lease(connection, p, project_id, task_ids, owner, until)
    mine = _mine(project_id, task_ids, owner)
    connection.execute(sa.update(p).where(mine).values(attempts=_count_attempts()))
    rows = sa.select(p.c.task_id, p.c.is_open, p.c.attempts)
    rows = rows.where(p.c.project_id == project_id, p.c.task_id.in_(task_ids))
    return [DuePush(*row) for row in connection.execute(rows)]


def clear_pushes(connection: Connection, project_id: int, task_ids: Sequence[int], owner: str) -> None:
    """Label Studio holds what it should; what was asked for again meanwhile is still due."""
    p = tables.pushes
    mine = _mine(project_id, task_ids, owner)
    connection.execute(sa.delete(p).where(mine, ~_asked_again()))
    connection.execute(sa.update(p).where(mine).values(attempts=0, leased_by=None, leased_until=None))


def postpone_pushes(
    connection: Connection,
    project_id: int,
    task_ids: Sequence[int],
    owner: str,
    due_at: float,
    max_attempts: int | None,
    *,
    is_failed: bool = False,
) -> None:
    """Try these again later, those that `is_failed` says with one try more, up to `max_attempts`."""
    p, is_failed = tables.pushes, is_failed or max_attempts is not None
    mine = _mine(project_id, task_ids, owner)
    if max_attempts is not None:
        connection.execute(sa.delete(p).where(mine, _count_attempts() + 1 >= max_attempts))
    n_tried = _count_attempts() + int(is_failed)
    later = {"due_at": due_at, "attempts": n_tried, "leased_by": None, "leased_until": None}
    connection.execute(sa.update(p).where(mine).values(**later))


def _mine(project_id: int, task_ids: Collection[int], owner: str) -> sa.ColumnElement[bool]:
    p = tables.pushes.c
    return sa.and_(p.project_id == project_id, p.task_id.in_(task_ids), p.leased_by == owner)


def _unpack(payload: bytes, score: float | None) -> dict[str, Any]:
    """The answer, with the score of its place in the order."""
    unpacked: dict[str, Any] = json.loads(zlib.decompress(payload))
    return unpacked if score is None else {**unpacked, "score": score}
