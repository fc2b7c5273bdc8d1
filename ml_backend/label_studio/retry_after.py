"""Servers that ask to be left alone for a while: 429 or 503 with `Retry-After` (RFC 9110, section 10.2.3).

Whoever asks again too early is kept out for longer. So nothing is sent to such a server until the time that
it named has passed, whatever asks for it; what would have been sent fails as if the server were away.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

import httpx

LONGEST_PAUSE_S = 600.0
"""A server that names a day is asked again after this; it may have meant somebody else, or be another one."""

ASKING = (httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE)

_Origin = tuple[str, str, int | None]


class AskedToWaitError(httpx.TransportError):
    """A server takes no calls until the moment that the message names."""


class Pauses:
    """Until when each server wants no calls; for all threads that share a client."""

    def __init__(
        self, now: Callable[[], float] = time.monotonic, clock: Callable[[], float] = time.time
    ) -> None:
        self._now, self._clock = now, clock
        self._until: dict[_Origin, tuple[float, str]] = {}
        self._lock = threading.Lock()

    def check(self, request: httpx.Request) -> None:
        """Raise `AskedToWaitError` where the pause of the server is not over."""
        with self._lock:
            until, said = self._until.get(_origin(request), (0.0, ""))
        if self._now() < until:
            raise AskedToWaitError(said, request=request)

    def note(self, response: httpx.Response) -> None:
        """Begin a pause, and raise `AskedToWaitError`, where an answer asks for one."""
        if response.status_code not in ASKING:
            return
        pause_s = min(read_pause(response.headers, self._clock()), LONGEST_PAUSE_S)
        if pause_s <= 0:
            return
        moment = datetime.fromtimestamp(self._clock() + pause_s, timezone.utc)
        said = f"takes no calls until {moment:%H:%M:%S} UTC ({response.status_code} with Retry-After)"
        with self._lock:
            self._until[_origin(response.request)] = self._now() + pause_s, said
        raise AskedToWaitError(said, request=response.request)


def read_pause(headers: httpx.Headers, now: float) -> float:
    """Seconds that `Retry-After` asks for, and 0 where it says nothing that can be understood.

    `now` is in Unix seconds. A moment is compared with the server's own `Date`: clocks differ.

    Examples
    --------
    >>> read_pause(httpx.Headers({"Retry-After": "90"}), now=0.0)
    90.0
    >>> said = {"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT", "Date": "Fri, 31 Dec 1999 23:59:29 GMT"}
    >>> read_pause(httpx.Headers(said), now=0.0)
    30.0
    """
    value = headers.get("Retry-After", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        moment, sent_at = _to_moment(value), _to_moment(headers.get("Date", ""))
        seconds = 0.0 if moment is None else moment - (now if sent_at is None else sent_at)
    return max(seconds, 0.0) if math.isfinite(seconds) else 0.0


def _to_moment(value: str) -> float | None:
    try:
        return parsedate_to_datetime(value).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def _origin(request: httpx.Request) -> _Origin:
    return request.url.scheme, request.url.host, request.url.port
