"""The process that trainings are forked from: started anew where it cannot be reached or does not answer.

It listens at a file in the folder for temporary files. Programs that tidy up there remove it after some days,
and then no training could ever be started again.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess, current_process
from pathlib import Path
from typing import Any

from core.errors import MachineError
from ml_backend.processes.process_identity import Stopped
from ml_backend.processes.scratch import forget_lost_temporary_folder

log = logging.getLogger(__name__)

LOOK_S = 1.0
_STARTING = threading.Lock()
LOST_CODE = 255
"""How `multiprocessing` says that nobody can tell any more how a child ended."""


def start(process: BaseProcess) -> None:
    """Start a child; raises `MachineError` where no new server helps either."""
    with _STARTING:  # one that is renewed for somebody else must not go meanwhile
        try:
            with _ending_a_stopped_server():
                process.start()
        except (OSError, EOFError) as error:
            log.warning("restart_fork_server cause=%r", str(error) or type(error).__name__)
            renew()
            _start_again(process)


def renew() -> None:
    """End the server, and forget where it listened: the next child has another one started."""
    server = _find_server()
    with server._lock:
        if server._forkserver_pid is not None:
            with suppress(OSError):
                os.kill(server._forkserver_pid, signal.SIGKILL)
                os.waitpid(server._forkserver_pid, 0)
            with suppress(OSError):
                os.close(server._forkserver_alive_fd)
        server._forkserver_address = server._forkserver_alive_fd = server._forkserver_pid = None
    _look_for_temporary_folder()


def _look_for_temporary_folder() -> None:
    """Find another one where the one that was found at first is gone; it is looked for once in a process."""
    config = vars(current_process())["_config"]
    if config.get("tempdir") and not Path(config["tempdir"]).is_dir():
        config["tempdir"] = None
    forget_lost_temporary_folder()


def _find_server() -> Any:
    """`multiprocessing` has one, and no public way to end it."""
    return vars(forkserver)["_forkserver"]


def _start_again(process: BaseProcess) -> None:
    try:
        process.start()
    except (OSError, EOFError) as error:
        cause = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise MachineError(
            f"no process to train in can be started ({cause}): see the folder for temporary files (TMPDIR)"
            " and its disk, and the limits of processes and open files"
        ) from None


@contextmanager
def _ending_a_stopped_server() -> Iterator[None]:
    """A server that was stopped (SIGSTOP) takes what it is asked, and never answers."""
    ended = threading.Event()

    def watch() -> None:
        pid = _find_server()._forkserver_pid
        is_stopped = Stopped(pid)
        while pid is not None and not ended.wait(LOOK_S):
            if is_stopped():
                os.kill(pid, signal.SIGKILL)
                return

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        ended.set()
