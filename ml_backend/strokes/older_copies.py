"""A Label Studio or a database that was brought back from a backup: one side holds what the other forgot.

What is painted is as Label Studio says. What the model answered is compared on both sides once more, since
Label Studio may hold predictions, a version and a title from before, or none.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection

from ml_backend.parts import Parts
from ml_backend.ports import TaskSummary
from ml_backend.storage import predictions, reviews, tasks
from ml_backend.storage.projects import Project

log = logging.getLogger(__name__)


def note_where_gone_back(parts: Parts, project: Project, summaries: Sequence[TaskSummary]) -> None:
    """Tell Label Studio anew what counts where a task is listed as it was before it was last asked for."""
    with parts.database.read() as connection:
        stamps = tasks.reconciled_stamps(connection, project.project_id)
    known = {task_id: stamp for task_id, (stamp, _) in stamps.items() if stamp is not None}
    if not any(_is_older(one.updated_at, known.get(one.task_id, "")) for one in summaries):
        return
    with parts.database.write() as connection:
        tell_again(connection, project.project_id, parts.clock(), "older_label_studio")


def tell_again(connection: Connection, project_id: int, now: float, cause: str) -> None:
    """Have Label Studio told anew which version counts, and compare all predictions on both sides."""
    log.warning("tell_again project=%d cause=%s", project_id, cause)
    reviews.update_review(connection, project_id, kept_version=None, settled_version=None)
    answered = predictions.list_answered(connection, project_id)
    predictions.enqueue_pushes(connection, project_id, answered, now, is_open=False)


def _is_older(told: str, known: str) -> bool:
    """Whether a stamp is of an earlier moment; what is no moment is not older."""
    try:
        first, second = (datetime.fromisoformat(text.replace("Z", "+00:00")) for text in (told, known))
    except ValueError:
        return False
    return (first.tzinfo is None) == (second.tzinfo is None) and first < second
