"""The calls under `/api`, and `/metrics`."""

from __future__ import annotations

import threading
import time

import pytest
from sqlalchemy.exc import OperationalError

from ml_backend.errors import LabelStudioUnavailableError


def test_projects_are_a_list(client):
    assert [p["project"] for p in client.get("/api/projects").json] == [3]


def test_status_is_the_document_of_the_loop(client, loop):
    assert client.get("/api/projects/3/status").json == loop.status(3)


def test_rounds_have_pages(client):
    first = [report["round"] for report in client.get("/api/projects/3/rounds?limit=3").json]
    second = [report["round"] for report in client.get("/api/projects/3/rounds?limit=3&before=5").json]
    assert (first, second) == ([7, 6, 5], [4, 3, 2])
    assert client.get("/api/projects/3/rounds?before=x").status_code == 400


def test_rounds_are_listed_newest_first(client):
    numbers = [report["round"] for report in client.get("/api/projects/3/rounds").json]
    assert numbers == sorted(numbers, reverse=True)


@pytest.mark.parametrize("command", ["train", "cancel"])
def test_train_and_cancel_are_accepted(client, loop, command):
    assert client.post(f"/api/projects/3/{command}").status_code == 202
    assert loop.commands == [(command, 3)]


def test_rollback_names_the_version_that_is_current_again(client, loop):
    answer = client.post("/api/projects/3/rollback", json={"model_version": "r0006-ffffffff"})
    assert (answer.status_code, answer.json) == (200, {"project": 3, "model_version": "r0006-ffffffff"})
    assert loop.commands == [("rollback", 3, "r0006-ffffffff")]


@pytest.mark.parametrize("version", [None, 7, "", "x" * 201, ["r0006-ffffffff"]])
def test_rollback_needs_the_name_of_a_version(client, loop, version):
    assert client.post("/api/projects/3/rollback", json={"model_version": version}).status_code == 400
    assert not loop.commands


def test_rollback_to_an_unknown_version_gets_404(client):
    assert (
        client.post("/api/projects/3/rollback", json={"model_version": "r9999-00000000"}).status_code == 404
    )


def test_tasks_are_ranked_and_limited(client):
    ranked = client.get("/api/projects/3/tasks?order=uncertainty&limit=2").json
    assert [task["task"] for task in ranked] == [11, 12]
    assert ranked[0]["regions"]


@pytest.mark.parametrize(
    "query",
    ["order=random", "limit=0", "limit=-1", "limit=x", "limit=1001", "limit=99999", "limit=²", "limit="],
)
def test_orders_and_limits_out_of_range_get_400(client, query):
    answer = client.get(f"/api/projects/3/tasks?{query}")
    assert answer.status_code == 400
    assert query.split("=")[0] in answer.json["error"]


@pytest.mark.parametrize("kind", ["probability", "uncertainty", "label_map"])
def test_pictures_are_png_and_revalidated(client, kind):
    path = f"/api/projects/3/tasks/5/{kind}.png"
    answer = client.get(path)
    assert answer.content_type == "image/png"
    assert answer.data.startswith(b"\x89PNG")
    again = client.get(path, headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")


def test_pictures_never_take_all_threads(make_client, loop):
    client = make_client(web_threads=4)
    loop.may_go_on.clear()
    path = "/api/projects/3/tasks/5/uncertainty.png"
    busy = threading.Thread(target=lambda: client.application.test_client().get(path))
    busy.start()
    while not loop.asked:
        time.sleep(0.005)
    refused = client.get(path)
    assert refused.status_code == 503
    assert refused.headers["Retry-After"] == "3"
    loop.may_go_on.set()
    busy.join()
    assert client.get(path).status_code == 200


def test_a_missing_picture_gets_404(client):
    assert client.get("/api/projects/3/tasks/404/uncertainty.png").status_code == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "status"),
        ("GET", "rounds"),
        ("GET", "tasks"),
        ("POST", "train"),
        ("POST", "cancel"),
        ("GET", "tasks/1/label_map.png"),
    ],
)
def test_an_unknown_project_gets_404(client, method, path):
    assert client.open(f"/api/projects/99/{path}", method=method).status_code == 404


def test_metrics_count_requests_webhooks_predictions_rounds_and_the_queue(client, recorded):
    client.post("/webhook", json=recorded("webhook_ANNOTATION_CREATED")["body"])
    client.post("/predict", json=recorded("predict_batch")["body"])
    client.get("/nowhere")
    text = client.get("/metrics").text
    for line in (
        'brushloop_webhooks_total{action="ANNOTATION_CREATED"} 1.0',
        "brushloop_predict_seconds_count 1.0",
        'brushloop_predicted_tasks_total{outcome="answered"} 2.0',
        'brushloop_request_seconds_count{route="/webhook",status="201"} 1.0',
        'brushloop_request_seconds_count{route="none",status="404"} 1.0',
        'brushloop_annotations{kind="pending",project="3"} 3.0',
        'brushloop_pool_tasks{kind="stale",project="3"} 12.0',
        'brushloop_project_state{project="3",state="training"} 1.0',
        'brushloop_project_state{project="3",state="idle"} 0.0',
        'brushloop_project_trouble{project="3"} 0.0',
        'brushloop_round_progress{project="3"} 0.42',
        'brushloop_rounds{outcome="promoted",project="3"} 5.0',
        'brushloop_rounds{outcome="kept",project="3"} 1.0',
        'brushloop_rounds{outcome="failed",project="3"} 1.0',
        'brushloop_effort{kind="strokes",project="3"} 6.0',
        'brushloop_effort{kind="lead_time_s",project="3"} 37.1',
        'brushloop_corrective_dice{project="3"} 0.91',
    ):
        assert line in text


def test_metrics_say_which_part_of_the_service_is_away_even_without_a_database(client, loop, monkeypatch):
    parts = ("database", "queue", "workers", "disk", "label_studio")
    checks = dict.fromkeys(parts) | {"database": "the database cannot be reached"}
    monkeypatch.setattr(loop, "ready", lambda: {"ready": False, "checks": checks})

    def read_nothing(last_rounds):
        raise OperationalError("SELECT 1", {}, Exception("connection refused"))

    monkeypatch.setattr(loop, "views", read_nothing)
    answer = client.get("/metrics")
    assert answer.status_code == 200
    for part in parts:
        assert f'brushloop_ready{{part="{part}"}} {0.0 if part == "database" else 1.0}' in answer.text


def test_two_apps_do_not_share_their_counters(make_client, recorded):
    first, second = make_client(), make_client()
    first.post("/webhook", json=recorded("webhook_START_TRAINING")["body"])
    assert "START_TRAINING" in first.get("/metrics").text
    assert "START_TRAINING" not in second.get("/metrics").text


def test_metrics_of_the_process_survive_a_loop_that_cannot_answer(client, loop):
    client.get("/health")
    loop.failure = LabelStudioUnavailableError("down")
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert 'route="/health"' in answer.text
