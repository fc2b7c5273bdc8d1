"""Equal work at the same time is done once. Label Studio asks twice at once whenever a task is opened."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """The first caller with a key works, the others wait for what it returns or raises."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flights: dict[Hashable, Future[T]] = {}

    def run(self, key: Hashable, work: Callable[[], T], timeout_s: float) -> T:
        """Return what `work` gives; raises `TimeoutError` when another caller's work takes too long."""
        with self._lock:
            flight = self._flights.get(key)
            is_first = flight is None
            if flight is None:
                flight = self._flights[key] = Future()
        if not is_first:
            return flight.result(max(timeout_s, 0.0))
        try:
            flight.set_result(work())
        # Whatever ended the work, those who wait must hear of it.
        except BaseException as error:
            flight.set_exception(error)
            raise
        finally:
            with self._lock:
                del self._flights[key]
        return flight.result()
