"""Processes that a killed worker left behind, such as its fork server: the next worker ends them.

They end by themselves once they read that the worker's pipe is closed. One that hangs in a library does not,
and holds memory and threads that the next training needs.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress

import psutil

from ml_backend.config import OWNER_VARIABLE
from ml_backend.processes.process_identity import is_gone

log = logging.getLogger(__name__)


def end_orphans() -> list[int]:
    """Kill what ended workers of this machine and user left running; returns the process numbers."""
    own = psutil.Process()
    spared = {os.getpid(), *(parent.pid for parent in own.parents())}
    ended = []
    for process in psutil.process_iter():
        owner = _find_owner(process)
        if owner and process.pid not in spared and is_gone(owner):
            # It may end by itself just now. psutil compares the start time before it kills: the number may
            # have been given out again.
            with suppress(psutil.Error):
                process.kill()
                log.warning("end_orphan pid=%d", process.pid)
                ended.append(process.pid)
    return ended


def _find_owner(process: psutil.Process) -> str | None:
    try:
        owner = process.environ().get(OWNER_VARIABLE)
    except (psutil.Error, OSError):
        return None  # it has ended meanwhile, or is somebody else's
    return owner if owner and owner.count("|") == 3 else None
