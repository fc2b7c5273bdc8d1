"""Memory of a service's processes, looked at from outside; Linux alone tells it by process."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import psutil

PROC = Path("/proc")
WORKER_MODULE = "ml_backend.worker"


def peaks_by_role(root_pid: int) -> dict[str, int]:
    """The most bytes that each kind of process ever held: `web`, `worker`, and `training` below the worker.

    Shared pages count in each process; the largest of several processes of a kind is given. Empty where
    there is no `/proc`.
    """
    found: dict[str, int] = {}
    for pid, role in _roles(root_pid).items():
        peak = _peak_bytes(pid)
        if peak:
            found[role] = max(found.get(role, 0), peak)
    return found


def _roles(root_pid: int) -> dict[int, str]:
    """Role of a process and of all below it: what a worker starts, trains."""
    roles, waiting = {}, [(psutil.Process(root_pid), "web")]
    while waiting:
        process, role = waiting.pop()
        roles[process.pid] = role
        with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            for child in process.children():
                is_worker = WORKER_MODULE in " ".join(child.cmdline())
                below = "training" if role in ("worker", "training") else "worker" if is_worker else role
                waiting.append((child, below))
    return roles


def _peak_bytes(pid: int) -> int:
    """The most that the process ever held; psutil tells only what it holds now."""
    with suppress(OSError):
        for line in (PROC / str(pid) / "status").read_text(errors="replace").splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    return 0
