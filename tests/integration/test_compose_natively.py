"""What docker-compose.yml says, run without Docker: its commands and environments over Debian's servers."""

from __future__ import annotations

import secrets
import shutil
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import sqlalchemy as sa
from compose import ROOT, load_compose

from bench.fake_label_studio import FakeLabelStudio
from bench.fake_label_studio_app import run_fake
from bench.free_ports import free_port
from ml_backend.command.child_process import ChildProcess
from ml_backend.config import child_environment

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

PROJECT = 5
LONGEST_S = 500.0


def pointed_at_this_machine(value: str, addresses: dict[str, str]) -> str:
    """An address between containers, with the host and port that play the container here."""
    parts = urlsplit(value)
    if parts.hostname not in addresses:
        return value
    login = f"{parts.username}:{parts.password}@" if parts.username else ""
    return parts._replace(netloc=login + addresses[parts.hostname]).geturl()


@pytest.fixture
def values():
    """What somebody would write into .env."""
    return {
        "POSTGRES_PASSWORD": secrets.token_hex(8),
        "LABEL_STUDIO_USERNAME": "admin@example.org",
        "LABEL_STUDIO_PASSWORD": secrets.token_hex(8),
        "LABEL_STUDIO_API_KEY": "0123456789abcdef0123456789abcdef01234567",
        "BASIC_AUTH_USER": "brush",
        "BASIC_AUTH_PASS": secrets.token_hex(8),
    }


@pytest.fixture
def databases(servers, values, request):
    """The databases that the PostgreSQL container makes: one by POSTGRES_DB, one by the mounted script."""
    database_url, redis_url = servers(request.node.name)
    compose = load_compose(values)["services"]["postgres"]
    engine = sa.create_engine(
        database_url.replace("postgresql://", "postgresql+psycopg://"), isolation_level="AUTOCOMMIT"
    )
    script = next(v.split(":")[0] for v in compose["volumes"] if v.startswith("./"))
    with engine.connect() as connection:
        connection.execute(sa.text(f'CREATE DATABASE "{compose["environment"]["POSTGRES_DB"]}"'))
        for line in (ROOT / script).read_text().splitlines():
            if not line.startswith("--"):
                connection.execute(sa.text(line))
        names = set(connection.execute(sa.text("SELECT datname FROM pg_database")).scalars())
    engine.dispose()
    label_studio = load_compose(values)["services"]["label-studio"]["environment"]
    assert {label_studio["POSTGRE_NAME"], compose["environment"]["POSTGRES_DB"]} <= names
    return {"postgres": urlsplit(database_url).netloc.split("@")[1], "redis": urlsplit(redis_url).netloc}


@pytest.mark.slow(about_s=45)
def test_the_services_of_the_compose_file_learn_together(databases, values, tmp_path):
    fake = FakeLabelStudio({PROJECT: 96})
    port = free_port()
    children: list[ChildProcess] = []
    with run_fake(fake) as address:
        hosts = {**databases, "label-studio": urlsplit(address).netloc, "web": f"127.0.0.1:{port}"}
        compose = load_compose({**values, "MIN_PIXELS_PER_CLASS": "500"})["services"]
        try:
            for name in ("web", "worker", "worker"):
                environment = {
                    key: pointed_at_this_machine(str(value), hosts)
                    for key, value in compose[name]["environment"].items()
                }
                environment |= {
                    "DATA_DIR": str(tmp_path / "data"),
                    "ROUND_BUDGET_S": "2",
                    "CONSOLIDATE_S": "0",
                }
                command = [*find_command(compose[name]["command"][0]), *compose[name]["command"][1:]]
                command = [str(port) if part == "9090" else part for part in command]
                log = tmp_path / f"{name}{len(children)}.log"
                children.append(ChildProcess(name, command, child_environment(environment), log))
            learn_one_round(fake, f"http://127.0.0.1:{port}", values, children)
        finally:
            for child in children:
                child.stop()


def find_command(name: str) -> list[str]:
    """The installed command, or its module where the project is not installed."""
    assert name == "brushloop"
    found = shutil.which(name, path=str(Path(sys.exec_prefix) / "bin"))
    return [found] if found else [sys.executable, "-m", "ml_backend.command.cli"]


def learn_one_round(fake, url, values, children):
    auth = (values["BASIC_AUTH_USER"], values["BASIC_AUTH_PASS"])
    with httpx.Client(base_url=url, auth=auth, timeout=120) as http:
        deadline = time.monotonic() + LONGEST_S
        while not is_up(url):
            assert time.monotonic() < deadline, children[0].last_lines(40)
            time.sleep(0.1)
        assert httpx.get(f"{url}/api/projects").status_code == 401
        assert http.post("/setup", json=fake.setup_body(PROJECT)).status_code == 200
        tasks = fake.add_tasks(PROJECT, 3)
        for task_id in tasks[:2]:
            assert http.post("/webhook", json=fake.paint(task_id)).status_code == 201
        while True:
            status = http.get(f"/api/projects/{PROJECT}/status").json()
            if status["state"] == "idle" and not status["annotations"]["pending"] and status["model_version"]:
                break
            assert time.monotonic() < deadline, (status, [child.last_lines(30) for child in children])
            time.sleep(0.2)
        entry = http.post("/predict", json=fake.predict_body(PROJECT, tasks[2:])).json()["results"][0]
        assert entry["model_version"] == status["model_version"]


def is_up(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=30).status_code == 200
    except httpx.HTTPError:
        return False
