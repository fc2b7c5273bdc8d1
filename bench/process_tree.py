"""Memory of a service's processes, looked at from outside; Linux alone tells it by process."""

from __future__ import annotations

from pathlib import Path

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
    children: dict[int, list[int]] = {}
    for path in PROC.glob("[0-9]*/stat"):
        text = _read(path)
        if text:
            # The name, in brackets, may hold spaces and brackets itself.
            children.setdefault(int(text.rpartition(")")[2].split()[1]), []).append(int(path.parent.name))
    roles, waiting = {}, [(root_pid, "web")]
    while waiting:
        pid, role = waiting.pop()
        roles[pid] = role
        for child in children.get(pid, ()):
            is_worker = WORKER_MODULE in _read(PROC / str(child) / "cmdline")
            below = "training" if role in ("worker", "training") else "worker" if is_worker else role
            waiting.append((child, below))
    return roles


def _peak_bytes(pid: int) -> int:
    for line in _read(PROC / str(pid) / "status").splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return 0


def _read(path: Path) -> str:
    """Empty when the process has ended meanwhile."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
