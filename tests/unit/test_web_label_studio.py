"""Label Studio's calls, replayed as they were recorded, and the answers that it can live with."""

from __future__ import annotations

import json
import logging
import threading
import time

import pytest

WEBHOOKS = {
    "ANNOTATION_CREATED": "annotations-saved",
    "ANNOTATION_CREATED_skipped": "annotations-saved",
    "ANNOTATION_UPDATED": "annotations-saved",
    "ANNOTATIONS_CREATED": "annotations-saved",
    "ANNOTATIONS_DELETED": "annotations-deleted",
    "TASKS_CREATED": "tasks-created",
    "TASKS_DELETED": "tasks-deleted",
    "PROJECT_UPDATED": "project-updated",
    "START_TRAINING": "start-training",
}
PREDICTS = ("predict_open_task", "predict_batch", "predict_localfiles", "predict_interactive")


def replay(client, request):
    headers = {
        k: v for k, v in request["headers"].items() if k not in ("Host", "Content-Length", "Connection")
    }
    body = json.dumps(request["body"]) if request["body"] else None
    return client.open(request["path"], method=request["method"], headers=headers, data=body)


def test_health_is_up_and_names_the_model_class(client, recorded):
    answer = replay(client, recorded("health"))
    assert (answer.status_code, answer.json) == (200, {"status": "UP", "model_class": "Brushloop"})


def test_health_asks_neither_database_nor_queue(client, loop):
    loop.failure = RuntimeError("the database is gone")
    assert client.get("/health").status_code == 200


@pytest.mark.parametrize("name", ["setup", "setup_basic_auth_extra_params"])
def test_setup_answers_an_object_with_the_version_and_remembers_the_token(client, loop, recorded, name):
    request = recorded(name)
    answer = replay(client, request)
    assert (answer.status_code, answer.json) == (200, {"model_version": "r0007-0a1b2c3d"})
    project, created_at, config, hostname, token = loop.connected[0]
    assert f"{project}.{created_at}" == request["body"]["project"]
    assert (config, hostname, token) == tuple(
        request["body"][k] for k in ("schema", "hostname", "access_token")
    )


def test_setup_with_an_unusable_label_config_gets_422_and_the_log_has_the_cause(client, recorded, caplog):
    request = recorded("setup")
    request["body"]["schema"] = '<View><Text name="t" value="$text"/></View>'
    with caplog.at_level(logging.WARNING):
        answer = replay(client, request)
    assert answer.status_code == 422
    assert "<Image" in answer.json["error"]
    assert any(
        "refuse_label_config project=1" in r.getMessage() and "<Image" in r.getMessage()
        for r in caplog.records
    )
    assert request["body"]["access_token"] not in caplog.text


def test_a_smart_tool_is_answered_by_its_own_call_with_what_is_painted_so_far(client, loop, recorded):
    request = recorded("predict_interactive")
    answer = replay(client, request)
    ((context, painted),) = loop.prompts
    assert context == request["body"]["params"]["context"]
    assert painted == tuple(draft["result"] for draft in request["body"]["tasks"][0]["drafts"])
    assert [set(entry) for entry in answer.json["results"]] == [{"result", "score", "model_version"}]


def test_an_event_of_a_newer_page_is_answered_by_the_smart_tools(client, loop, recorded):
    request = recorded("predict_interactive")
    request["body"]["params"]["context"] = {"event": "capabilities"}
    replay(client, request)
    ((context, _),) = loop.prompts
    assert context == {"event": "capabilities"}


def test_an_empty_context_asks_about_whole_images(client, loop, recorded):
    request = recorded("predict_batch")
    request["body"]["params"]["context"] = {}
    replay(client, request)
    assert loop.prompts == []
    assert len(loop.asked[0][1]) == len(request["body"]["tasks"])


@pytest.mark.parametrize("name", PREDICTS)
def test_predict_answers_one_entry_per_task_in_order(client, loop, recorded, name):
    request = recorded(name)
    ids = [task["id"] for task in request["body"]["tasks"]]
    answer = replay(client, request)
    assert answer.status_code == 200
    assert loop.asked[0][1] == tuple(ids)
    assert len(answer.json["results"]) == len(ids)
    for entry in answer.json["results"]:
        assert isinstance(entry["result"], list)
        assert 0 <= entry["score"] <= 1
        assert entry["model_version"] == "r0007-0a1b2c3d"


def test_predict_gives_the_loop_80_seconds(client, loop, recorded):
    before = time.monotonic()
    replay(client, recorded("predict_batch"))
    assert before + 80 <= loop.asked[0][3] <= time.monotonic() + 80


def test_a_task_without_prediction_is_an_empty_list_and_never_null(client, loop, recorded):
    good = {"result": [], "score": 0.5, "model_version": "v"}
    loop.answers = [None, good]
    answer = replay(client, recorded("predict_batch"))
    assert answer.json["results"] == [[], good]


@pytest.mark.parametrize(
    "entry",
    [
        {"result": [], "score": None, "model_version": "v"},
        {"result": [], "score": "0.5", "model_version": "v"},
        {"result": [], "score": True, "model_version": "v"},
        {"result": [], "score": float("nan"), "model_version": "v"},
        {"result": [], "score": 1.5, "model_version": "v"},
        {"result": [], "score": 0.5, "model_version": None},
        {"result": [], "score": 0.5, "model_version": ""},
        {"result": [], "score": 0.5},
        {"result": None, "score": 0.5, "model_version": "v"},
        {"score": 0.5, "model_version": "v"},
    ],
)
def test_an_entry_that_would_cost_the_whole_batch_is_left_out(client, loop, recorded, entry):
    good = {"result": [], "score": 0.5, "model_version": "v"}
    loop.answers = [entry, good]
    assert replay(client, recorded("predict_batch")).json["results"] == [[], good]


@pytest.mark.parametrize("n_answers", [0, 1, 5])
def test_the_number_of_entries_is_the_number_of_tasks_whatever_the_loop_says(
    client, loop, recorded, n_answers
):
    loop.answers = [{"result": [], "score": 0.5, "model_version": "v"}] * n_answers
    assert len(replay(client, recorded("predict_batch")).json["results"]) == 2


def test_predict_without_tasks_is_an_empty_list_of_results(client, recorded):
    request = recorded("predict_batch")
    request["body"]["tasks"] = []
    assert replay(client, request).json == {"results": []}


@pytest.mark.parametrize(("name", "kind"), WEBHOOKS.items())
def test_a_webhook_is_recorded_and_answered_201(client, loop, recorded, name, kind):
    request = recorded(f"webhook_{name}")
    answer = replay(client, request)
    assert answer.status_code == 201
    assert "job" not in answer.json
    assert [event.kind for event in loop.events] == [kind]
    assert loop.events[0].action == request["body"]["action"]


def test_an_unknown_action_is_acknowledged_and_counted_as_other(client, loop, recorded):
    request = recorded("webhook_PROJECT_UPDATED")
    request["body"]["action"] = "REVIEW_CREATED"
    assert replay(client, request).status_code == 201
    assert 'brushloop_webhooks_total{action="other"} 1.0' in client.get("/metrics").text


def test_versions_are_listed(client, recorded):
    answer = replay(client, recorded("versions"))
    assert (answer.status_code, answer.json) == (200, {"versions": ["r0007-0a1b2c3d", "r0006-ffffffff"]})


def test_the_calls_work_below_a_path_prefix(client, recorded):
    answer = client.get("/health", environ_overrides={"SCRIPT_NAME": "/brushloop"})
    assert answer.status_code == 200


def test_predict_leaves_threads_free_and_declines_at_once_what_is_too_much(make_client, loop, recorded):
    client = make_client(web_threads=4)
    loop.may_go_on.clear()
    body = recorded("predict_batch")["body"]
    busy = [
        threading.Thread(target=lambda: client.application.test_client().post("/predict", json=body))
        for _ in range(2)
    ]
    for thread in busy:
        thread.start()
    while len(loop.asked) < 2:
        time.sleep(0.005)
    started = time.monotonic()
    assert client.post("/predict", json=body).json == {"results": [[], []]}
    assert client.get("/health").status_code == 200
    assert client.post("/webhook", json=recorded("webhook_START_TRAINING")["body"]).status_code == 201
    assert time.monotonic() - started < 20  # else it waits for half a minute
    loop.may_go_on.set()
    for thread in busy:
        thread.join()
    assert [bool(entry) for entry in client.post("/predict", json=body).json["results"]] == [True, True]


def test_a_place_is_given_back_when_the_loop_fails(make_client, loop, recorded):
    client = make_client(web_threads=4)
    body = recorded("predict_batch")["body"]
    loop.failure = RuntimeError("broken")
    assert [client.post("/predict", json=body).status_code for _ in range(5)] == [500] * 5
    loop.failure = None
    assert client.post("/predict", json=body).json["results"][0]["score"] == 0.25
