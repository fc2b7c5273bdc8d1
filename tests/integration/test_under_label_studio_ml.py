"""Under the real `label-studio-ml start`, recorded calls get the answers that our own server gives.

`LABEL_STUDIO_ML_VENV` names an environment with label-studio-ml 2 and what Brushloop needs.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from services import free_port

from ml_backend.bootstrap import build_loop
from ml_backend.config import Settings
from ml_backend.web.app import create_app

ROOT = Path(__file__).parents[2]
ADAPTER = ROOT / "ml_backend" / "label_studio_ml_adapter.py"
RECORDED = ROOT / "tests" / "fixtures" / "label_studio"
VENV = os.environ.get("LABEL_STUDIO_ML_VENV")

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow(about_s=20),
    pytest.mark.skipif(VENV is None, reason="LABEL_STUDIO_ML_VENV names no environment of label-studio-ml 2"),
]

STARTS_WITHIN_S = 120.0


def load_recorded(name: str) -> dict[str, Any]:
    recorded: dict[str, Any] = json.loads((RECORDED / f"{name}.request.json").read_text())
    return recorded


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of `label-studio-ml start`, run as its documents say, over a data folder of its own."""
    folder, port = tmp_path_factory.mktemp("theirs"), free_port()
    environment = os.environ | {
        "PATH": f"{VENV}/bin:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "DATA_DIR": str(folder / "data"),
        "MODEL_DIR": str(folder / "notes"),
    }
    (folder / "notes").mkdir()
    command = f"{VENV}/bin/label-studio-ml"
    create = [command, "create", "backend", "--script", f"{ADAPTER}:Brushloop"]
    subprocess.run(create, cwd=folder, env=environment, check=True, capture_output=True)
    start = [command, "start", "backend", "--host", "127.0.0.1", "--port", str(port)]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            start, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            _wait_until_healthy(client, server, folder / "log")
            yield client
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # its command starts Python through a shell
        server.wait()


def _wait_until_healthy(client: httpx.Client, server: subprocess.Popen[bytes], log: Path) -> None:
    ends = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < ends and server.poll() is None:
        if _is_healthy(client):
            return
        time.sleep(0.1)
    pytest.fail(f"label-studio-ml did not start: {log.read_text()[-2000:]}")


def _is_healthy(client: httpx.Client) -> bool:
    try:
        return client.get("/health").is_success
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    settings = Settings(data_dir=tmp_path_factory.mktemp("ours"))
    loop = build_loop(settings)
    yield create_app(loop, settings).test_client()
    loop.parts.database.close()


def replay(ours: Any, theirs: httpx.Client, name: str) -> tuple[Any, Any]:
    """Both answers to one recorded request, as status and JSON."""
    request = load_recorded(name)
    one = ours.open(request["path"], method=request["method"], json=request["body"])
    other = theirs.request(request["method"], request["path"], json=request["body"])
    return (one.status_code, one.json), (other.status_code, other.json())


@pytest.mark.parametrize(
    "name",
    [
        "health",
        "setup",
        "setup_basic_auth_extra_params",
        "predict_open_task",
        "predict_batch",
        "predict_localfiles",
        "predict_interactive",
    ],
)
def test_a_recorded_call_gets_the_same_answer(ours: Any, theirs: httpx.Client, name: str) -> None:
    for call in ("setup", name):  # in any order of tests: a project is connected first
        one, other = replay(ours, theirs, call)
        assert other == one


@pytest.mark.parametrize(
    "name", ["ANNOTATION_CREATED", "ANNOTATION_CREATED_skipped", "ANNOTATION_UPDATED", "START_TRAINING"]
)
def test_a_recorded_event_is_recorded_by_both(ours: Any, theirs: httpx.Client, name: str) -> None:
    replay(ours, theirs, "setup")
    (status, answer), other = replay(ours, theirs, f"webhook_{name}")
    assert other == (status, {"result": answer, "status": "ok"})
