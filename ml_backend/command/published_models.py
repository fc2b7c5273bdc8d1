"""Find a project's model among what an installation has kept, without starting a service."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from ml_backend.config import Settings
from ml_backend.errors import NotFoundError
from ml_backend.storage.models import StoredModel, get_model, list_versions
from ml_backend.storage.projects import Project, get_project


@dataclass(frozen=True)
class Published:
    """A version of a project's model, and where its files are."""

    project: Project
    model: StoredModel
    folder: Path


def find_published(settings: Settings, project_id: int, version: str | None = None) -> Published:
    """Find a version, by default the current one; raises `NotFoundError` that lists those that are kept."""
    from ml_backend.bootstrap import build_parts

    parts = build_parts(settings)
    with closing(parts.database), parts.database.read() as connection:
        project = get_project(connection, project_id)
        kept = [name for name, _ in list_versions(connection, project_id)]
        chosen = version or project.current_version
        if chosen is None:
            raise NotFoundError(f"project {project_id} has no model yet: paint, or start a training")
        if chosen not in kept:
            known = ", ".join(kept) or "none"
            raise NotFoundError(f"project {project_id} keeps no files of {chosen!r}; it keeps {known}")
        model = get_model(connection, project_id, chosen)
    return Published(project, model, parts.artifacts(project).models / model.folder)
