"""Two Label Studios count their projects from 1: the second is refused clearly, and the first stays whole."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from loop_fakes import CREATED, Bench, make_bench
from painted import LABEL_CONFIG, annotation_row, make_picture, paint_all

from ml_backend.web.app import create_app

LATER = str(int(CREATED) + 5000)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = make_bench(tmp_path)
    yield bench
    bench.close()


@pytest.fixture
def client(bench: Bench) -> FlaskClient:
    return create_app(bench.loop, bench.parts.settings).test_client()


def submit(client: FlaskClient, created: str, task_id: int) -> Any:
    made = datetime.fromtimestamp(int(created), timezone.utc).isoformat().replace("+00:00", "Z")
    row = annotation_row(100 * task_id, task_id, paint_all(make_picture(task_id)[1]), "2026-01-01T00:00:01Z")
    body = {
        "action": "ANNOTATION_CREATED",
        "annotation": row,
        "task": {"id": task_id, "data": {"image": f"/data/upload/1/{task_id}.png"}},
        "project": {"id": 1, "title": "t", "label_config": LABEL_CONFIG, "created_at": made},
    }
    return client.post("/webhook", json=body)


def connect(client: FlaskClient, created: str, hostname: str) -> Any:
    body = {"project": f"1.{created}", "schema": LABEL_CONFIG, "hostname": hostname}
    return client.post("/setup", json=body)


def test_a_second_label_studio_with_the_same_number_is_refused_and_hides_nothing(
    bench: Bench, client: FlaskClient
) -> None:
    assert submit(client, CREATED, 1).status_code == 201
    assert connect(client, LATER, "http://staging").status_code == 409
    assert submit(client, LATER, 2).status_code == 409  # never "recorded" for what is dropped
    assert connect(client, CREATED, "http://ls").status_code == 200
    assert submit(client, CREATED, 3).status_code == 201
    bench.loop.build_truth(1)
    assert bench.status()["annotations"]["received"] == 2
    assert all(row["pixels"] for row in bench.status()["readiness"]["classes"])


def test_the_refusal_says_what_an_operator_can_do(client: FlaskClient) -> None:
    submit(client, CREATED, 1)
    error = connect(client, LATER, "http://staging").json["error"]
    assert "Two Label Studios need a Brushloop each" in error
