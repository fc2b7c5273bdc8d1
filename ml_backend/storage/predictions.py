"""What was answered: predictions per task and model version, the regions in them, pushes that are owed."""

from __future__ import annotations

import json
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy import Connection

from ml_backend.ports import SentRegion
from ml_backend.storage import tables
from ml_backend.storage.upserts import insert_or_ignore, insert_or_replace


@dataclass(frozen=True)
class RankedTask:
    """One task as the current model sees it. `score`: low = look here first; `regions` is JSON."""

    task_id: int
    score: float | None
    regions: str


def find_prediction(
    connection: Connection, project_id: int, task_id: int, model_version: str, fingerprint: str
) -> dict[str, Any] | None:
    p = tables.predictions.c
    query = sa.select(p.payload).where(
        p.project_id == project_id,
        p.task_id == task_id,
        p.model_version == model_version,
        p.fingerprint == fingerprint,
    )
    payload = connection.execute(query).scalar_one_or_none()
    return _unpack(payload) if payload is not None else None


def save_prediction(
    connection: Connection,
    project_id: int,
    task_id: int,
    fingerprint: str,
    prediction: Mapping[str, Any],
    regions: Sequence[Mapping[str, Any]],
    now: float,
) -> None:
    row = {
        "project_id": project_id,
        "task_id": task_id,
        "model_version": prediction["model_version"],
        "fingerprint": fingerprint,
        "score": prediction.get("score"),
        "payload": zlib.compress(json.dumps(prediction, separators=(",", ":")).encode(), 1),
        "regions": json.dumps(list(regions)),
        "created_at": now,
    }
    p = tables.predictions.c
    older = sa.and_(p.project_id == project_id, p.task_id == task_id, p.model_version != row["model_version"])
    connection.execute(sa.delete(tables.predictions).where(older))  # one per task is enough, and bounded
    insert_or_replace(connection, tables.predictions, [row])


def save_sent(
    connection: Connection, project_id: int, task_id: int, regions: Iterable[SentRegion], now: float
) -> None:
    """Keep what was sent: the difference to it is what a correction teaches."""
    rows = [
        {
            "project_id": project_id,
            "task_id": task_id,
            "region_id": region.region_id,
            "model_version": region.model_version,
            "class_name": region.class_name,
            "top": region.top,
            "left": region.left,
            "height": region.mask.shape[0],
            "width": region.mask.shape[1],
            "mask": zlib.compress(np.packbits(region.mask).tobytes()),
            "sent_at": now,
        }
        for region in regions
    ]
    insert_or_ignore(connection, tables.sent_regions, rows)


def list_sent(
    connection: Connection,
    project_id: int,
    task_id: int,
    region_ids: Collection[str] | None = None,
    versions: Collection[str] = (),
) -> list[SentRegion]:
    """Regions that were sent for the task, oldest first.

    With `region_ids`, those of `versions` and of every version that sent one of the ids: of a task that is
    looked at in each round there would be more and more.
    """
    s = tables.sent_regions.c
    query = sa.select(tables.sent_regions).where(s.project_id == project_id, s.task_id == task_id)
    if region_ids is not None:
        named = query.with_only_columns(s.model_version).where(s.region_id.in_(list(region_ids)))
        wanted = {*versions, *connection.execute(named).scalars()}
        query = query.where(s.model_version.in_(wanted))
    found = []
    for row in connection.execute(query.order_by(s.sent_at)):
        bits = np.frombuffer(zlib.decompress(row.mask), np.uint8)
        mask = np.unpackbits(bits, count=row.height * row.width).reshape(row.height, row.width).astype(bool)
        found.append(SentRegion(row.region_id, row.class_name, row.model_version, row.top, row.left, mask))
    return found


def rank_tasks(
    connection: Connection, project_id: int, model_version: str | None, limit: int
) -> list[RankedTask]:
    """The tasks that the model looked at, least sure first."""
    p = tables.predictions.c
    query = sa.select(p.task_id, p.score, p.regions).where(
        p.project_id == project_id, p.model_version == model_version
    )
    rows = connection.execute(query.order_by(p.score.is_(None), p.score, p.task_id).limit(limit))
    return [RankedTask(row.task_id, row.score, row.regions) for row in rows]


def count_scored(connection: Connection, project_id: int, model_version: str | None) -> tuple[int, int]:
    """How many tasks the current model looked at, and how many only an older one."""
    p = tables.predictions.c
    scored = sa.select(sa.func.count()).where(p.project_id == project_id, p.model_version == model_version)
    ever = sa.select(sa.func.count(sa.distinct(p.task_id))).where(p.project_id == project_id)
    n_scored = int(connection.execute(scored).scalar_one())
    return n_scored, int(connection.execute(ever).scalar_one()) - n_scored


def owe_pushes(connection: Connection, project_id: int, task_ids: Sequence[int], now: float) -> None:
    """Note tasks that were answered with an empty list for want of time."""
    rows = [
        {"project_id": project_id, "task_id": task_id, "due_at": now, "attempts": 0} for task_id in task_ids
    ]
    insert_or_ignore(connection, tables.pushes, rows)


def list_pushes(connection: Connection, project_id: int, now: float, limit: int) -> list[int]:
    p = tables.pushes.c
    query = (
        sa.select(p.task_id).where(p.project_id == project_id, p.due_at <= now).order_by(p.due_at, p.task_id)
    )
    return list(connection.execute(query.limit(limit)).scalars())


def clear_pushes(connection: Connection, project_id: int, task_ids: Sequence[int]) -> None:
    p = tables.pushes
    connection.execute(sa.delete(p).where(p.c.project_id == project_id, p.c.task_id.in_(task_ids)))


def postpone_pushes(
    connection: Connection, project_id: int, task_ids: Sequence[int], due_at: float, max_attempts: int
) -> None:
    """Try these again later, and give up on those that were tried too often."""
    p = tables.pushes
    owed = sa.and_(p.c.project_id == project_id, p.c.task_id.in_(task_ids))
    connection.execute(sa.update(p).where(owed).values(due_at=due_at, attempts=p.c.attempts + 1))
    connection.execute(sa.delete(p).where(owed, p.c.attempts >= max_attempts))


def _unpack(payload: bytes) -> dict[str, Any]:
    unpacked: dict[str, Any] = json.loads(zlib.decompress(payload))
    return unpacked
