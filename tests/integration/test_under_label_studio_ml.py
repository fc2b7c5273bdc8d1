"""Under the real `label-studio-ml start`, recorded calls get the answers that our own server gives.

`LABEL_STUDIO_ML_VENV` names an environment with label-studio-ml 2 and what Brushloop needs.
"""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from label_studio_sdk.converter.brush import decode_rle
from loop_fakes import CREATED, make_bench
from painted import LABEL_CONFIG, SIDE_PX, make_picture
from PIL import Image

from bench.free_ports import free_port
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

STARTS_WITHIN_S = ANSWERS_WITHIN_S = 120.0


def load_recorded(name: str) -> dict[str, Any]:
    recorded: dict[str, Any] = json.loads((RECORDED / f"{name}.request.json").read_text())
    return recorded


@contextmanager
def run_theirs(folder: Path, data_dir: Path) -> Iterator[httpx.Client]:
    """A client of `label-studio-ml start`, run as its documents say, over a data folder."""
    port = free_port()
    environment = os.environ | {
        "PATH": f"{VENV}/bin:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "DATA_DIR": str(data_dir),
        "MODEL_DIR": str(folder / "notes"),
        "PREDICT_DEADLINE_S": str(ANSWERS_WITHIN_S),
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
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=ANSWERS_WITHIN_S) as client:
            _wait_until_healthy(client, server, folder / "log")
            yield client
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # its command starts Python through a shell
        server.wait()


@contextmanager
def run_ours(data_dir: Path) -> Iterator[Any]:
    """A client of our own server over a data folder, in this process."""
    settings = Settings(data_dir=data_dir, predict_deadline_s=ANSWERS_WITHIN_S)
    loop = build_loop(settings)
    try:
        yield create_app(loop, settings).test_client()
    finally:
        loop.parts.database.close()


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("theirs")
    with run_theirs(folder, folder / "data") as client:
        yield client


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
    with run_ours(tmp_path_factory.mktemp("ours")) as client:
        yield client


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


def test_a_trained_model_says_the_same_through_both(tmp_path: Path) -> None:
    data = train_once(tmp_path / "data")
    shutil.copytree(data, tmp_path / "copy")  # neither finds what the other has answered
    body = {
        "tasks": [drawn_task(task_id) for task_id in (1, 7)],  # painted, and never seen before
        "project": f"1.{CREATED}",
        "label_config": LABEL_CONFIG,
        "params": {},
    }
    with run_ours(data) as ours, run_theirs(tmp_path, tmp_path / "copy") as theirs:
        one, other = ours.post("/predict", json=body), theirs.post("/predict", json=body)
    assert one.status_code == other.status_code == 200
    answers, same = one.json["results"], other.json()["results"]
    assert [(found["model_version"], found["score"]) for found in same] == [
        (found["model_version"], found["score"]) for found in answers
    ]
    assert all(found["model_version"].startswith("r0001-") for found in answers)
    for found, alike in zip(answers, same, strict=True):
        assert masks_of(found)
        assert masks_of(alike) == masks_of(found)
        assert [without_id(entry) for entry in alike["result"]] == [
            without_id(entry) for entry in found["result"]
        ]


def train_once(folder: Path) -> Path:
    """A data folder whose project 1 has a model of one round on two painted images."""
    bench = make_bench(folder)
    bench.submit(1, 2)
    bench.loop.build_truth(1)
    bench.loop.run_round(1)
    bench.close()
    return folder


def drawn_task(task_id: int) -> dict[str, Any]:
    """A task that holds its image, so that both servers can open it."""
    file = io.BytesIO()
    Image.fromarray(make_picture(task_id)[0][..., 0]).save(file, format="PNG")
    return {
        "id": task_id,
        "data": {"image": f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"},
    }


def masks_of(found: dict[str, Any]) -> list[tuple[str, bytes]]:
    """The class and the pixels of each region of the brush, by Label Studio's own decoder."""
    return [
        (entry["value"]["brushlabels"][0], pixels_of(entry["value"]["rle"]))
        for entry in found["result"]
        if entry["type"] == "brushlabels"
    ]


def pixels_of(rle: list[int]) -> bytes:
    alpha = decode_rle(rle).reshape(SIDE_PX, SIDE_PX, 4)[..., 3]
    assert np.any(alpha)
    return alpha.tobytes()


def without_id(entry: dict[str, Any]) -> dict[str, Any]:
    """Regions get new names with each answer; all else is compared."""
    return {**entry, "id": ""}
