"""How many threads may compute at once, so that some are always free for `/health` and webhooks.

The server answers with a fixed number of threads. A `/predict` call may hold one for 80 s, and Label Studio
waits only 1 s for `/health` and for a webhook, which it never repeats. So some threads are never given to
`/predict` or to pictures. A call that finds all places taken does not wait for one, because waiting holds a
thread as much as computing does: `/predict` answers what is stored and leaves the rest to be pushed later, as
after its deadline; a picture is refused with 503, and the dashboard asks again.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

RESERVED_THREADS = 4
"""Kept free of `/predict` where there are threads enough."""

PICTURE_PLACES = 2
"""As many images as the loop computes side by side."""


@dataclass(frozen=True)
class Places:
    """How many calls of a kind may compute at once."""

    predict: int
    pictures: int


def share_threads(web_threads: int) -> Places:
    """Divide the threads; `/predict` gets two at least, since opening one task asks twice at once.

    Examples
    --------
    >>> [share_threads(n) for n in (4, 6, 16)]
    [Places(predict=2, pictures=1), Places(predict=2, pictures=2), Places(predict=10, pictures=2)]
    """
    pictures = PICTURE_PLACES if web_threads > RESERVED_THREADS else 1
    return Places(predict=max(web_threads - RESERVED_THREADS - pictures, 2), pictures=pictures)


class ThreadPlaces:
    """A counter of thread places that never blocks."""

    def __init__(self, places: int) -> None:
        self._places = threading.BoundedSemaphore(places)

    @contextmanager
    def enter(self) -> Iterator[bool]:
        """Yield whether there was a place; it is given back on leaving."""
        entered = self._places.acquire(blocking=False)
        try:
            yield entered
        finally:
            if entered:
                self._places.release()
