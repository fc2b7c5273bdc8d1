"""Processes that a command starts beside itself, and that end with it."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ml_backend.errors import ServiceError

PORTS_TO_TRY = 50

STOP_GRACE_S = 25.0
"""After this a child is killed; the web process takes up to 20 s to finish its answers."""

RESTART_AFTER_S = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Pauses before a child that died by itself is started again; the last one stays."""

_PR_SET_PDEATHSIG = 1
"""Linux, prctl(2): a signal for this process when its parent is gone."""


def find_free_port(host: str, wanted: int) -> int:
    """The wanted port, or the next one that nobody listens on."""
    for port in range(wanted, min(wanted + PORTS_TO_TRY, 65536)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    raise ServiceError(f"no free port between {wanted} and {wanted + PORTS_TO_TRY - 1} on {host}")


class ChildProcess:
    """A process in a session of its own, so that Ctrl-C reaches it only by `stop`.

    On Linux it gets SIGTERM when the thread that started it is gone, even when that was killed.
    Output goes to `log_path`, or where this process writes.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        environment: Mapping[str, str],
        log_path: Path | None = None,
    ) -> None:
        self.name = name
        self.log_path = log_path
        if log_path is None:
            self._process = _start(command, environment, None)
            return
        log_path.parent.mkdir(parents=True, exist_ok=True)
        with log_path.open("ab") as log:
            self._process = _start(command, environment, log.fileno())

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait(self, timeout_s: float | None = None) -> int:
        """Its exit status; raises `subprocess.TimeoutExpired`."""
        return self._process.wait(timeout_s)

    def ask_to_stop(self) -> None:
        if self.is_running:
            self._process.terminate()

    def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """Ask it to stop, and kill it and what it started when it does not."""
        self.ask_to_stop()
        try:
            self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def last_lines(self, n: int = 15) -> str:
        """The end of its log, for an error message."""
        if self.log_path is None:
            return ""
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-n:])


def keep_running(start: Callable[[], ChildProcess], stop: threading.Event) -> None:
    """Run a child until `stop` is set; one that ends by itself is started again after a pause."""
    n_restarts = 0
    while not stop.is_set():
        child = start()
        while child.is_running and not stop.wait(0.2):
            pass
        if stop.is_set():
            child.stop()
            return
        stop.wait(RESTART_AFTER_S[min(n_restarts, len(RESTART_AFTER_S) - 1)])
        n_restarts += 1


def _start(
    command: Sequence[str | Path], environment: Mapping[str, str], output: int | None
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603  # our own command, no shell
        [str(part) for part in command],
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=None if output is None else subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_die_with_parent if sys.platform == "linux" else None,
    )


_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def _die_with_parent() -> None:
    # Looked up before the fork: nothing may be imported between fork and exec.
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)  # type: ignore[union-attr]
