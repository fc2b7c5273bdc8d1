"""How long this thread waits for others: until when, and until what happens.

A time-out of an HTTP client holds for one wait. A server that sends a byte now and then is never late by it,
and a process that is asked to stop goes on waiting. So whoever begins work says how patient it is, and
everything below that waits, looks here.

>>> with patience(0.0):
...     is_over()
True
>>> is_over()
False
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from core.errors import RoundCancelledError

LOOK_S = 0.25
"""So often somebody who waits looks whether it is still worth it."""


@dataclass(frozen=True)
class _Patience:
    until: float = math.inf
    should_stop: Callable[[], bool] = lambda: False


_PATIENCE: ContextVar[_Patience] = ContextVar("patience", default=_Patience())  # noqa: B039 - frozen


@contextmanager
def patience(seconds: float = math.inf, should_stop: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Wait no longer than this inside the block; what was said outside of it holds too."""
    outer = _PATIENCE.get()
    inner = _Patience(
        min(outer.until, time.monotonic() + seconds), lambda: outer.should_stop() or should_stop()
    )
    token = _PATIENCE.set(inner)
    try:
        yield
    finally:
        _PATIENCE.reset(token)


def left_s() -> float:
    """Seconds that are left; infinite where nobody set an end, and 0 where one is asked to stop."""
    current = _PATIENCE.get()
    return 0.0 if current.should_stop() else max(current.until - time.monotonic(), 0.0)


def is_over() -> bool:
    """Whether nothing is worth waiting for any more."""
    return left_s() <= 0


def check_stop() -> None:
    """Raise `RoundCancelledError` where one is asked to stop: that is nobody's failure."""
    if _PATIENCE.get().should_stop():
        raise RoundCancelledError("asked to stop")


@contextmanager
def waiting_for(lock: threading.Lock | threading.BoundedSemaphore) -> Iterator[bool]:
    """Hold a lock or a place; yields whether it was free before the patience was over."""
    is_held = False
    while not (is_held or is_over()):
        is_held = lock.acquire(timeout=min(left_s(), LOOK_S))
    try:
        yield is_held
    finally:
        if is_held:
            lock.release()
