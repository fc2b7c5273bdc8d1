"""Annotations as rows. Recording is idempotent: the newest `updated_at` wins, in whatever order events come.

A deleted annotation leaves a tombstone, so that a late "created" does not bring it back; only a
reconciliation that began after the deletion may.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any

import sqlalchemy as sa
from pydantic_core import to_json
from sqlalchemy import Connection, Row

from ml_backend.ports import AnnotationRecord
from ml_backend.storage import tables
from ml_backend.storage.upserts import insert_or_replace

COMPRESSION_LEVEL = 1
"""The webhook answers in milliseconds; a higher level saves a tenth of the space for three times the time."""


@dataclass(frozen=True)
class AnnotationCounts:
    """Of the annotations that are alive: all, those that the model in use learnt, those that await a round.

    What a round learnt whose model was refused, or after which somebody went back, is in neither.
    """

    received: int
    trained: int
    pending: int


@dataclass(frozen=True)
class _Known:
    task_id: int | None
    updated_at: str
    deleted: bool
    seq: int
    bears_truth: bool


@dataclass(frozen=True)
class PackedAnnotation:
    """An annotation ready to be stored; `result` is zlib of its JSON, or None where nothing is painted."""

    annotation_id: int
    task_id: int
    user_id: int | None
    updated_at: str
    was_cancelled: bool
    result: bytes | None
    lead_time_s: float | None = None
    from_prediction: bool = False
    copied_from: int | None = None


def pack(record: AnnotationRecord) -> PackedAnnotation:
    """Encode an annotation; done before the transaction, in which everybody else waits."""
    blob = None
    if record.result and not record.was_cancelled:
        # Six times as fast as the standard library on the long lists of integers that brush strokes are.
        blob = zlib.compress(to_json(list(record.result)), COMPRESSION_LEVEL)
    return PackedAnnotation(
        record.annotation_id,
        record.task_id,
        record.user_id,
        _sortable(record.updated_at),
        record.was_cancelled,
        blob,
        record.lead_time_s,
        record.from_prediction,
        record.copied_from,
    )


def _sortable(updated_at: str) -> str:
    """Label Studio leaves out the microseconds when they are zero, and then `…24Z` sorts behind `…24.5Z`."""
    try:
        moment = datetime.fromisoformat(updated_at.replace("Z", "+00:00"))
    except ValueError:
        return updated_at
    if moment.tzinfo is None:  # Label Studio's clock is UTC
        moment = moment.replace(tzinfo=timezone.utc)
    return moment.astimezone(timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z")


def save(
    connection: Connection,
    project_id: int,
    packed: PackedAnnotation,
    seq: int,
    now: float,
    *,
    listed_seq: int | None = None,
) -> frozenset[int]:
    """Store an annotation unless a newer or equal one, or a tombstone, is there.

    Returns the tasks whose truth changed: its own, and another one that the same number was known of. Numbers
    are given again after an older Label Studio was restored.

    `listed_seq` is how far the truth was when a reconciliation asked Label Studio: what that lists was alive,
    and is what counts, be it older than what was known before.
    """
    stored = _find(connection, project_id, packed.annotation_id)
    if stored and not _may_replace(stored, packed, listed_seq):
        return frozenset()
    changed = packed.result is not None or (stored is not None and stored.bears_truth)
    columns = asdict(packed)
    del columns["copied_from"]
    row = {
        **columns,
        "from_prediction": _goes_back_to_prediction(connection, project_id, packed),
        "project_id": project_id,
        "deleted": False,
        "received_at": now,
        "seq": seq,
        "settled_round": None if changed else 0,  # nothing painted: no round has to account for it
        "trained_round": None,
    }
    insert_or_replace(connection, tables.annotation_table, [row])
    touched = {packed.task_id} if changed else set()
    if stored and stored.bears_truth and stored.task_id is not None:
        touched.add(stored.task_id)
    return frozenset(touched)


def _goes_back_to_prediction(connection: Connection, project_id: int, packed: PackedAnnotation) -> bool:
    """Whether it started from a prediction, or is a copy of one that did or that nobody here knows."""
    if packed.from_prediction or packed.copied_from is None:
        return packed.from_prediction
    a = tables.annotation_table.c
    query = sa.select(a.task_id, a.from_prediction).where(
        a.project_id == project_id, a.annotation_id == packed.copied_from
    )
    row = connection.execute(query).first()
    return row is None or row.task_id is None or bool(row.from_prediction)


def _may_replace(known: _Known, packed: PackedAnnotation, listed_seq: int | None) -> bool:
    is_asked_since = listed_seq is not None and known.seq <= listed_seq
    if known.deleted or packed.updated_at < known.updated_at:
        return is_asked_since
    return packed.updated_at > known.updated_at


def delete(connection: Connection, project_id: int, annotation_id: int, seq: int, now: float) -> int | None:
    """Leave a tombstone; returns the task whose truth changed by it, if any did."""
    stored = _find(connection, project_id, annotation_id)
    if stored and stored.deleted:
        return None
    tombstone = {
        "project_id": project_id,
        "annotation_id": annotation_id,
        "deleted": True,
        "result": None,
        "received_at": now,
        "seq": seq,
        "settled_round": None,
        "trained_round": None,
    }
    insert_or_replace(connection, tables.annotation_table, [tombstone])
    return stored.task_id if stored and stored.bears_truth else None


def delete_of_task(connection: Connection, project_id: int, task_id: int, seq: int, now: float) -> None:
    connection.execute(
        sa.update(tables.annotation_table)
        .where(*_of_task(project_id, task_id), tables.annotation_table.c.deleted.is_(False))
        .values(deleted=True, result=None, received_at=now, seq=seq, trained_round=None)
    )


def list_living(connection: Connection, project_id: int, task_id: int) -> list[AnnotationRecord]:
    """All annotations of the task that were not cancelled or deleted, the oldest edit first."""
    a = tables.annotation_table.c
    query = sa.select(tables.annotation_table).where(
        *_of_task(project_id, task_id), a.deleted.is_(False), a.was_cancelled.is_(False)
    )
    return [_to_record(row) for row in connection.execute(query.order_by(a.updated_at, a.annotation_id))]


def live_ids(connection: Connection, project_id: int) -> dict[int, set[int]]:
    """The living annotations of each task."""
    a = tables.annotation_table.c
    query = sa.select(a.task_id, a.annotation_id).where(a.project_id == project_id, a.deleted.is_(False))
    found: dict[int, set[int]] = {}
    for task_id, annotation_id in connection.execute(query):
        found.setdefault(task_id, set()).add(annotation_id)
    return found


def live_ids_of_task(connection: Connection, project_id: int, task_id: int) -> dict[int, int]:
    """The task's living annotations, and the number of the truth that each last changed."""
    a = tables.annotation_table.c
    query = sa.select(a.annotation_id, a.seq).where(*_of_task(project_id, task_id), a.deleted.is_(False))
    return {row.annotation_id: row.seq for row in connection.execute(query)}


def settle(
    connection: Connection,
    project_id: int,
    task_id: int,
    built_seq: int,
    round_number: int,
    used: Sequence[int],
) -> None:
    """Note that a round accounted for the task's annotations up to `built_seq`, and trained on `used`."""
    a = tables.annotation_table.c
    trained = sa.case((a.annotation_id.in_(list(used)), round_number), else_=None)
    connection.execute(
        sa.update(tables.annotation_table)
        .where(*_of_task(project_id, task_id), a.deleted.is_(False), a.seq <= built_seq)
        .values(settled_round=round_number, trained_round=trained)
    )


def unsettle(connection: Connection, project_id: int, task_id: int) -> None:
    """Have the next round account for the task's annotations again."""
    a = tables.annotation_table
    connection.execute(
        sa.update(a)
        .where(*_of_task(project_id, task_id), a.c.deleted.is_(False), a.c.result.is_not(None))
        .values(settled_round=None, trained_round=None)
    )


def count(connection: Connection, project_id: int) -> AnnotationCounts:
    a, m, p = tables.annotation_table.c, tables.models.c, tables.projects.c
    in_use = sa.select(p.current_version).where(p.project_id == project_id).scalar_subquery()
    made_in = (
        sa.select(m.round).where(m.project_id == project_id, m.model_version == in_use).scalar_subquery()
    )
    query = sa.select(
        sa.func.count(),
        sa.func.count(sa.case((a.trained_round <= made_in, 1))),
        sa.func.count() - sa.func.count(a.settled_round),
    ).where(a.project_id == project_id, a.deleted.is_(False), a.was_cancelled.is_(False))
    received, trained, pending = connection.execute(query).one()
    return AnnotationCounts(int(received), int(trained), int(pending))


def count_unlearnt(connection: Connection, project_id: int, made_in: int) -> int:
    """Annotations that a later round learnt than the one that made the model in use."""
    a = tables.annotation_table.c
    query = sa.select(sa.func.count()).where(
        a.project_id == project_id, a.deleted.is_(False), a.trained_round > made_in
    )
    return int(connection.execute(query).scalar_one())


def oldest_pending(connection: Connection, project_id: int, now: float) -> float:
    """When the annotation was received that waits longest for a round; `now` when none does."""
    a = tables.annotation_table.c
    query = sa.select(sa.func.min(a.received_at)).where(
        a.project_id == project_id,
        a.deleted.is_(False),
        a.was_cancelled.is_(False),
        a.settled_round.is_(None),
    )
    oldest = connection.execute(query).scalar_one()
    return now if oldest is None else float(oldest)


def _find(connection: Connection, project_id: int, annotation_id: int) -> _Known | None:
    a = tables.annotation_table.c
    query = sa.select(a.task_id, a.updated_at, a.deleted, a.seq, a.result.is_not(None).label("bears_truth"))
    row = connection.execute(
        query.where(a.project_id == project_id, a.annotation_id == annotation_id)
    ).first()
    return _Known(*row) if row else None


def _of_task(project_id: int, task_id: int) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    return tables.annotation_table.c.project_id == project_id, tables.annotation_table.c.task_id == task_id


def _to_record(row: Row[Any]) -> AnnotationRecord:
    result = json.loads(zlib.decompress(row.result)) if row.result else []
    return AnnotationRecord(
        row.annotation_id,
        row.task_id,
        row.user_id,
        row.updated_at,
        row.was_cancelled,
        result,
        row.lead_time_s,
        row.from_prediction,
    )
