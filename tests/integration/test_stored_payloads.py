"""What gets past the border suits the database: SQLite and PostgreSQL are strict about different things."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from damaged_payloads import post_many

from ml_backend.bootstrap import build_loop
from ml_backend.web.app import create_app

pytestmark = pytest.mark.integration

RECORDED = Path(__file__).parents[1] / "fixtures" / "label_studio"
N_PAYLOADS = 1500


def load_recorded(name):
    return json.loads((RECORDED / f"{name}.request.json").read_text())


@pytest.fixture
def client(service_backend):
    settings = service_backend.settings()
    loop = build_loop(settings)
    yield create_app(loop, settings).test_client()
    loop.parts.database.close()


def test_damaged_payloads_do_not_upset_the_store(client):
    statuses, slowest = post_many(client, load_recorded, N_PAYLOADS, random.Random(7))
    assert slowest < 60  # a hang, not a busy machine
    assert min(statuses.values()) > 0, statuses
    for project in client.get("/api/projects").json:
        for part in ("status", "rounds", "tasks"):
            assert client.get(f"/api/projects/{project['project']}/{part}").status_code == 200
        assert client.get(f"/projects/{project['project']}").status_code == 200
    assert client.get("/metrics").status_code == 200


@pytest.mark.parametrize("seconds", ["2147483648", "253402300799", "9" * 20])
def test_a_project_may_be_born_at_any_time(client, seconds):
    body = load_recorded("setup")["body"] | {"project": f"1.{seconds}"}
    assert client.post("/setup", json=body).status_code == (200 if len(seconds) < 20 else 400)


@pytest.mark.parametrize("number", [2**31, 2**63 - 1])
def test_ids_may_be_as_large_as_a_column(client, number):
    body = load_recorded("webhook_ANNOTATION_CREATED")["body"]
    body["annotation"]["id"] = body["annotation"]["task"] = body["task"]["id"] = number
    body["annotation"]["completed_by"] = number
    assert client.post("/webhook", json=body).status_code == 201
    assert client.get("/api/projects/1/status").json["annotations"]["received"] == 1


@pytest.mark.parametrize("text", ["\u202e\U0001f58c", "x" * 200_000, "\\u0000", "'; DROP TABLE projects; --"])
def test_any_text_is_kept_as_it_is(client, text):
    body = load_recorded("webhook_PROJECT_UPDATED")["body"]
    body["project"]["title"] = text
    assert client.post("/webhook", json=body).status_code == 201
    assert client.get("/api/projects").json[0]["title"] == text
