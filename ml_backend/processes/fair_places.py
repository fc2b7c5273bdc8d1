"""Places that nobody waits for, shared fairly: one project never takes all, whatever it does with its own."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

SLOW_S, FORGOTTEN_S = 5.0, 300.0
"""Who held a place for so long counts as slow, and for so long after that."""


class SlowProjects:
    """Which projects held a place for long lately: their Label Studio or their images make others wait."""

    def __init__(self, slow_s: float = SLOW_S, now: Callable[[], float] = time.monotonic) -> None:
        self._slow_s, self._now = slow_s, now
        self._seen_at: dict[Hashable, float] = {}

    def note(self, project: Hashable, began: float) -> None:
        """That the project gives back a place which it got at `began`."""
        if self._now() - began >= self._slow_s:
            self._seen_at[project] = self._now()

    def __contains__(self, project: Hashable) -> bool:
        return self._now() - self._seen_at.get(project, -FORGOTTEN_S) < FORGOTTEN_S

    def now(self) -> float:
        return self._now()


class FairPlaces:
    """A counter of places that never blocks.

    A project takes another place only while as many are free as it holds. So the first one gets half of them,
    and the last place goes to one that has none. All projects in `slow` together get half of the places, so
    that any number of them leaves some to the others; those who `watches` add to them who holds one for long.

    Examples
    --------
    >>> places = FairPlaces(3)
    >>> with places.enter(1) as first, places.enter(1) as second, places.enter(1) as third:
    ...     with places.enter(2) as other:
    ...         print(first, second, third, other)
    True True False True
    """

    def __init__(
        self, places: int, most: int | None = None, slow: SlowProjects | None = None, *, watches: bool = False
    ) -> None:
        self._places, self._most = places, most or places
        self._slow, self._watches = slow or SlowProjects(), watches
        self._held: Counter[Hashable] = Counter()
        self._lock = threading.Lock()

    def has_place(self, project: Hashable) -> bool:
        """Whether the project would get a place right now."""
        with self._lock:
            return self._has_place(project)

    @contextmanager
    def enter(self, project: Hashable) -> Iterator[bool]:
        """Yield whether there was a place; it is given back on leaving."""
        began = self._slow.now()
        with self._lock:
            entered = self._has_place(project)
            self._held[project] += entered
        try:
            yield entered
        finally:
            with self._lock:
                if self._watches:
                    self._slow.note(project, began)
                self._held[project] -= entered
                self._held += Counter()  # forget those that hold none

    def _has_place(self, project: Hashable) -> bool:
        free, held = self._places - self._held.total(), self._held[project]
        if project in self._slow:
            of_slow = sum(n for other, n in self._held.items() if other in self._slow)
            if of_slow >= max(1, self._places // 2):
                return False
        return free > 0 and free >= held and held < self._most
