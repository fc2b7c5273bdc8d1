"""Unfinished files: each bears the name of the process that writes it, and goes once that process has ended.

What a living process writes stays, however long it takes. Where nobody can say whether the process lives, as
in another container that shares the folder, age decides.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ml_backend.processes.process_identity import find_ended, name_scratch


def new_scratch(folder: Path, start: str = "") -> Path:
    """A path inside the folder that nobody uses, by a name that starts like this; the folder is made."""
    make_folder(folder)
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


def forget_lost_temporary_folder() -> None:
    """Look for another one where the one that was found at first is gone: Python looks once in a process."""
    if tempfile.tempdir and not Path(tempfile.tempdir).is_dir():
        tempfile.tempdir = None


def make_folder(folder: Path) -> None:
    """Make a folder of what is made again when it is lost, also where something else has its name."""
    if _is_in_the_way(folder):
        remove(folder)
    folder.mkdir(parents=True, exist_ok=True)


def _is_in_the_way(folder: Path) -> bool:
    try:
        return not stat.S_ISDIR(folder.stat().st_mode)
    except FileNotFoundError:
        return False  # a link to a disk that is away may be what lies there, and stays
    except OSError as error:
        return error.errno == errno.ELOOP


def put(scratch: Path, place: Path) -> None:
    """Give a finished file or folder its name, whatever has that, and on whatever disk that is."""
    if place.is_dir() and not place.is_symlink():
        remove(place)
    try:
        scratch.replace(place)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _carry(scratch, place)


def _carry(scratch: Path, place: Path) -> None:
    """The same over the border of two disks: first all bytes beside their place, and then the name."""
    beside = place.with_name(f".{name_scratch()}")
    try:
        if scratch.is_dir():
            shutil.copytree(scratch, beside)
        else:
            shutil.copyfile(scratch, beside)
        for path in (beside, *beside.rglob("*")):
            sync(path)
        beside.replace(place)
    finally:
        remove(beside)
    remove(scratch)


def sync(path: Path) -> None:
    """Have the bytes of a file, or the names of a folder, on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Remove a file or a folder with all that is in it; nothing where it is gone already."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
