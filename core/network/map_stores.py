"""Where the encoder's maps are kept: what keeps them, in memory or not at all."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Map = NDArray[np.float16]
"""`(width, h, w)`, one of the encoder's."""

MEMORY_BYTES = 256_000_000
"""What `KeptInMemory` keeps by default: the maps of 17 Mpx."""


class MapStore(Protocol):
    """Keeps maps by name; may forget them at any time, but never gives others than it was given."""

    def load(self, name: str) -> Sequence[Map] | None:
        """What was saved under `name`, or None."""
        ...

    def save(self, name: str, maps: Sequence[Map]) -> None:
        """Keep maps; one that cannot, does nothing."""
        ...


class KeptInMemory:
    """A store of at most so many bytes; what was asked for least recently goes first."""

    def __init__(self, limit_bytes: int = MEMORY_BYTES) -> None:
        self._limit = limit_bytes
        self._kept: OrderedDict[str, Sequence[Map]] = OrderedDict()
        self._bytes, self._changing = 0, Lock()

    def load(self, name: str) -> Sequence[Map] | None:
        with self._changing:
            if name in self._kept:
                self._kept.move_to_end(name)
            return self._kept.get(name)

    def save(self, name: str, maps: Sequence[Map]) -> None:
        with self._changing:
            self._bytes += _size(maps) - _size(self._kept.pop(name, ()))
            self._kept[name] = maps
            # The newest stays, however large: its neighbouring windows are asked for next.
            while self._bytes > self._limit and len(self._kept) > 1:
                self._bytes -= _size(self._kept.popitem(last=False)[1])


class KeepsNothing:
    """The store of somebody who sees each image once: maps need no name, and stay on their device."""

    def load(self, name: str) -> None:
        return None

    def save(self, name: str, maps: Sequence[Map]) -> None:
        return None


def _size(maps: Sequence[Map]) -> int:
    return sum(found.nbytes for found in maps)
