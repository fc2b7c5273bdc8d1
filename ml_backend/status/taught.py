"""What the answers that people gave last are worth: the pixels they teach, or why they teach nothing."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from ml_backend.storage import efforts
from ml_backend.storage.efforts import NewestTruth

SHOWN_TASKS = 5

COUNTED = ("strokes", "clicks", "corrected", "accepted", "deleted", "questions_answered")

EMPTY = "Nothing is painted in it yet."


def list_taught(connection: Connection, project_id: int) -> list[dict[str, Any]]:
    """The tasks that changed last, newest first, with what they teach."""
    return [describe_taught(one) for one in efforts.list_newest(connection, project_id, SHOWN_TASKS)]


def describe_taught(newest: NewestTruth) -> dict[str, Any]:
    """What one task teaches.

    `pixels` are those that teach per class, held-out ones included, because those check; the counts are of
    its annotations together: regions painted by hand, regions drawn by a click, regions of the prediction
    that came back otherwise, as they were, or not at all, and boxes that now say Reviewed.
    `why_not` is empty where something teaches.

    Examples
    --------
    >>> truth = {"maps": "a", "classes": ["Background", "Nucleus"], "class_pixels": [900, 80],
    ...          "held_out_pixels": [100, 20]}
    >>> taught = describe_taught(NewestTruth(12, truth, [], [{"strokes": 2, "questions_answered": 1}]))
    >>> taught["pixels"], taught["strokes"], taught["questions_answered"], taught["why_not"]
    ({'Background': 1000, 'Nucleus': 100}, 2, 1, '')
    >>> describe_taught(NewestTruth(13, {}, [{"message": "It is faint."}], []))["why_not"]
    'It is faint.'
    """
    truth = newest.truth
    counted = zip(
        *(truth.get(key, ()) for key in ("classes", "class_pixels", "held_out_pixels")), strict=False
    )
    pixels = {name: trained + held_out for name, trained, held_out in counted if trained + held_out}
    counts = {name: sum(int(one.get(name) or 0) for one in newest.measured) for name in COUNTED}
    return {
        "task": newest.task_id,
        "pixels": pixels,
        **counts,
        "why_not": "" if pixels else _explain(newest),
    }


def _explain(newest: NewestTruth) -> str:
    if newest.truth.get("error"):
        return str(newest.truth["error"])
    return " ".join(dict.fromkeys(finding["message"] for finding in newest.findings)) or EMPTY
