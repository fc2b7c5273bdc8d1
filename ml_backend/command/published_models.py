"""Find a project's model among what an installation has kept, without starting a service."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from core.network.checkpoint import Checkpoint
from export.model_card import MODEL_CARD_FILE, Provenance, write_card
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


@dataclass(frozen=True)
class FoundModel:
    """The folder of a model, and what the database has of it where it was asked."""

    folder: Path
    published: Published | None = None

    def read_card(self, checkpoint: Checkpoint) -> str:
        """The card that was published with it; made from what is known where that is older than cards are."""
        try:
            return (self.folder / MODEL_CARD_FILE).read_text(encoding="utf-8")
        except FileNotFoundError:
            return self._write_card(checkpoint)

    def _write_card(self, checkpoint: Checkpoint) -> str:
        encoder = checkpoint.architecture.get("encoder", "")
        if self.published is None:
            weights = {"network": checkpoint.network_weight}
            weights |= {name: share.weight for name, share in checkpoint.shares.items()}
            report = {
                "draft": checkpoint.is_draft,
                "parent": checkpoint.parent,
                "fingerprint": checkpoint.fingerprint,
                "seed": checkpoint.seed,
                "changed": {"weights": weights},
            }
            return write_card(Provenance(self.folder.name, encoder=encoder), checkpoint.schema, report)
        project, model = self.published.project, self.published.model
        made = model.to_record()["created_at"]
        about = Provenance(model.model_version, project.project_id, model.round, made, encoder)
        return write_card(about, checkpoint.schema, json.loads(model.report))


def find_published(settings: Settings, project_id: int, version: str | None = None) -> Published:
    """Find a version, by default the current one; raises `NotFoundError` that lists those that are kept."""
    from ml_backend.outside import open_outside

    outside = open_outside(settings)
    with closing(outside.database), outside.database.read() as connection:
        project = get_project(connection, project_id)
        kept = [name for name, _ in list_versions(connection, project_id)]
        chosen = version or project.current_version
        if chosen is None:
            raise NotFoundError(f"project {project_id} has no model yet: paint, or start a training")
        if chosen not in kept:
            known = ", ".join(kept) or "none"
            raise NotFoundError(f"project {project_id} keeps no files of {chosen!r}; it keeps {known}")
        model = get_model(connection, project_id, chosen)
    return Published(project, model, outside.artifacts(project).models / model.folder)
