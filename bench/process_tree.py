"""Memory of a service's processes, looked at from outside; Linux alone tells it by process."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import psutil

PROC = Path("/proc")
WORKER_MODULE = "ml_backend.worker"
DECODER_MODULE = "ml_backend.label_studio.decoder_process"


def peaks_by_role(root_pid: int) -> dict[str, int]:
    """The most bytes that each kind of process ever held: `web`, `worker`, `training` below the worker,
    and `decoder` of images below any of them.

    Shared pages count in each process; the largest of several processes of a kind is given. Empty where
    there is no `/proc`.
    """
    found: dict[str, int] = {}
    for pid, role in roles_of(root_pid).items():
        peak = peak_bytes(pid)
        if peak:
            found[role] = max(found.get(role, 0), peak)
    return found


def roles_of(root_pid: int) -> dict[int, str]:
    """Role of a process and of all below it: what a worker starts, trains."""
    roles, waiting = {}, [(psutil.Process(root_pid), "web")]
    while waiting:
        process, role = waiting.pop()
        roles[process.pid] = role
        for child in _children_of(process):
            # One that has ended and waits to be asked for its code hides none of the others.
            with suppress(psutil.NoSuchProcess):
                waiting.append((child, _role_below(role, " ".join(child.cmdline()))))
    return roles


def _children_of(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children())
    except psutil.NoSuchProcess:  # it has ended meanwhile
        return []


def _role_below(role: str, command: str) -> str:
    if DECODER_MODULE in command:
        return "decoder"
    if role in ("worker", "training"):
        return "training"
    return "worker" if WORKER_MODULE in command else role


def peak_bytes(pid: int) -> int:
    """The most that a process ever held, pages of mapped files included; 0 where Linux does not tell it."""
    # Read by hand: psutil tells only what is held now. `ru_maxrss` starts with the size of the parent.
    with suppress(OSError):
        lines = (PROC / str(pid) / "status").read_text(errors="replace").splitlines()
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)
    return 0
