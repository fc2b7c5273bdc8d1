"""Which process left something behind, and whether it has ended: by machine, number and start time.

A process number alone says little: numbers are given out again, and two containers count theirs apart. What
was left by a process of another machine or namespace is nobody's to judge here.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import time
import uuid
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import psutil

_SCRATCH = re.compile(r"\.*p-(?P<machine>[0-9a-f]{12})-(?P<pid>\d+)-(?P<started>\d+)-[0-9a-f]{8}(?!\w).*")

STOPPED_S = 5.0
"""Who stops all processes of a machine goes on with all of them, one after the other."""


def name_scratch() -> str:
    """A name for an unfinished file of this process, never given twice; `find_ended` reads it."""
    pid = os.getpid()
    return f"p-{_digest_machine()}-{pid}-{_in_hundredths(find_start_time(pid))}-{uuid.uuid4().hex[:8]}"


def find_ended(name: str) -> bool | None:
    """Whether the process that gave a file its scratch name has ended; None where nobody here can say.

    Names made of a scratch name count too: with dots before it, or more behind it.
    """
    parts = _SCRATCH.fullmatch(name)
    if parts is None or parts["machine"] != _digest_machine():
        return None
    return _in_hundredths(find_start_time(int(parts["pid"]))) != parts["started"]


def is_gone(owner: str) -> bool:
    """Whether the process that `rounds.lease.name_owner` named is known to have ended.

    Of one on another machine nobody here can say.
    """
    # The start time tells a process from an earlier one with its number.
    machine, pid, started, _ = owner.split("|")
    return machine == name_machine() and find_start_time(int(pid)) != started


@lru_cache(maxsize=1)
def name_machine() -> str:
    """Host, boot and process namespace: inside the same three a process can be looked up by its number."""
    # psutil knows neither of the two. Its boot time would not do: that moves when somebody sets the clock.
    boot = Path("/proc/sys/kernel/random/boot_id")
    namespace = Path("/proc/self/ns/pid")
    names = [socket.gethostname()]
    names.append(boot.read_text().strip() if boot.exists() else "")
    names.append(str(namespace.readlink()) if namespace.is_symlink() else "")
    return ":".join(names)


def _digest_machine() -> str:
    """Short enough for the name of a file, and without the host's name."""
    return hashlib.blake2b(name_machine().encode(), digest_size=6).hexdigest()


def _in_hundredths(started: str) -> str:
    return started.replace(".", "")


class Stopped:
    """Whether a process has been stopped, as by SIGSTOP, for some seconds: it neither works nor ends.

    Asked again and again: of the time between two questions nothing is known.
    """

    def __init__(self, pid: int | None, now: Callable[[], float] = time.monotonic) -> None:
        self._pid, self._now = pid, now
        self._since: float | None = None

    def __call__(self) -> bool:
        if not self._is_stopped():
            self._since = None
            return False
        self._since = self._now() if self._since is None else self._since
        return self._now() - self._since >= STOPPED_S

    def _is_stopped(self) -> bool:
        try:
            return self._pid is not None and psutil.Process(self._pid).status() == psutil.STATUS_STOPPED
        except psutil.Error:
            return False


def find_start_time(pid: int) -> str:
    """When the process started, in seconds since boot; empty when there is none or it is a zombie."""
    # psutil counts from the boot time that it read last. Both change where somebody sets the clock, and
    # their difference does not.
    booted = psutil.boot_time()
    try:
        process = psutil.Process(pid)
        is_over = process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
        return "" if is_over else f"{process.create_time() - booted:.2f}"
    except psutil.NoSuchProcess:
        return ""
