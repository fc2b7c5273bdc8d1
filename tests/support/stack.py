"""Web processes and workers as they run in earnest, beside a fake Label Studio; made to be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
from sending_label_studio import SendingLabelStudio

from bench.fake_label_studio import API_KEY
from bench.fake_label_studio_app import run_fake
from bench.free_ports import free_port

ROOT = Path(__file__).parents[2]


class Stack:
    """One web process and any number of workers over the same data."""

    def __init__(
        self, folder: Path, environment: Mapping[str, str], port: int, server: SendingLabelStudio
    ) -> None:
        self.folder, self.port, self.server = folder, port, server
        self.url = f"http://127.0.0.1:{port}"
        self.environment = {
            **{
                name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL")
            },
            "LABEL_STUDIO_URL": server.url,
            "LABEL_STUDIO_API_KEY": API_KEY,
            "MIN_PIXELS_PER_CLASS": "100",
            "QUIET_TIME_S": "0.3",
            "LEARNERS": "network",
            "ROUND_BUDGET_S": "1",
            "ROUND_WARM_BUDGET_S": "1",
            "DRAFT_S": "0",
            "CONSOLIDATE_S": "0",
            "TRAINING_THREADS": "1",
            "PREDICT_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
            **environment,
        }
        self.web: subprocess.Popen[bytes] | None = None
        self.workers: list[subprocess.Popen[bytes]] = []

    def start_web(self, timeout_s: float = 60) -> None:
        self.web = self._start("web", "serve", "--port", str(self.port))
        wait_until(self._web_answers, timeout_s, "the web process answers", self.describe)

    def start_worker(self) -> subprocess.Popen[bytes]:
        worker = self._start("worker", "worker")
        self.workers.append(worker)
        return worker

    def kill_web(self) -> None:
        if self.web:
            _kill(self.web)
            self.web = None

    def kill_workers(self) -> None:
        while self.workers:
            _kill(self.workers.pop())

    def _web_answers(self) -> bool:
        """Whether it does; one that ended says why, in its log."""
        assert self.web, "no web process was started"
        assert self.web.poll() is None, f"the web process ended with {self.web.returncode}\n{self.describe()}"
        return self.is_up()

    def is_up(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=60).status_code == 200
        except httpx.HTTPError:
            return False

    def status(self) -> dict[str, Any]:
        answer = httpx.get(f"{self.url}/api/projects/1/status", timeout=60)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def wait_until_trained(self, timeout_s: float = 120) -> dict[str, Any]:
        """The status, once nothing is pending and nothing goes on."""

        def is_done() -> bool:
            status = self.status()
            return status["state"] == "idle" and status["annotations"]["pending"] == 0

        wait_until(is_done, timeout_s, "every annotation is trained on", self.describe)
        return self.status()

    def stop(self) -> None:
        """End everything politely, as a container would."""
        for process in [*self.workers, *([self.web] if self.web else [])]:
            process.terminate()
        for process in [*self.workers, *([self.web] if self.web else [])]:
            try:
                process.wait(120)
            except subprocess.TimeoutExpired:  # noqa: PERF203 - each has its own patience
                _kill(process)
        self.workers, self.web = [], None

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def _start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "ml_backend.command.cli", *arguments],
                env=self.environment,
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )

    def describe(self) -> str:
        logs = [f"--- {file.name}\n{file.read_text()[-4000:]}" for file in sorted(self.folder.glob("*.log"))]
        with suppress(httpx.HTTPError):
            logs.insert(
                0, str({k: v for k, v in self.status().items() if k not in ("last_round", "readiness")})
            )
        return "\n".join(logs)


@contextmanager
def running_stack(folder: Path, environment: Mapping[str, str], **changes: str) -> Iterator[Stack]:
    """A stack with its fake Label Studio; nothing of the backend is started yet."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    with ExitStack() as exits:
        server = SendingLabelStudio(f"http://127.0.0.1:{port}")
        exits.enter_context(run_fake(server))
        stack = Stack(folder, {**environment, **changes}, port, server)
        exits.callback(stack.stop)
        yield stack


PATIENCE = 5.0
"""A busy machine is slow, not wrong: waits end when the condition holds, and give up this much later."""


def wait_until(
    is_true: Callable[[], bool], timeout_s: float, what: str, describe: Callable[[], str] = lambda: ""
) -> None:
    deadline = time.monotonic() + PATIENCE * timeout_s
    while time.monotonic() < deadline:
        with suppress(httpx.HTTPError):
            if is_true():
                return
        time.sleep(0.1)
    raise AssertionError(f"not within {PATIENCE * timeout_s:g} s: {what}\n{describe()}")


def children_of(pid: int) -> list[int]:
    """Processes below one."""
    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie that nobody collected does not."""
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False


def _kill(process: subprocess.Popen[bytes]) -> None:
    """As the kernel does it: no handler runs, no buffer is written."""
    process.send_signal(signal.SIGKILL)
    process.wait(60)
