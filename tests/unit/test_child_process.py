"""Processes beside a command: ports, stopping, starting again."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from stack import is_alive

from ml_backend.command.child_process import ChildProcess, find_free_port, keep_running
from ml_backend.config import child_environment

SLEEP = [sys.executable, "-c", "import time; print('ready', flush=True); time.sleep(60)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('ready', flush=True); time.sleep(60)",
]


def wait_for(condition: Callable[[], object], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def start(command: list[str], folder: Path) -> ChildProcess:
    child = ChildProcess("the child", command, child_environment({}), folder / "logs" / "child.log")
    wait_for(lambda: "ready" in child.last_lines())
    return child


def test_a_taken_port_gives_way_to_the_next_free_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert find_free_port("127.0.0.1", port) > port


def test_a_child_ends_when_it_is_asked_to(tmp_path: Path) -> None:
    child = start(SLEEP, tmp_path)
    assert child.is_running
    child.stop()
    assert not child.is_running


def test_a_child_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    child = start(STUBBORN, tmp_path)
    child.stop(grace_s=0.2)
    assert not is_alive(child.pid)


def test_the_end_of_the_log_is_at_hand_for_an_error_message(tmp_path: Path) -> None:
    child = ChildProcess(
        "the child", [sys.executable, "-c", "raise SystemExit('no')"], child_environment({}), tmp_path / "log"
    )
    assert child.wait(20) == 1
    assert child.last_lines() == "no"


def test_a_child_that_dies_is_started_again_until_stop_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ml_backend.command.child_process.RESTART_AFTER_S", (0.01,))
    started: list[ChildProcess] = []
    stop = threading.Event()

    def start_one() -> ChildProcess:
        started.append(start(SLEEP, tmp_path))
        return started[-1]

    keeper = threading.Thread(target=keep_running, args=(start_one, stop))
    keeper.start()
    wait_for(lambda: started)
    os.kill(started[0].pid, 9)
    wait_for(lambda: len(started) == 2)
    stop.set()
    keeper.join(20)
    assert not any(child.is_running for child in started)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent is gone")
def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path\n"
        "from ml_backend.command.child_process import ChildProcess\n"
        f"child = ChildProcess('c', {SLEEP!r}, {{}}, Path({str(tmp_path / 'log')!r}))\n"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        wait_for(lambda: (tmp_path / "log").read_text())
        parent.kill()
    wait_for(lambda: not is_alive(pid))
