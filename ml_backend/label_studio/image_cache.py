"""Decoded images on disk, opened as memory maps; the least recently used go when the folder is full.

Several processes may share a folder: files are written beside their place and renamed into it, and an image
that another process throws away stays readable for whoever has it open.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.network.regular_files import OF_THE_PROCESS, check_regular
from ml_backend.processes.scratch import make_folder, put, remove, scratch_file, sweep_scratch

SCRATCH_LIFE_S = 3600.0
"""An unfinished file of a process of which nobody can say whether it lives goes after this long."""


BAND_ROWS = 256
ROOM_SHARE = 0.01
"""The folder is listed anew once this share of its cap was added: listing costs a call per file."""


def write_pixels(path: Path, pixels: NDArray[Any]) -> None:
    """Write an array in numpy's format, however its memory is ordered, without a second copy of it."""
    head = {
        "descr": np.lib.format.dtype_to_descr(pixels.dtype),  # type: ignore[no-untyped-call]
        "fortran_order": False,
        "shape": pixels.shape,
    }
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, head)  # type: ignore[no-untyped-call]
        for top in range(0, pixels.shape[0], BAND_ROWS):
            file.write(np.ascontiguousarray(pixels[top : top + BAND_ROWS]).data)
        file.flush()
        os.fsync(file.fileno())  # a power cut must not leave a name without its pixels


class ImageCache:
    """Arrays by name, below one folder, with `max_bytes` for all of them."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._scratch = folder / "scratch"
        self._max_bytes = max_bytes
        self._added = max_bytes  # since this process looked through the folder; it begins with a look

    def find(self, name: str) -> NDArray[Any] | None:
        """The array as a read-only memory map, or None; a damaged file is thrown away."""
        path = self._path(name)
        try:
            check_regular(path)
            pixels: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
            os.utime(path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError) as error:
            if isinstance(error, OSError) and error.errno in OF_THE_PROCESS:
                raise
            with suppress(OSError):  # what lies in the place of the folder goes when it is filled
                remove(path)
            return None
        return pixels

    def fill(self, name: str, write: Callable[[Path], None]) -> NDArray[Any]:
        """Have an array written to a file, and give it back as a memory map."""
        path = self._path(name)
        make_folder(self._folder)
        make_folder(path.parent)
        with self.scratch_file() as scratch:
            write(scratch)
            stored: NDArray[Any] = np.load(scratch, mmap_mode="r", allow_pickle=False)
            put(scratch, path)
        self._added += stored.nbytes
        if self._added >= ROOM_SHARE * self._max_bytes:
            self._added = 0
            self._make_room(newest=path)
        return stored

    def scratch_file(self) -> AbstractContextManager[Path]:
        """A path of its own that is gone afterwards."""
        return scratch_file(self._scratch)

    def sweep(self) -> None:
        """Remove what killed processes left half-done."""
        sweep_scratch(self._scratch, SCRATCH_LIFE_S)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.npy"

    def _make_room(self, newest: Path) -> None:
        """Throw away the least recently used until all fit; the newest one stays, however large."""
        entries = []
        for path in self._folder.rglob("*.npy"):
            with suppress(FileNotFoundError):
                stat = path.stat()
                entries.append((stat.st_mtime_ns, stat.st_size, path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= self._max_bytes:
                break
            if path != newest:
                path.unlink(missing_ok=True)
                total -= size
        self.sweep()
