"""The whole service in its own processes, over SQLite and over PostgreSQL with Redis: the same suite."""

from __future__ import annotations

import base64
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from service_backends import NAMES, choose_backend

from bench.fake_label_studio import API_KEY, FakeLabelStudio
from bench.fake_label_studio_app import run_fake
from bench.free_ports import free_port
from ml_backend.command.child_process import ChildProcess
from ml_backend.config import child_environment

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

HOST = "127.0.0.1"
AUTH = ("brushloop", "open sesame")
LEARNT, STEERED = 7, 8
"""A project for each story; they share the processes, whose start takes longer than what they do."""

SIDE_PX = 96
LONGEST_S = 500.0


class Service:
    """Web process and worker over one backend, and a client for them."""

    def __init__(self, fake: FakeLabelStudio, backend: Any, folder: Path) -> None:
        self.fake, self.folder = fake, folder
        self.port = free_port()
        self.environment = child_environment(
            {
                **backend.environment(),
                "LABEL_STUDIO_URL": fake.url,
                "LABEL_STUDIO_API_KEY": API_KEY,
                "BASIC_AUTH_USER": AUTH[0],
                "BASIC_AUTH_PASS": AUTH[1],
                "MIN_PIXELS_PER_CLASS": "500",
                "LEARNERS": "network",  # the composed services learn with all of them
                "ROUND_STEPS": "30",  # what a model can do is no question of how busy the machine is
                "TRAINING_THREADS": "1",
                "PREDICT_THREADS": "1",
                "QUIET_TIME_S": "0.5",
                "DRAFT_S": "0",
                "CONSOLIDATE_S": "0",
            },
            without=[name for name in ("DATABASE_URL", "REDIS_URL") if name not in backend.environment()],
        )
        self.http = httpx.Client(base_url=f"http://{HOST}:{self.port}", auth=AUTH, timeout=120)
        self.children: list[ChildProcess] = []

    def start(self) -> None:
        brushloop = [sys.executable, "-m", "ml_backend.command.cli"]
        serve = [*brushloop, "serve", "--host", HOST, "--port", str(self.port)]
        for name, command in (("web", serve), ("worker", [*brushloop, "worker"])):
            log = self.folder / f"{name}.log"
            self.children.append(ChildProcess(name, command, self.environment, log))
        deadline = time.monotonic() + LONGEST_S
        while not self.is_up():
            assert time.monotonic() < deadline, self.children[0].last_lines(40)
            assert self.children[0].is_running, self.children[0].last_lines(40)
            time.sleep(0.1)

    def stop(self) -> None:
        for child in self.children:
            child.stop()
        self.children.clear()

    def is_up(self) -> bool:
        try:
            return httpx.get(f"http://{HOST}:{self.port}/health", timeout=30).status_code == 200
        except httpx.HTTPError:
            return False

    def post(self, path: str, body: Any = None) -> httpx.Response:
        return self.http.post(path, json=body)

    def get(self, path: str) -> Any:
        answer = self.http.get(path)
        assert answer.status_code == 200, answer.text
        return json.loads(answer.text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))

    def api(self, project_id: int, path: str) -> Any:
        return self.get(f"/api/projects/{project_id}/{path}")

    def wait_until_learnt(self, project_id: int, n_annotations: int, after_round: int = 0) -> dict[str, Any]:
        """Poll `status` until that many annotations are accounted for and nothing is under way."""
        deadline = time.monotonic() + LONGEST_S
        while True:
            status = self.api(project_id, "status")
            counted = status["annotations"]
            done = counted["received"] == n_annotations and counted["pending"] == 0
            last = (status["last_round"] or {}).get("round", 0)
            if done and status["state"] == "idle" and last > after_round:
                return dict(status)
            assert status["state"] != "error", status["last_error"]
            assert time.monotonic() < deadline, (status, [c.last_lines(30) for c in self.children])
            time.sleep(0.1)

    def predict(self, project_id: int, *task_ids: int) -> list[Any]:
        answer = self.post("/predict", self.fake.predict_body(project_id, task_ids))
        assert answer.status_code == 200, answer.text
        return list(answer.json()["results"])


@contextmanager
def run_service(backend: Any, folder: Path) -> Iterator[Service]:
    fake = FakeLabelStudio({LEARNT: SIDE_PX, STEERED: SIDE_PX})
    with run_fake(fake):
        service = Service(fake, backend, folder)
        try:
            service.start()
            yield service
        finally:
            service.stop()
            service.http.close()


@pytest.fixture(scope="module")
def start_service(
    servers: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Service]]:
    """The service over a backend, started when first asked for; it runs until the last of the stories."""
    running: dict[str, Service] = {}
    with ExitStack() as exits:

        def start(name: str) -> Service:
            if name not in running:
                folder = tmp_path_factory.mktemp("service")
                backend = choose_backend(name, folder, servers, "http_service")
                running[name] = exits.enter_context(run_service(backend, folder))
            return running[name]

        yield start


@pytest.fixture(params=NAMES)
def service(request: pytest.FixtureRequest, start_service: Callable[[str], Service]) -> Service:
    return start_service(request.param)


@pytest.mark.slow(about_s=30)
def test_webhooks_become_a_model_that_predicts_and_a_restart_keeps_it(service):
    fake = service.fake
    answer = service.post("/setup", fake.setup_body(LEARNT))
    assert (answer.status_code, answer.json()) == (200, {"model_version": "untrained"})
    tasks = fake.add_tasks(LEARNT, 5)
    assert service.predict(LEARNT, tasks[4]) == [[]]
    assert service.api(LEARNT, "status")["state"] == "waiting"

    for task_id in tasks[:3]:
        assert service.post("/webhook", fake.paint(task_id)).status_code == 201
    status = service.wait_until_learnt(LEARNT, 3)
    assert status["annotations"] == {"received": 3, "trained": 3, "pending": 0}
    assert status["readiness"]["ready"]

    version = status["model_version"]
    assert service.post("/setup", fake.setup_body(LEARNT)).json() == {"model_version": version}
    assert version in service.get("/versions")["versions"]
    both = service.predict(LEARNT, tasks[3], tasks[4])
    for entry in both:
        assert entry["model_version"] == version
        assert 0 <= entry["score"] <= 1
    regions = [region for entry in both for region in entry["result"]]
    assert "brushlabels" in [region["type"] for region in regions]
    # On a busy machine the three make several rounds, and a later one need not be better.
    promoted = [report for report in service.api(LEARNT, "rounds") if report["promoted"]]
    assert promoted[0]["model_version"] == version

    service.stop()
    service.start()
    again = service.api(LEARNT, "status")
    for kept in ("model_version", "annotations", "readiness", "round", "last_round"):
        assert again[kept] == status[kept]
    assert service.predict(LEARNT, tasks[3], tasks[4]) == both

    assert service.post("/webhook", fake.paint(tasks[3])).status_code == 201
    later = service.wait_until_learnt(LEARNT, 4, after_round=status["last_round"]["round"])
    assert later["annotations"]["trained"] == 4


@pytest.mark.slow(about_s=30)
def test_a_missed_webhook_is_found_and_the_model_can_be_steered(service):
    fake = service.fake
    service.post("/setup", fake.setup_body(STEERED))
    tasks = fake.add_tasks(STEERED, 4)
    fake.paint(tasks[0])  # and its webhook never comes
    assert service.post(f"/api/projects/{STEERED}/train").status_code == 202
    first = service.wait_until_learnt(STEERED, 1)["model_version"]

    service.post("/webhook", fake.paint(tasks[1]))
    status = service.wait_until_learnt(STEERED, 2, after_round=1)
    service.post(f"/api/projects/{STEERED}/train")
    service.wait_until_learnt(STEERED, 2, after_round=status["last_round"]["round"])
    rolled_back = service.post(f"/api/projects/{STEERED}/rollback", {"model_version": first})
    assert rolled_back.status_code == 200
    assert service.api(STEERED, "status")["model_version"] == first
    assert service.predict(STEERED, tasks[2])[0]["model_version"] == first
    unknown = service.post(f"/api/projects/{STEERED}/rollback", {"model_version": "r9999-00000000"})
    assert unknown.status_code == 404
    assert service.post(f"/api/projects/{STEERED}/cancel").status_code == 202

    ranked = service.api(STEERED, "tasks?order=uncertainty")
    assert tasks[2] in [task["task"] for task in ranked]
    for kind in ("probability", "uncertainty"):
        picture = service.http.get(f"/api/projects/{STEERED}/tasks/{tasks[2]}/{kind}.png")
        assert picture.content.startswith(b"\x89PNG")
    truth = service.http.get(f"/api/projects/{STEERED}/tasks/{tasks[1]}/label_map.png")
    assert truth.content.startswith(b"\x89PNG")
    page = service.http.get(f"/projects/{STEERED}")
    assert page.status_code == 200
    assert first in page.text
    metrics = service.http.get("/metrics").text
    assert f'brushloop_annotations{{kind="received",project="{STEERED}"}} 2.0' in metrics

    assert httpx.get(f"http://{HOST}:{service.port}/metrics").status_code == 401
    logs = "".join(path.read_text() for path in service.folder.glob("*.log"))
    credentials = base64.b64encode(":".join(AUTH).encode()).decode()
    for secret in (AUTH[1], API_KEY, credentials):
        assert secret not in logs
