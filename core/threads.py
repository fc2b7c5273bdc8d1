"""How many threads torch may use, said where the work is done instead of left to chance."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def torch_threads(n_threads: int | None) -> Iterator[None]:
    """Let torch use `n_threads` inside the block, and as many as before after it; None changes nothing.

    Two processes with a thread per core each slow each other down many times over, so whoever starts
    processes divides the cores among them.
    """
    before = torch.get_num_threads()
    if n_threads is None or n_threads == before:
        yield
        return
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def renew_threads() -> None:
    """Have torch make its threads anew in a process that was just forked and has one thread.

    Otherwise the first operation there does, and of two threads whose first ones come at once, one finds none
    and raises (`Invalid thread pool!`). Saying how many threads there are makes them.
    """
    torch.set_num_threads(torch.get_num_threads())
