"""Which events are let in: those of the project's own webhook, about moments that have been."""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence

from ml_backend.errors import PayloadError, UnauthorizedError
from ml_backend.label_studio.payloads import WEBHOOK_KEY_HEADER, WebhookEvent
from ml_backend.moments import to_iso
from ml_backend.storage.annotations import PackedAnnotation
from ml_backend.storage.projects import Project

LONGEST_AHEAD_S = 24 * 3600.0
"""Clocks of two machines differ by less, and time zones were taken out."""

MOMENT = re.compile(r"\d{4}-")


def check_key(known: Project | None, event: WebhookEvent, key: str) -> None:
    """Raise `UnauthorizedError` without the key that the project's webhook brings, once that is known.

    The "Start training" button is no webhook, so it brings no key; it changes nothing that is kept.
    """
    expected = known.webhook_key if known else ""
    if not expected or event.kind == "start-training":
        return
    if not hmac.compare_digest(expected.encode(), key.encode()):
        raise UnauthorizedError(
            f"the webhook of project {event.project.project_id} brings {WEBHOOK_KEY_HEADER}, this call "
            "brings none or another: run `brushloop setup` for the project again"
        )


def check_moments(packed: Sequence[PackedAnnotation], created_s: int | None, now: float) -> None:
    """Raise `PayloadError` for an annotation from the future, which no later one would ever beat.

    The project's own birth counts beside our clock, which may be the one that is wrong.
    """
    latest = to_iso(max(now, float(created_s or 0)) + LONGEST_AHEAD_S) or ""
    for annotation in packed:
        if MOMENT.match(annotation.updated_at) and annotation.updated_at > latest:
            raise PayloadError(
                f"annotation {annotation.annotation_id}: updated_at {annotation.updated_at} lies more than a "
                f"day ahead of this machine's clock, {to_iso(now)}: set the clocks of both machines"
            )
