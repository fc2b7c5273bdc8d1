"""The real programs that end-to-end tests talk to: Label Studio, and Brushloop started by its own command."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from numpy.typing import NDArray
from PIL import Image
from stack import children_of

from bench.free_ports import free_port
from ml_backend.command.child_process import ChildProcess
from ml_backend.command.local_label_studio import (
    HOST,
    Login,
    find_label_studio,
    load_login,
    start_label_studio,
    wait_until_healthy,
    with_access_token,
)
from ml_backend.config import Settings, child_environment
from ml_backend.label_studio.connection import Connection

VALIDATION_SWITCH = {"fflag_feat_utc_210_prediction_validation_15082025": "true"}
"""Label Studio then refuses predictions that do not fit the labeling setup; it ships switched off."""

AUTH = ("brushloop", "open sesame")

POLL_S = 0.5
LEARN_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class RealLabelStudio:
    """A Label Studio server with one user. `api_key` is the legacy key."""

    url: str
    login: Login
    personal_access_token: str
    connection: Connection
    process: ChildProcess

    @property
    def api_key(self) -> str:
        return self.login.legacy_key

    def find_tasks(self, title: str) -> tuple[int, list[int]]:
        """The project of a title, and its tasks in the order of their images."""
        request = self.connection.request
        found = request("GET", "/api/projects", params={"title": title})["results"]
        project_id = int(found[0]["id"])
        rows = request("GET", "/api/tasks", params={"project": project_id, "fields": "all"})["tasks"]
        by_name = sorted(rows, key=lambda row: str(row["data"]["image"]).split("-", 1)[1])
        return project_id, [int(row["id"]) for row in by_name]

    def stop(self) -> None:
        self.connection.close()
        self.process.stop()

    def kill(self) -> None:
        """End it at once, as the kernel does where memory runs out."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def launch_label_studio(folder: Path) -> RealLabelStudio:
    """Start the server with prediction validation switched on, and wait for it."""
    port = free_port()
    login = load_login(folder / "login.json")
    process = _start_label_studio(folder, port, login)
    url = f"http://{HOST}:{port}"
    try:
        wait_until_healthy(process, url)
        token = with_access_token(login, url).access_token
        assert token is not None
    except BaseException:
        process.stop()
        raise
    return RealLabelStudio(url, login, token, Connection(url, login.legacy_key), process)


def start_again(server: RealLabelStudio, folder: Path) -> RealLabelStudio:
    """Start a server that was killed, with the same data and at the same address."""
    process = _start_label_studio(folder, int(server.url.rpartition(":")[2]), server.login)
    again = replace(server, process=process)
    try:
        wait_until_healthy(process, server.url)
    except BaseException:
        process.stop()
        raise
    return again


def _start_label_studio(folder: Path, port: int, login: Login) -> ChildProcess:
    command, log = find_label_studio(Settings().label_studio_venv), folder / "label-studio.log"
    return start_label_studio(command, folder / "label-studio", port, login, log, VALIDATION_SWITCH)


@dataclass(frozen=True)
class Backend:
    """`brushloop serve --with-worker`, with basic auth."""

    url: str
    environment: Mapping[str, str]
    process: ChildProcess

    def command(self, *arguments: str) -> str:
        """Run `brushloop ...` as a person would; returns what it prints."""
        done = subprocess.run(
            [sys.executable, "-m", "ml_backend.command.cli", *arguments],
            env={**self.environment, "COLUMNS": "120"},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def get(self, path: str) -> Any:
        answer = httpx.get(self.url + path, auth=AUTH, timeout=60)
        assert answer.is_success, answer.text
        return answer.content if path.endswith(".png") else answer.json()

    def list_workers(self) -> list[int]:
        """The workers below the web process; their own children go with them."""
        below = children_of(self.process.pid)
        return [pid for pid in below if "ml_backend.worker" in " ".join(psutil.Process(pid).cmdline())]

    def truth(self, project_id: int, task_id: int) -> NDArray[np.uint8]:
        """`(H, W)` class indices that a task teaches."""
        picture = self.get(f"/api/projects/{project_id}/tasks/{task_id}/truth.png")
        return np.asarray(Image.open(io.BytesIO(picture)))

    def wait_until_learnt(
        self, project_id: int, n_annotations: int, timeout_s: float = 180
    ) -> dict[str, Any]:
        """Poll `status` until that many annotations are trained on and nothing is under way."""
        deadline = time.monotonic() + LEARN_TIMEOUT_S
        while True:
            status = self.get(f"/api/projects/{project_id}/status")
            counted = status["annotations"]
            if status["state"] == "idle" and not counted["pending"] and counted["trained"] >= n_annotations:
                return dict(status)
            assert status["state"] != "error", status["last_error"]
            assert time.monotonic() < deadline, status
            time.sleep(POLL_S)


@contextmanager
def run_backend(label_studio: RealLabelStudio, folder: Path, **settings: str) -> Iterator[Backend]:
    """Start web and worker by the command that people use; they end with the block."""
    port = free_port()
    url = f"http://{HOST}:{port}"
    environment = child_environment(
        {
            "LABEL_STUDIO_URL": label_studio.url,
            "LABEL_STUDIO_API_KEY": label_studio.personal_access_token,
            "BASIC_AUTH_USER": AUTH[0],
            "BASIC_AUTH_PASS": AUTH[1],
            "DATA_DIR": str(folder / "data"),
            "BRUSHLOOP_URL": url,
            "DRAFT_S": "0",
            "CONSOLIDATE_S": "0",
            **settings,
        },
        without=("DATABASE_URL", "REDIS_URL"),
    )
    process = ChildProcess(
        "the backend",
        [
            sys.executable,
            "-m",
            "ml_backend.command.cli",
            "serve",
            "--host",
            HOST,
            "--port",
            str(port),
            "--with-worker",
        ],
        environment,
        folder / "brushloop.log",
    )
    try:
        wait_until_healthy(process, url)
        yield Backend(url, environment, process)
    finally:
        process.stop()
