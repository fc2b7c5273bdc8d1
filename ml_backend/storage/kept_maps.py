"""The encoder's maps of annotated images on disk: capped, checked, and made again when they are lost.

Implements `core.network.map_stores.MapStore`. A file holds a digest of its content and then safetensors.
What cannot be read or written is treated as not there: maps only save time.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from safetensors.numpy import load, save

from core.network.map_stores import Map
from core.network.regular_files import read_regular
from ml_backend.processes.scratch import put, remove, scratch_file, sweep_scratch

log = logging.getLogger(__name__)

DIGEST_BYTES = 16
LIMIT_BYTES = 2_000_000_000
"""Of one project: the maps of 130 Mpx, at 15 bytes a pixel."""

SCRATCH, SCRATCH_LIFE_S = ".", 900.0
"""How the name of an unfinished file begins; when it goes if nobody can say whether its process lives."""


class KeptMaps:
    """A folder of maps; what was asked for least recently goes first."""

    def __init__(self, folder: Path, limit_bytes: int = LIMIT_BYTES) -> None:
        self._folder = folder
        self._limit = limit_bytes

    def load(self, name: str) -> list[Map] | None:
        """What was saved, or None where it is missing or damaged."""
        path = self._folder / name
        try:
            raw = read_regular(path)
            # By this stamp the least recently used file goes first.
            os.utime(path)
        except OSError:
            return None
        content = raw[DIGEST_BYTES:]
        if _digest(content) != raw[:DIGEST_BYTES]:
            log.warning("remove_damaged_maps name=%s", name)
            with suppress(OSError):
                remove(path)
            return None
        tensors = load(content)
        return [tensors[key] for key in sorted(tensors)]

    def save(self, name: str, maps: Sequence[Map]) -> None:
        """Write a file that is there whole or not at all, and make room for it."""
        content = save({str(number): kept_map for number, kept_map in enumerate(maps)})
        try:
            with scratch_file(self._folder, SCRATCH) as scratch:
                scratch.write_bytes(_digest(content) + content)
                put(scratch, self._folder / name)
            sweep_maps(self._folder)
            self._make_room()
        except OSError as error:
            log.warning("skip_maps name=%s cause=%r", name, str(error))

    def _make_room(self) -> None:
        stats = []
        for path in self._folder.iterdir():
            with suppress(FileNotFoundError):  # another process finished or removed it
                stats.append((path, path.stat()))
        total = sum(stat.st_size for _, stat in stats)
        for path, stat in sorted(stats, key=lambda entry: entry[1].st_mtime):
            if total <= self._limit:
                return
            path.unlink(missing_ok=True)
            total -= stat.st_size


def sweep_maps(folder: Path) -> None:
    """Remove what killed processes left half-written."""
    sweep_scratch(folder, SCRATCH_LIFE_S, f"{SCRATCH}*")


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()
