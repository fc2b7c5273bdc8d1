"""The tasks that a version scored, as the ranking needs them, and the scores that result."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy import Connection

from ml_backend.storage import tables


@dataclass(frozen=True)
class Candidate:
    """A task that a version scored: its score, the score that was sent, and the embedding of its image.

    `embedding` is `(D,)`, or empty where it is not known.
    """

    task_id: int
    score: float
    told: float
    embedding: NDArray[np.float16]
    classes: frozenset[str]


def list_candidates(
    connection: Connection, project_id: int, model_version: str, limit: int
) -> list[Candidate]:
    """The tasks that the version scored, least sure first, as many as `limit`."""
    p, t = tables.predictions.c, tables.tasks.c
    same_task = sa.and_(t.project_id == p.project_id, t.task_id == p.task_id)
    query = (
        sa.select(p.task_id, t.score, p.score.label("told"), p.embedding, p.classes)
        .join_from(tables.predictions, tables.tasks, same_task)
        .where(p.project_id == project_id, p.model_version == model_version, p.score.is_not(None))
        .where(t.scored_version == model_version, t.score.is_not(None), t.deleted.is_(False))
    )
    rows = connection.execute(query.order_by(p.score).limit(limit))
    return [
        Candidate(
            row.task_id,
            row.score,
            row.told,
            np.frombuffer(row.embedding or b"", "<f2"),
            frozenset(json.loads(row.classes)),
        )
        for row in rows
    ]


def change_scores(
    connection: Connection, project_id: int, model_version: str, scores: Mapping[int, float]
) -> None:
    """Have Label Studio, and whoever asks, told another score for these tasks; `enqueue_pushes` sends it."""
    if not scores:
        return
    p = tables.predictions
    of_version = sa.and_(p.c.project_id == project_id, p.c.model_version == model_version)
    changed = sa.update(p).where(of_version, p.c.task_id == sa.bindparam("of_task"))
    rows = [{"of_task": task_id, "told": score} for task_id, score in scores.items()]
    connection.execute(changed.values(score=sa.bindparam("told")), rows)
