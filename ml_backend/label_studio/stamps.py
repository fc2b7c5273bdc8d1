"""Label Studio's times: ISO text from outside, checked before anything is compared with it."""

from __future__ import annotations

from datetime import datetime, timezone

from ml_backend.errors import PayloadError

FIRST_YEAR, LAST_YEAR = 2010, 2200
"""Years in which a Label Studio can run."""


def to_unix_time(moment: str) -> str:
    """Whole unix seconds of an ISO time: the form in which `/setup` and `/predict` name a project's birth.

    Examples
    --------
    >>> to_unix_time("2026-11-22T07:18:49.192769Z")
    '1795331929'
    """
    return str(int(_read_moment(moment, "created_at").timestamp()))


def _read_moment(text: str, field: str) -> datetime:
    """An ISO time in UTC, of a year in which Label Studio can have run.

    Years at either end of the calendar leave it when they are turned to another time zone.
    """
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise PayloadError(f"{field}: {text[:40]!r} is not an ISO time") from None
    if not FIRST_YEAR <= moment.year <= LAST_YEAR:
        raise PayloadError(f"{field}: {text[:40]!r} is of no year in which Label Studio runs")
    if moment.tzinfo is None:  # Label Studio's clock is UTC
        return moment.replace(tzinfo=timezone.utc)
    return moment.astimezone(timezone.utc)


def check_stamp(text: str, field: str) -> str:
    """Which of two versions of an annotation is newer is told by this text, so it has to be a time."""
    _read_moment(text, field)
    return text
