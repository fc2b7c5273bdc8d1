"""Calls to a running Brushloop, each over a connection of its own, with their times."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

TIMEOUT_S = 120.0
POLL_S = 0.1


@dataclass(frozen=True)
class Service:
    """Where it listens, and the id of its first process where that is known."""

    host: str
    port: int
    pid: int = 0

    def call(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=TIMEOUT_S)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        return _parsed(path, *self.call("GET", path))

    def post(self, path: str, body: Any) -> Any:
        return _parsed(path, *self.call("POST", path, None if body is None else json.dumps(body).encode()))

    def timed_post(self, path: str, body: bytes) -> tuple[int, float]:
        """The status and the seconds of one call."""
        began = time.perf_counter()
        status, _ = self.call("POST", path, body)
        return status, time.perf_counter() - began

    def timed_health(self) -> float:
        began = time.perf_counter()
        status, _ = self.call("GET", "/health")
        if status != 200:
            raise RuntimeError(f"/health answered {status}")
        return time.perf_counter() - began

    def is_up(self) -> bool:
        try:
            return self.call("GET", "/health")[0] == 200
        except OSError:
            return False

    def status(self, project_id: int) -> dict[str, Any]:
        return dict(self.get(f"/api/projects/{project_id}/status"))

    def wait_until_learnt(self, project_id: int, timeout_s: float) -> dict[str, Any]:
        """Poll until nothing is pending or under way and there is a model."""
        deadline = time.monotonic() + timeout_s
        while True:
            status = self.status(project_id)
            if (
                status["state"] in ("idle", "refining")
                and not status["annotations"]["pending"]
                and status["model_version"]
            ):
                return status
            if status["state"] == "error" or time.monotonic() > deadline:
                raise RuntimeError(f"project {project_id} did not learn: {json.dumps(status)[:2000]}")
            time.sleep(POLL_S)


def percentile(seconds: Sequence[float], percent: float) -> float:
    return float(np.percentile(seconds, percent))


def _parsed(path: str, status: int, body: bytes) -> Any:
    if not 200 <= status < 300:
        raise RuntimeError(f"{path} answered {status}: {body[:500]!r}")
    return json.loads(body)
