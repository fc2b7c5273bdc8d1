"""Label Studio's JSON: every recorded body is read, and a wrong one is refused with the field's path."""

from __future__ import annotations

import copy
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_backend.errors import PayloadError
from ml_backend.label_studio.payloads import (
    parse_predict,
    parse_project,
    parse_setup,
    parse_task,
    parse_webhook,
)
from ml_backend.label_studio.stamps import to_unix_time

FIXTURES = Path(__file__).parents[1] / "fixtures" / "label_studio"


def load(name: str) -> Any:
    return json.loads((FIXTURES / f"{name}.json").read_text(encoding="utf-8"))


def body_of(name: str) -> Any:
    return load(f"{name}.request")["body"]


def event(action: str, **extra: Any) -> dict[str, Any]:
    project = {"id": 7, "title": "t", "label_config": "<View/>", "created_at": "2026-11-22T07:18:49.192769Z"}
    return {"action": action, "project": project, **extra}


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("*.request.json")), ids=lambda path: path.stem)
def test_every_recorded_request_is_understood(path: Path) -> None:
    request = json.loads(path.read_text(encoding="utf-8"))
    parsers = {"/setup": parse_setup, "/predict": parse_predict, "/webhook": parse_webhook}
    if request["method"] == "POST":
        assert (
            parsers[request["path"]](request["body"]).project is not None if "webhook" in path.stem else True
        )
        parsers[request["path"]](request["body"])
    else:
        assert request["path"] in ("/health", "/versions")


def test_setup_gives_project_time_host_and_token() -> None:
    setup = parse_setup(body_of("setup"))
    assert (setup.project_id, setup.created_at) == (1, "1795331929")
    assert setup.hostname == "http://127.0.0.1:8080"
    assert setup.access_token == "0123456789abcdef0123456789abcdef01234567"
    assert setup.extra_params is None
    assert "<BrushLabels" in setup.label_config


def test_setup_keeps_extra_params_of_any_form() -> None:
    assert parse_setup(body_of("setup_basic_auth_extra_params")).extra_params == {
        "k": 1,
        "nested": {"a": [1]},
    }


def test_setup_and_webhook_name_a_projects_birth_alike() -> None:
    setup = parse_setup(body_of("setup"))
    hook = parse_webhook(body_of("webhook_ANNOTATION_CREATED"))
    assert (hook.project.project_id, hook.project.created_at) == (setup.project_id, setup.created_at)


def test_a_batch_of_tasks_comes_in_its_order() -> None:
    predict = parse_predict(body_of("predict_batch"))
    assert [task.task_id for task in predict.tasks] == [2, 3]
    assert predict.tasks[0].data == {"image": "/data/upload/1/c7076c0d-cell_1.png"}
    assert {task.project_id for task in predict.tasks} == {1}
    assert predict.context is None


def test_an_interactive_call_brings_its_context_and_annotations() -> None:
    predict = parse_predict(body_of("predict_interactive"))
    assert predict.context is not None
    assert predict.context["result"][0]["id"] == "g1"
    assert [a.annotation_id for a in predict.tasks[0].annotations] == [8]


def test_absolute_addresses_are_kept_as_they_are() -> None:
    predict = parse_predict(body_of("predict_localfiles"))
    assert predict.tasks[0].data["image"] == "http://127.0.0.1:8080/data/local-files/?d=project6/cell_0.png"


def test_a_created_annotation_is_read_whole() -> None:
    hook = parse_webhook(body_of("webhook_ANNOTATION_CREATED"))
    (annotation,) = hook.annotations
    assert hook.kind == "annotations-saved"
    assert (annotation.annotation_id, annotation.task_id, annotation.user_id) == (1, 1, 1)
    assert annotation.updated_at == "2026-11-22T07:20:24.006502Z"
    assert annotation.lead_time_s == 3.5
    assert not annotation.was_cancelled
    assert [region["id"] for region in annotation.result] == ["usr00001", "usr00002"]
    assert [task.data for task in hook.tasks] == [{"image": "/data/upload/1/9f334e29-cell_0.png"}]


def test_an_updated_annotation_is_saved_like_a_new_one() -> None:
    hook = parse_webhook(body_of("webhook_ANNOTATION_UPDATED"))
    assert hook.kind == "annotations-saved"
    assert hook.annotations[0].updated_at == "2026-11-22T07:20:24.427755Z"


def test_a_skipped_task_is_marked_as_cancelled() -> None:
    (annotation,) = parse_webhook(body_of("webhook_ANNOTATION_CREATED_skipped")).annotations
    assert annotation.was_cancelled
    assert list(annotation.result) == []


def test_a_list_of_annotations_comes_with_a_task_that_repeats() -> None:
    hook = parse_webhook(body_of("webhook_ANNOTATIONS_CREATED"))
    assert [(a.annotation_id, a.task_id) for a in hook.annotations] == [(4, 3), (5, 3)]
    assert [task.task_id for task in hook.tasks] == [3]


def test_deleted_annotations_are_ids_alone() -> None:
    hook = parse_webhook(body_of("webhook_ANNOTATIONS_DELETED"))
    assert (hook.kind, hook.deleted_annotation_ids) == ("annotations-deleted", (3,))


def test_created_and_deleted_tasks_are_listed() -> None:
    created = parse_webhook(body_of("webhook_TASKS_CREATED"))
    deleted = parse_webhook(body_of("webhook_TASKS_DELETED"))
    assert [task.task_id for task in created.tasks] == [4, 5]
    assert created.kind == "tasks-created"
    assert (deleted.kind, deleted.deleted_task_ids) == ("tasks-deleted", (4,))


def test_a_changed_label_config_arrives_with_the_project() -> None:
    hook = parse_webhook(body_of("webhook_PROJECT_UPDATED"))
    assert hook.kind == "project-updated"
    assert "BrushLabels" in hook.project.label_config
    assert hook.project.model_version == "backend"


def test_start_training_brings_no_annotations() -> None:
    hook = parse_webhook(body_of("webhook_START_TRAINING"))
    assert (hook.kind, hook.annotations) == ("start-training", ())


@pytest.mark.parametrize("action", ["PROJECT_DELETED", "LABEL_LINK_CREATED", "SOMETHING_NEW", ""])
def test_an_unknown_action_is_tolerated_and_ignored(action: str) -> None:
    hook = parse_webhook(event(action, whatever={"x": [1]}))
    assert (hook.kind, hook.action) == ("ignored", action)


@pytest.mark.parametrize("action", ["ANNOTATION_DELETED", "ANNOTATIONS_DELETED"])
@pytest.mark.parametrize("rows", [{"annotation": {"id": 9}}, {"annotations": [{"id": 9}]}])
def test_singular_and_plural_deletions_are_the_same(action: str, rows: dict[str, Any]) -> None:
    assert parse_webhook(event(action, **rows)).deleted_annotation_ids == (9,)


def test_an_annotation_without_task_id_takes_it_from_the_parallel_list() -> None:
    hook = parse_webhook(
        event(
            "ANNOTATIONS_CREATED",
            annotation=[{"id": 1, "result": []}, {"id": 2, "result": []}],
            task=[{"id": 5, "data": {}}, {"id": 6, "data": {}}],
        )
    )
    assert [a.task_id for a in hook.annotations] == [5, 6]


def test_an_annotation_whose_task_is_unknown_is_refused() -> None:
    with pytest.raises(PayloadError, match=r"annotation\.0\.task"):
        parse_webhook(event("ANNOTATION_CREATED", annotation={"id": 1, "result": []}))


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("updated_at", r"annotation 7: the time of the last change \(annotation\.0\.updated_at\): 'zzz'"),
        ("created_at", r"annotation 7: the time of creation \(annotation\.0\.created_at\): 'zzz'"),
    ],
)
def test_a_time_that_cannot_be_read_is_named_by_its_own_field(field: str, said: str) -> None:
    annotation = {"id": 7, "task": 5, "result": [], field: "zzz"}
    with pytest.raises(PayloadError, match=said):
        parse_webhook(event("ANNOTATION_CREATED", annotation=annotation))


def test_a_user_may_be_spelt_out_or_missing() -> None:
    rows = [
        {"id": 1, "task": 5, "result": [], "completed_by": who}
        for who in ({"id": 3, "email": "a@b"}, 4, None)
    ]
    hook = parse_webhook(event("ANNOTATIONS_CREATED", annotation=rows))
    assert [a.user_id for a in hook.annotations] == [3, 4, None]


def test_copies_of_model_output_are_marked_as_predictions() -> None:
    copied = {
        "id": 1,
        "task": 5,
        "parent_prediction": 8,
        "result": [{"id": "a"}, {"id": "b", "origin": "manual"}],
    }
    (annotation,) = parse_webhook(event("ANNOTATIONS_CREATED", annotation=[copied])).annotations
    assert [region["origin"] for region in annotation.result] == ["prediction", "prediction"]
    touched = {**copied, "lead_time": 3.5}  # somebody worked on it: by hand may be true
    (annotation,) = parse_webhook(event("ANNOTATION_CREATED", annotation=touched)).annotations
    assert [region["origin"] for region in annotation.result] == ["prediction", "manual"]
    assert "origin" not in copied["result"][0]  # type: ignore[index]


def test_the_annotation_that_a_copy_was_made_of_is_kept() -> None:
    copied = {"id": 2, "task": 5, "parent_annotation": 1, "lead_time": 2.0, "result": [{"id": "a"}]}
    (annotation,) = parse_webhook(event("ANNOTATION_CREATED", annotation=copied)).annotations
    assert annotation.copied_from == 1
    assert not annotation.from_prediction


def test_regions_made_over_the_api_keep_having_no_origin() -> None:
    made = {"id": 1, "task": 5, "parent_prediction": None, "result": [{"id": "a"}]}
    (annotation,) = parse_webhook(event("ANNOTATION_CREATED", annotation=made)).annotations
    assert list(annotation.result) == [{"id": "a"}]


def test_a_region_that_is_no_object_does_not_lose_the_annotation() -> None:
    odd = {"id": 1, "task": 5, "parent_prediction": 3, "result": ["odd", {"id": "a"}]}
    (annotation,) = parse_webhook(event("ANNOTATION_CREATED", annotation=odd)).annotations
    assert len(annotation.result) == 2


def test_a_task_row_of_the_api_is_read_with_its_annotations() -> None:
    task = parse_task(load("task_with_prediction.api"))
    assert (task.task_id, task.project_id, task.annotations) == (1, 1, ())
    with pytest.raises(PayloadError, match="project"):
        parse_task({"id": 1, "data": {}})


def test_a_project_row_of_the_api_is_read() -> None:
    project = parse_project(body_of("webhook_PROJECT_UPDATED")["project"])
    assert (project.project_id, project.title, project.created_at) == (1, "main-probe", "1795331929")


@pytest.mark.parametrize(
    "moment", ["2026-11-22T07:18:49Z", "2026-11-22T08:18:49.9+01:00", "2026-11-22T07:18:49"]
)
def test_times_with_and_without_zone_are_the_same_second(moment: str) -> None:
    if "." in moment:
        moment = moment.replace(".9", ".900000")
    assert to_unix_time(moment) == "1795331929"


@pytest.mark.parametrize(
    ("parse", "body", "path"),
    [
        (parse_setup, None, "JSON object"),
        (parse_setup, [1], "JSON object"),
        (parse_setup, {"project": "1.2"}, "schema"),
        (parse_setup, {"project": "x", "schema": ""}, "project"),
        (parse_setup, {"project": "0.1", "schema": ""}, "project"),
        (parse_setup, {"project": "9" * 30, "schema": ""}, "project"),
        (parse_setup, {"project": "٣.1", "schema": ""}, "project"),
        (parse_predict, {"project": "1.2"}, "tasks"),
        (parse_predict, {"project": "1.2", "tasks": {}}, "tasks"),
        (parse_predict, {"project": "1.2", "tasks": [{"id": 1, "data": {}}, {"id": 2}]}, r"tasks\.1\.data"),
        (parse_predict, {"project": "1.2", "tasks": [{"id": "1", "data": {}}]}, r"tasks\.0\.id"),
        (parse_predict, {"project": "1.2", "tasks": [{"id": True, "data": {}}]}, r"tasks\.0\.id"),
        (parse_predict, {"project": "1.2", "tasks": [{"id": 2**63, "data": {}}]}, r"tasks\.0\.id"),
        (parse_webhook, {"project": {"id": 1}}, "action"),
        (parse_webhook, {"action": "START_TRAINING"}, "project"),
        (parse_webhook, event("ANNOTATION_CREATED"), "annotation"),
        (parse_webhook, event("ANNOTATION_CREATED", annotation={"id": 1, "task": 2}), r"0\.result"),
        (
            parse_webhook,
            event("ANNOTATION_CREATED", annotation={"id": 1, "task": 2, "result": {}}),
            r"0\.result",
        ),
        (parse_webhook, event("ANNOTATIONS_DELETED", annotations=[{"id": 1}, {}]), r"1\.id"),
        (parse_webhook, {**event("X"), "project": {"id": 1, "created_at": "yesterday"}}, "created_at"),
    ],
)
def test_a_wrong_body_is_refused_with_the_path_of_the_field(parse: Any, body: object, path: str) -> None:
    with pytest.raises(PayloadError, match=path):
        parse(body)


@pytest.mark.parametrize(
    ("parse", "body", "words"),
    [
        (
            parse_predict,
            {"project": "1.2", "tasks": [{"id": 12}]},
            "task 12: the data of the task (tasks.0.data)",
        ),
        (parse_predict, {"project": "1.2", "tasks": [{"id": "x"}]}, "the number (tasks.0.id)"),
        (parse_setup, {"project": "1.2"}, "the labeling setup (schema)"),
        (
            parse_webhook,
            event("ANNOTATION_CREATED", annotation={"id": 5, "task": 12}),
            "task 12, annotation 5: the regions (annotation.0.result)",
        ),
        (
            parse_webhook,
            event("ANNOTATIONS_CREATED", annotations=[{"id": 5, "result": []}, {"id": 6, "result": 3}]),
            "annotation 6: the regions (annotation",
        ),
        (
            parse_predict,
            {"project": "1.2", "tasks": [{"id": 12, "data": {}, "annotations": [{"id": 5, "result": 1}]}]},
            "task 12, annotation 5: the regions (tasks.0.annotations.0.result)",
        ),
    ],
)
def test_a_refusal_names_what_people_see_before_the_path(parse: Any, body: object, words: str) -> None:
    with pytest.raises(PayloadError) as caught:
        parse(body)
    assert str(caught.value).startswith(words)


def test_errors_do_not_repeat_what_was_sent() -> None:
    with pytest.raises(PayloadError) as caught:
        parse_setup({"project": "1.2", "schema": "", "access_token": ["hunter2"]})
    assert "hunter2" not in str(caught.value)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    """A recorded body with one value anywhere in it replaced by anything."""
    path = draw(st.sampled_from(sorted(FIXTURES.glob("*.request.json"))))
    request = json.loads(path.read_text(encoding="utf-8"))
    body = copy.deepcopy(request["body"])
    node, parent, key = body, None, None
    while isinstance(node, (dict, list)) and node and (parent is None or draw(st.booleans())):
        keys = sorted(node) if isinstance(node, dict) else range(min(len(node), 5))
        parent, key = node, draw(st.sampled_from(keys))
        node = node[key]
    if parent is not None:
        parent[key] = draw(anything)
    return body


@settings(deadline=None, max_examples=300)
@given(mutated())
def test_a_damaged_body_is_read_or_refused_but_never_crashes(body: Any) -> None:
    for parse in (parse_setup, parse_predict, parse_webhook):
        with suppress(PayloadError):
            parse(body)


@pytest.mark.parametrize(
    "moment",
    ["zzz", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "2201-01-01", "1999-01-01"],
)
def test_a_moment_in_which_no_label_studio_ran_is_refused_with_its_field(moment: str, recorded: Any) -> None:
    body = recorded("webhook_ANNOTATION_CREATED")["body"]
    with pytest.raises(PayloadError, match="updated_at"):
        parse_webhook({**body, "annotation": {**body["annotation"], "updated_at": moment}})
    with pytest.raises(PayloadError, match="created_at"):
        parse_webhook({**body, "project": {**body["project"], "created_at": moment}})


@pytest.mark.parametrize("seconds", [1.5e308, -1.0, 10**400, "3", True, None, 1e9])
def test_a_senseless_lead_time_is_unknown_and_loses_no_stroke(seconds: object, recorded: Any) -> None:
    body = recorded("webhook_ANNOTATION_CREATED")["body"]
    event = parse_webhook({**body, "annotation": {**body["annotation"], "lead_time": seconds}})
    assert event.annotations[0].lead_time_s is None
    assert event.annotations[0].result
