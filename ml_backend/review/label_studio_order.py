"""After a promotion, make Label Studio order the project's tasks by the new model's scores.

Label Studio compares `project.model_version` with the version in the predictions. Where the model is asked
live, that field holds the *title* of the connected backend. So title, answer and field get one name.
Every step looks first and changes what differs: it may be repeated, and stopped anywhere.
"""

from __future__ import annotations

import logging
from typing import Any

from ml_backend.due import LONGEST_PAUSE_S, is_ranking_sent
from ml_backend.errors import LabelStudioError, LabelStudioRefusedError
from ml_backend.parts import Parts
from ml_backend.processes.process_identity import is_gone
from ml_backend.storage import health, models, reviews
from ml_backend.storage.models import UNTRAINED
from ml_backend.storage.projects import Project, get_project

log = logging.getLogger(__name__)

TAB_TITLE = "Review round"
LEASE_S = 300.0
TROUBLE = "sync"
FIRST_PAUSE_S = 5.0
"""Before what Label Studio refused is tried again: twice as long each time."""


def sync_project_order(parts: Parts, project_id: int) -> bool:
    """Set the current version and the review tab in Label Studio; returns whether both are set."""
    if not _lease(parts, project_id):
        return False
    with parts.database.read() as connection:
        project = get_project(connection, project_id)
        ours = models.list_known_versions(connection, project_id)
    version = project.current_version
    problem = None
    if version is not None:
        try:
            _keep(parts, project, version, {*ours, UNTRAINED})
        except LabelStudioError as error:
            problem = error
    _note(parts, project_id, version, problem)
    return problem is None


def describe_tab(version: str) -> dict[str, Any]:
    """The Data Manager's tab: tasks that the version scored, least sure first, painted ones included."""
    looked_at = {
        "filter": "filter:tasks:predictions_model_versions",
        "operator": "contains",
        "type": "String",
        "value": version,
    }
    return {
        "title": TAB_TITLE,
        "ordering": ["tasks:predictions_score"],
        "filters": {"conjunction": "and", "items": [looked_at]},
    }


def _keep(parts: Parts, project: Project, version: str, ours: set[str]) -> None:
    server, project_id = parts.label_studio(project), project.project_id
    try:
        server.name_backend(project_id, ours, version, models.is_ours)
    except LabelStudioRefusedError as error:
        # Label Studio asks the backend before it renames it. Predictions that are pushed count without.
        log.warning("skip_title project=%d cause=%s", project_id, error)
    if server.get_project(project_id).model_version != version:
        server.set_model_version(project_id, version)
    server.keep_tab(project_id, describe_tab(version))


def _lease(parts: Parts, project_id: int) -> bool:
    now = parts.clock()
    with parts.database.write() as connection:
        get_project(connection, project_id)
        owner = reviews.get_review(connection, project_id).leased_by
        gone = {owner} if owner is not None and is_gone(owner) else set()
        return reviews.lease_sync(connection, project_id, parts.owner, now, now + LEASE_S, gone)


def _note(parts: Parts, project_id: int, version: str | None, problem: LabelStudioError | None) -> None:
    now = parts.clock()
    with parts.database.write() as connection:
        review = reviews.get_review(connection, project_id)
        values: dict[str, Any] = {"leased_by": None, "leased_until": None}
        if problem is None:
            is_sent = version is not None and is_ranking_sent(
                connection, project_id, version, parts.settings, now
            )
            settled = version if is_sent else review.settled_version
            values |= {"kept_version": version, "settled_version": settled}
            values |= {"keep_retry_at": None, "keep_attempts": 0}
        else:
            pause_s = min(FIRST_PAUSE_S * 2 ** min(review.keep_attempts, 30), LONGEST_PAUSE_S)
            values |= {"keep_retry_at": now + pause_s, "keep_attempts": review.keep_attempts + 1}
        reviews.update_review(connection, project_id, **values)
        said = f"Label Studio's order could not be updated: {problem}" if problem else None
        health.note_trouble(connection, project_id, TROUBLE, said, now)
    if problem is None:
        log.info("sync_project_order project=%d model_version=%s", project_id, version)
    else:
        log.warning("postpone_sync project=%d cause=%s", project_id, problem)
