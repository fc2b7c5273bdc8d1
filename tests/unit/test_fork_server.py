"""A training process is started, and ended, whatever happened to the one that it is forked from."""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import MachineError
from ml_backend.processes import process_identity
from ml_backend.processes.process_identity import Stopped
from ml_backend.rounds import fork_server
from ml_backend.rounds.round_process import _listen
from ml_backend.rounds.troubles import judge

pytestmark = pytest.mark.timeout(240)

CONTEXT = multiprocessing.get_context("forkserver")
SERVER: Any = forkserver._forkserver  # type: ignore[attr-defined]


def do_nothing() -> None:
    """What a child does here."""


def wait_for_ever(pipe: Connection[Any, Any]) -> None:
    pipe.send(("progress", 0.5, None))
    threading.Event().wait()


def read_what_is_cut_short(path: Path, pipe: Connection[Any, Any]) -> None:
    pixels = np.load(path, mmap_mode="r")
    os.truncate(path, 1000)  # as another program, or a disk that fails, does it
    pipe.send(("done", int(pixels.sum())))


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    yield
    fork_server.renew()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_identity, "STOPPED_S", 0.2)
    monkeypatch.setattr(fork_server, "LOOK_S", 0.05)


def run_a_child() -> int | None:
    child = CONTEXT.Process(target=do_nothing)
    fork_server.start(child)
    child.join(120)
    return child.exitcode


def remove_address() -> None:
    Path(SERVER._forkserver_address).unlink()


def remove_folder() -> None:
    shutil.rmtree(Path(SERVER._forkserver_address).parent)


def kill() -> None:
    os.kill(SERVER._forkserver_pid, signal.SIGKILL)


def stop() -> None:
    os.kill(SERVER._forkserver_pid, signal.SIGSTOP)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "fault", [remove_address, remove_folder, kill, stop], ids=lambda fault: fault.__name__
)
def test_a_child_is_started_whatever_happened_to_its_server(fault: Callable[[], None]) -> None:
    assert run_a_child() == 0
    fault()
    assert run_a_child() == 0


def test_where_none_can_be_started_the_folder_for_temporary_files_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(forkserver, "connect_to_new_process", refuse)
    with pytest.raises(MachineError, match=r"No space left on device.*TMPDIR") as caught:
        fork_server.start(CONTEXT.Process(target=do_nothing))
    assert judge(caught.value).state == "interrupted"


@pytest.mark.usefixtures("quick")
def test_a_training_that_is_stopped_is_ended_and_said_instead_of_waited_for() -> None:
    ours, theirs = CONTEXT.Pipe()
    child = CONTEXT.Process(target=wait_for_ever, args=(theirs,), daemon=True)
    fork_server.start(child)
    assert child.pid is not None

    def stop_it(progress: float, eta_s: float | None) -> None:
        os.kill(child.pid or 0, signal.SIGSTOP)

    with pytest.raises(MachineError, match="SIGSTOP"):
        _listen(child, ours, stop_it, lambda: False, lambda: False)
    child.join(60)
    assert not child.is_alive()
    ours.close()
    theirs.close()


def test_a_process_counts_as_stopped_only_after_some_seconds() -> None:
    now = [100.0]
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        is_stopped = Stopped(child.pid, lambda: now[0])
        child.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED)
        assert not is_stopped()
        now[0] += 5
        assert is_stopped()
        child.send_signal(signal.SIGCONT)
        os.waitid(os.P_PID, child.pid, os.WCONTINUED)
        assert not is_stopped()
        child.communicate(b"\n")
    assert not Stopped(child.pid)()
    assert not Stopped(None)()


def test_a_training_whose_mapped_image_is_cut_short_says_what_to_look_for(tmp_path: Path) -> None:
    np.save(tmp_path / "image.npy", np.zeros(1_000_000, np.uint8))
    ours, theirs = CONTEXT.Pipe()
    child = CONTEXT.Process(target=read_what_is_cut_short, args=(tmp_path / "image.npy", theirs))
    fork_server.start(child)
    theirs.close()
    with pytest.raises(MachineError, match="SIGBUS; a file that it read was cut short") as caught:
        _listen(child, ours, lambda *_: None, lambda: False, lambda: False)
    assert judge(caught.value).state == "interrupted"
    ours.close()
