"""Times for people and other programs: Unix seconds inside, ISO 8601 in UTC outside."""

from __future__ import annotations

from datetime import datetime, timezone


def to_iso(moment: float | None) -> str | None:
    """Format Unix seconds; None stays None.

    >>> to_iso(0.0)
    '1970-01-01T00:00:00.000Z'
    """
    if moment is None:
        return None
    return (
        datetime.fromtimestamp(moment, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )


def has_passed(since: float | None, seconds: float, now: float) -> bool:
    """Whether it is so long ago. A moment that lies ahead counts as long past: some clock was wrong.

    >>> [has_passed(since, 10, now=100) for since in (None, 80, 95, 101)]
    [True, True, False, True]
    """
    return since is None or not 0 <= now - since < seconds


def is_reached(moment: float | None, now: float, longest_s: float) -> bool:
    """Whether a moment that was set at most `longest_s` ahead has come; one further ahead counts as past.

    >>> [is_reached(moment, now=100, longest_s=60) for moment in (None, 100, 130, 1000)]
    [True, True, False, True]
    """
    return moment is None or not now < moment <= now + longest_s
