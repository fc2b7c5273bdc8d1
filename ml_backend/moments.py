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
