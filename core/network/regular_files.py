"""Files that are read whole: a pipe in the place of one would keep its reader waiting for ever."""

from __future__ import annotations

import errno
import stat
from pathlib import Path

OF_THE_PROCESS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""Why no file at all can be opened: of the one that was asked for they say nothing."""


def check_regular(path: Path) -> None:
    """Raise `OSError` where there is no file, or a folder, a pipe, a socket or a device in its place."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "what lies in its place is no file", str(path))


def read_regular(path: Path) -> bytes:
    """All bytes of a file; raises `OSError` as `check_regular` does."""
    check_regular(path)
    return path.read_bytes()
