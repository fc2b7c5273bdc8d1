"""Places that nobody waits for, shared fairly: one project never takes all, whatever it does with its own."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Hashable, Iterator
from contextlib import contextmanager


class FairPlaces:
    """A counter of places that never blocks.

    A project takes another place only while as many are free as it holds. So the first one gets half of them,
    and the last place goes to one that has none.

    Examples
    --------
    >>> places = FairPlaces(3)
    >>> with places.enter(1) as first, places.enter(1) as second, places.enter(1) as third:
    ...     with places.enter(2) as other:
    ...         print(first, second, third, other)
    True True False True
    """

    def __init__(self, places: int, most: int | None = None) -> None:
        self._places, self._most = places, most or places
        self._held: Counter[Hashable] = Counter()
        self._lock = threading.Lock()

    def has_place(self, project: Hashable) -> bool:
        """Whether the project would get a place right now."""
        with self._lock:
            return self._has_place(project)

    @contextmanager
    def enter(self, project: Hashable) -> Iterator[bool]:
        """Yield whether there was a place; it is given back on leaving."""
        with self._lock:
            entered = self._has_place(project)
            self._held[project] += entered
        try:
            yield entered
        finally:
            with self._lock:
                self._held[project] -= entered
                self._held += Counter()  # forget those that hold none

    def _has_place(self, project: Hashable) -> bool:
        free, held = self._places - self._held.total(), self._held[project]
        return free > 0 and free >= held and held < self._most
