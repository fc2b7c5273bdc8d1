"""Ranking: after scoring, near-duplicates get a lower rank and rare classes a higher one.

It is done in the scores that Label Studio sorts by. They are computed from what the model found, in one
transaction with the pushes that they make due, so a ranking may be repeated, and killed anywhere.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from core.asking.diversity import MAX_CANDIDATES, find_rare_classes, spread_out
from ml_backend.due import is_rankable
from ml_backend.label_studio.label_config import find_config
from ml_backend.parts import Parts
from ml_backend.storage import candidates, predictions, reviews, tasks
from ml_backend.storage.candidates import Candidate
from ml_backend.storage.projects import Project, find_project

log = logging.getLogger(__name__)

SMALLEST_STEP = 1e-9
"""Scores that differ by less are equal: in floats, 1 - (1 - score) is not exactly the score."""


def rank_pool(parts: Parts, project_id: int) -> int:
    """Make the scores of the current version diverse, once; returns how many changed."""
    now = parts.clock()
    with parts.database.write() as connection:
        project = find_project(connection, project_id)
        if project is None or project.current_version is None:
            return 0
        version = project.current_version
        if not is_rankable(connection, project, version, parts.settings, now):
            return 0
        scored = candidates.list_candidates(connection, project_id, version, MAX_CANDIDATES)
        changed = find_changes(scored, _list_rare(connection, project))
        candidates.change_scores(connection, project_id, version, changed)
        predictions.enqueue_pushes(connection, project_id, sorted(changed), now, is_open=False)
        reviews.update_review(connection, project_id, ranked_version=version)
    log.info(
        "rank project=%d model_version=%s tasks=%d changed=%d", project_id, version, len(scored), len(changed)
    )
    return len(changed)


def find_changes(found: Sequence[Candidate], rare: Collection[str]) -> dict[int, float]:
    """New scores by task, only where they differ from Label Studio's; low = look here first.

    Examples
    --------
    >>> scene, other = np.float16([1, 0]), np.float16([0, 1])
    >>> rows = [(7, 0.25, scene), (8, 0.5, scene), (9, 0.75, other)]
    >>> find_changes([Candidate(i, s, s, seen, frozenset()) for i, s, seen in rows], [])
    {8: 0.875}
    """
    # The same order each time, also among equals.
    ordered = sorted(found, key=lambda candidate: (candidate.score, candidate.task_id))
    diverse = 1 - spread_out(
        [1 - candidate.score for candidate in ordered],
        _stack([candidate.embedding for candidate in ordered]),
        [not candidate.classes.isdisjoint(rare) for candidate in ordered],
    )
    new_scores = {
        candidate.task_id: candidate.score if abs(score - candidate.score) < SMALLEST_STEP else float(score)
        for candidate, score in zip(ordered, diverse, strict=True)
    }
    return {c.task_id: new_scores[c.task_id] for c in ordered if new_scores[c.task_id] != c.told}


def _stack(embeddings: Sequence[NDArray[np.float16]]) -> NDArray[np.float16]:
    """`(n, D)`, with zeros where an embedding is not known."""
    length = max((embedding.size for embedding in embeddings), default=0)
    unknown = np.zeros(length, np.float16)
    rows = [embedding if embedding.size == length else unknown for embedding in embeddings]
    return np.array(rows, np.float16).reshape(len(rows), length)


def _list_rare(connection: Connection, project: Project) -> frozenset[str]:
    config, _ = find_config(project.label_config)
    if config is None:
        return frozenset()
    counts = tasks.sum_counts(connection, project.project_id)
    n_objects = {index: objects for index, (_, objects) in counts.items()}
    return frozenset(config.schema.names[index] for index in find_rare_classes(n_objects, config.schema))
