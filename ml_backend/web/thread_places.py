"""How many threads may compute at once, so that some are always free for `/health` and webhooks.

The server answers with a fixed number of threads. A `/predict` call may hold one for 80 s, and Label Studio
waits only 1 s for `/health` and for a webhook, which it never repeats. So some threads are never given to
`/predict` or to pictures. A call that finds all places taken does not wait for one, because waiting holds a
thread as much as computing does: `/predict` answers what is stored and leaves the rest to be pushed later, as
after its deadline; a picture is refused with 503, and the dashboard asks again. A project never takes all
places (`fair_places.py`): one whose images do not come leaves some to the others.
"""

from __future__ import annotations

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
