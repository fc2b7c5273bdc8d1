"""The model card of a version, laid beside its weights before they are published."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from core.network.checkpoint import RECORD_FILE
from export.model_card import MODEL_CARD_FILE, Provenance, write_card
from ml_backend.moments import to_iso
from ml_backend.rounds.lease import Lease
from ml_backend.training import TrainingSpec


def add_card(spec: TrainingSpec, lease: Lease, version: str, now: float, report: Mapping[str, Any]) -> None:
    """Write the card into the folder that is about to be published; does nothing once that has moved."""
    if not spec.output.is_dir():
        return
    # A network that goes on learning keeps its encoder, whatever the setting says by now.
    record = json.loads((spec.output / RECORD_FILE).read_text(encoding="utf-8"))
    encoder = record["architecture"].get("encoder", "")
    about = Provenance(version, lease.project.project_id, lease.number, to_iso(now), encoder)
    card = write_card(about, spec.schema, report)
    (spec.output / MODEL_CARD_FILE).write_text(card, encoding="utf-8")
