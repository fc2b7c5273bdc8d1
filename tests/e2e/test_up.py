"""`brushloop up` on an empty folder: everything is there and connected, and nothing stays behind."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from stack import children_of, is_alive

from bench.free_ports import free_port
from ml_backend.command.demo_project import N_IMAGES, TITLE
from ml_backend.command.local_label_studio import HOST, load_login
from ml_backend.config import child_environment
from ml_backend.label_studio.connection import Connection

UP_TIMEOUT_S = 900
DOWN_TIMEOUT_S = 240
GONE_TIMEOUT_S = 60


pytestmark = pytest.mark.slow(about_s=50)


def test_one_command_starts_a_connected_demo_and_ctrl_c_ends_all_of_it(tmp_path: Path) -> None:
    ports = free_port(), free_port()
    log = tmp_path / "up.log"
    up = start_up(tmp_path / "data", ports, log)
    try:
        wait_until_told(up, log, "Brushloop is up")
        check_progress(log.read_text(), ports)
        check_demo(tmp_path / "data", ports, log.read_text())
        started = children_of(up.pid)
        assert len(started) >= 3, "Label Studio, the web process and its worker"
    finally:
        up.send_signal(signal.SIGINT)
        ended = up.wait(DOWN_TIMEOUT_S)
    assert ended == 0, log.read_text()
    wait_until_gone(started)


def start_up(folder: Path, ports: tuple[int, int], log: Path) -> subprocess.Popen[bytes]:
    options = ["--data-dir", str(folder), "--label-studio-port", str(ports[0]), "--port", str(ports[1])]
    with log.open("w") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "ml_backend.command.cli", "up", *options],
            env=child_environment({"COLUMNS": "200"}, without=("DATABASE_URL", "REDIS_URL")),
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def check_progress(told: str, ports: tuple[int, int]) -> None:
    """One line a step, and Label Studio's address as soon as it answers."""
    steps = [
        "starting Label Studio",
        f"Label Studio: http://{HOST}:{ports[0]} (log in as",
        "starting the backend and its worker",
        "preparing the demo project",
        "Brushloop is up",
    ]
    places = [told.index(step) for step in steps]
    assert places == sorted(places)


def check_demo(folder: Path, ports: tuple[int, int], told: str) -> None:
    """The login that was told works; project, backend and webhook are there, and Brushloop knows them."""
    label_studio_url, web_url = (f"http://{HOST}:{port}" for port in ports)
    login = load_login(folder / "login.json")
    assert login.email in told
    assert login.password in told
    found = re.search(r"/projects/(\d+)/data", told)
    assert found
    project_id = int(found.group(1))
    with closing(Connection(label_studio_url, str(login.access_token))) as connection:
        project = connection.request("GET", f"/api/projects/{project_id}")
        assert (project["title"], project["task_number"]) == (TITLE, N_IMAGES)
        [backend] = connection.request("GET", "/api/ml", params={"project": project_id})
        assert (backend["url"], backend["readable_state"]) == (web_url, "Connected")
        [webhook] = connection.request("GET", "/api/webhooks/", params={"project": project_id})
        assert webhook["url"] == f"{web_url}/webhook"
    assert httpx.get(f"{web_url}/api/projects/{project_id}/status").json()["state"] == "waiting"


def wait_until_told(up: subprocess.Popen[bytes], log: Path, words: str) -> None:
    deadline = time.monotonic() + UP_TIMEOUT_S
    while words not in log.read_text():
        assert up.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.5)


def wait_until_gone(pids: list[int]) -> None:
    """The fork server that trains for the worker ends a moment after it, by itself."""
    deadline = time.monotonic() + GONE_TIMEOUT_S
    while left := [pid for pid in pids if is_alive(pid)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.2)
