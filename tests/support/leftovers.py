"""What a session of tests leaves behind: processes, temporary files, changed environment variables."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

SESSION = "BRUSHLOOP_TEST_SESSION"
"""Every process inherits it from the session that started it, also one whose parent is gone."""

NOT_OURS = (SESSION, "PYTEST_CURRENT_TEST", "KMP_", "TORCHINDUCTOR_", "LD_LIBRARY_PATH", "GDAL_", "PROJ_")
"""How variables begin that pytest sets, torch when it is imported or first trains, OpenCV, and rasterio.

rasterio names certificates for the whole process where no shell did, so it depends on the shell.
"""

TRACKER = "multiprocessing.resource_tracker"

MOST_MEMORY = 3 * 2**30
"""Bytes that one process of tests may take at its peak; as many processes run as memory carries of these."""

PATIENCE_S = 15.0
"""A fork server or a browser's helper ends a moment after the one that it served."""


def find_processes(session: str) -> dict[int, str]:
    """Command lines of the living processes of a session, without this one and those above it."""
    above = _ancestors(os.getpid())
    found = {}
    for process in psutil.process_iter():
        try:
            is_ours = process.environ().get(SESSION) == session and process.pid not in above
            if is_ours and not _ends_with_us(process):
                found[process.pid] = " ".join(process.cmdline())
        except psutil.Error:  # noqa: PERF203 - each process stands for itself
            continue  # it has ended meanwhile, or is somebody else's
    return found


def wait_for_processes(session: str, patience_s: float = PATIENCE_S) -> dict[int, str]:
    """The processes that are still there when patience ends; none as soon as there are none."""
    deadline = time.monotonic() + patience_s
    while (left := find_processes(session)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def find_peak_memory() -> int:
    """Bytes that this process held at its peak; 0 where the system does not tell."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)


def changed_variables(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Names of the variables that were added, removed or changed."""
    names = {name for name in (*before, *now) if before.get(name) != now.get(name)}
    return sorted(name for name in names if not name.startswith(NOT_OURS))


def _ancestors(pid: int) -> set[int]:
    return {pid, *(parent.pid for parent in psutil.Process(pid).parents())}


def _ends_with_us(process: psutil.Process) -> bool:
    """Python's own helper of this very process, started by its first lock or shared memory."""
    return process.ppid() == os.getpid() and any(TRACKER in part for part in process.cmdline())
