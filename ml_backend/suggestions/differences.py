"""What a task's predictions at Label Studio need, so that one of ours is left."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ml_backend.ports import HeldPrediction
from ml_backend.storage import models

SCORE_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Difference:
    """What one task needs, so that one prediction of ours is left."""

    create: bool = False
    overwrite: int | None = None
    delete: tuple[int, ...] = ()


def find_difference(
    wanted: Mapping[str, Any] | None, held: Sequence[HeldPrediction], ours: Collection[str]
) -> Difference:
    """Compare what a task has with what it should have; `wanted` of None leaves the newest of ours.

    Other people's predictions, which are those of versions that are not ours, are never in the answer.

    Examples
    --------
    >>> held = [HeldPrediction(7, "theirs", 0.1), HeldPrediction(8, "v1", 0.5)]
    >>> find_difference({"model_version": "v2", "score": 0.4}, held, {"v1", "v2"})
    Difference(create=False, overwrite=8, delete=())
    """
    own = sorted((p for p in held if models.is_ours(p.model_version, ours)), key=lambda p: p.prediction_id)
    if not own:
        return Difference(create=wanted is not None)
    if wanted is None:
        return Difference(delete=tuple(p.prediction_id for p in own[:-1]))
    # Label Studio shows the newest of the current version, so that is the one that may be open.
    same = [p for p in own if p.model_version == wanted["model_version"]]
    kept = (same or own)[-1]
    is_as_wanted = bool(same) and abs((kept.score or 0.0) - wanted["score"]) <= SCORE_TOLERANCE
    return Difference(
        overwrite=None if is_as_wanted else kept.prediction_id,
        delete=tuple(p.prediction_id for p in own if p is not kept),
    )
