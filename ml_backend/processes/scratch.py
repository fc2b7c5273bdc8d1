"""Unfinished files: each bears the name of the process that writes it, and goes once that process has ended.

What a living process writes stays, however long it takes. Where nobody can say whether the process lives, as
in another container that shares the folder, age decides.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ml_backend.processes.process_identity import find_ended, name_scratch


def new_scratch(folder: Path, start: str = "") -> Path:
    """A path inside the folder that nobody uses, by a name that starts like this; the folder is made."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{start}{name_scratch()}"


@contextmanager
def scratch_file(folder: Path, start: str = "") -> Iterator[Path]:
    """A path inside the folder that is gone afterwards, unless it got its final name."""
    path = new_scratch(folder, start)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def sweep_scratch(folder: Path, life_s: float, pattern: str = "*") -> None:
    """Remove what ended processes left in the folder, and what is older than `life_s` and of nobody known."""
    found = sorted(folder.glob(pattern))
    if not found:
        return
    horizon = read_clock(folder) - life_s
    for path in found:
        has_ended = find_ended(path.name)
        with suppress(FileNotFoundError):  # another process may be faster
            if has_ended or (has_ended is None and path.stat().st_mtime < horizon):
                remove(path)


def read_clock(folder: Path) -> float:
    """The time by which the folder's file system stamps its files, which may be another machine's."""
    with scratch_file(folder) as probe:
        probe.touch()
        return probe.stat().st_mtime


def remove(path: Path) -> None:
    """Remove a file or a folder with all that is in it; nothing where it is gone already."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
