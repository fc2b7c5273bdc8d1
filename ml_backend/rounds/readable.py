"""Have a project answer with a version that can be read, and go back to the live one once it can be again.

The live version is what promotion or rollback chose. Where its files are damaged or gone, the newest version
that can be read stands in for it, and the next round starts from that; where none can, a round is due that
starts from the base weights.
"""

from __future__ import annotations

import logging
from pathlib import Path

from core.errors import CheckpointError
from core.network.checkpoint import load_checkpoint
from ml_backend.parts import Parts
from ml_backend.storage import models
from ml_backend.storage.projects import Project, find_project, update_project

log = logging.getLogger(__name__)


def find_damage(parts: Parts, project: Project, version: str) -> str | None:
    """Why a version cannot be used, or None; its weights are read and compared with their record."""
    with parts.database.read() as connection:
        model = models.find_model(connection, project.project_id, version)
    if model is None:
        return None  # no round made it, so there is nothing to read
    if not model.folder:
        return f"the files of model version {version!r} are not kept any more"
    return _find_damage(parts.artifacts(project).models / model.folder)


def keep_readable(parts: Parts, project: Project) -> Project:
    """Return the project with a current version that can be read, where there is one."""
    if project.current_version is None:
        return project
    live = project.displaced_version or project.current_version
    problem = find_damage(parts, project, live)
    chosen = live if problem is None else _find_substitute(parts, project, live)
    if chosen is None or problem is None:
        displaced = None
    else:
        displaced, problem = live, f"{problem}; {chosen} answers instead"
    noted = (project.current_version, project.displaced_version, project.live_problem)
    if noted == (chosen or live, displaced, problem):
        return project
    return _choose(parts, project, chosen or live, displaced, problem)


def _find_substitute(parts: Parts, project: Project, live: str) -> str | None:
    """The newest other version that can be read."""
    with parts.database.read() as connection:
        versions = [version for version, _ in models.list_versions(connection, project.project_id)]
    return next((v for v in versions if v != live and find_damage(parts, project, v) is None), None)


def _choose(
    parts: Parts, project: Project, version: str, displaced: str | None, problem: str | None
) -> Project:
    with parts.database.write() as connection:
        current = find_project(connection, project.project_id)
        if current is None or current.current_version != project.current_version:
            return current or project  # a promotion or a rollback was faster, and knows better
        update_project(
            connection,
            project.project_id,
            current_version=version,
            displaced_version=displaced,
            live_problem=problem,
        )
        chosen = find_project(connection, project.project_id)
    if problem is None:
        log.info("restore_model project=%d model_version=%s", project.project_id, version)
    else:
        log.warning(
            "replace_model project=%d model_version=%s cause=%s", project.project_id, version, problem
        )
    return chosen or project


def _find_damage(folder: Path) -> str | None:
    try:
        load_checkpoint(folder)
    except CheckpointError as error:
        return str(error)
    return None
