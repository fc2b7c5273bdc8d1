"""The regions that predictions brought along: the difference to them is what a correction teaches."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable

import numpy as np
import sqlalchemy as sa
from sqlalchemy import Connection

from ml_backend.ports import SentRegion
from ml_backend.storage import tables
from ml_backend.storage.upserts import insert_or_ignore


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
        all_versions = {*versions, *connection.execute(named).scalars()}
        query = query.where(s.model_version.in_(all_versions))
    regions = []
    for row in connection.execute(query.order_by(s.sent_at)):
        bits = np.frombuffer(zlib.decompress(row.mask), np.uint8)
        mask = np.unpackbits(bits, count=row.height * row.width).reshape(row.height, row.width).astype(bool)
        regions.append(SentRegion(row.region_id, row.class_name, row.model_version, row.top, row.left, mask))
    return regions
