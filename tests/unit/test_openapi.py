"""`docs/openapi.yaml` says what the server does: every route, and what it answers."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest
import torch
import yaml
from flask import Flask
from loop_fakes import CREATED, Bench, make_bench
from openapi_spec_validator import validate
from painted import LABEL_CONFIG

from ml_backend.storage import health
from ml_backend.web.api_routes import DEFAULT_LIMIT, MAX_LIMIT, MAX_VERSION_CHARS, ORDERS
from ml_backend.web.app import create_app
from ml_backend.web.loop import PictureKind

DOCUMENT: dict[str, Any] = yaml.safe_load(
    (Path(__file__).parents[2] / "docs" / "openapi.yaml").read_text(encoding="utf-8")
)

NOT_FOR_CLIENTS = {"static"}
"""Endpoints that only the dashboard's own page asks for."""

BODIES: Mapping[str, Mapping[str, Any]] = {
    "rollback": {"model_version": "untrained"},
    "setup": {"project": f"1.{CREATED}", "schema": LABEL_CONFIG, "hostname": "http://label-studio"},
    "predict": {"project": f"1.{CREATED}", "tasks": [{"id": 1, "data": {"image": "/data/upload/1/1.png"}}]},
    "webhook": {"action": "SOMETHING_NEW", "project": {"id": 1, "created_at": "2026-11-22T07:18:49Z"}},
}

OPERATIONS = {
    operation["operationId"]: (method.upper(), path, operation)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
    if method != "parameters"
}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A loop with one trained round, and an answer for one task."""
    torch.set_num_threads(1)
    bench = make_bench(tmp_path_factory.mktemp("bench"))
    bench.submit(1, 2, 3)
    bench.loop.build_truth(1)
    bench.loop.run_round(1)
    with bench.parts.database.write() as connection:
        health.note_worker(connection, "elsewhere|1|1|w", bench.clock())
    bench.loop.suggest(1, [bench.task(1)], None, time.monotonic() + 60)
    yield bench
    bench.close()


@pytest.fixture(scope="module")
def app(bench: Bench) -> Flask:
    return create_app(bench.loop, bench.parts.settings)


def resolve(part: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part itself, or what its `$ref` names."""
    if "$ref" not in part:
        return part
    _, *names = part["$ref"].split("/")
    found: Any = DOCUMENT
    for name in names:
        found = found[name]
    return found


def check(value: Any, schema: Mapping[str, Any]) -> None:
    jsonschema.Draft202012Validator({**schema, "components": DOCUMENT["components"]}).validate(value)


def test_the_description_is_a_valid_one() -> None:
    validate(DOCUMENT)


def test_every_route_is_described_and_every_description_has_a_route(app: Flask) -> None:
    served = {
        (method, re.sub(r"<(?:[^:<>]*:)?(\w+)>", r"{\1}", rule.rule))
        for rule in app.url_map.iter_rules()
        if rule.endpoint not in NOT_FOR_CLIENTS
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert {(method, path) for method, path, _ in OPERATIONS.values()} == served


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_answers_are_as_described(name: str, app: Flask, bench: Bench) -> None:
    method, path, operation = OPERATIONS[name]
    body = BODIES.get(name)
    if name == "rollback":
        body = {"model_version": bench.status()["model_version"]}
    address = path.format(project_id=1, task_id=1, kind="uncertainty")
    answer = app.test_client().open(address, method=method, json=body)
    described = resolve(operation["responses"][str(answer.status_code)])
    assert answer.status_code < 300, answer.text
    assert answer.mimetype in described["content"]
    if answer.is_json:
        check(answer.json, described["content"]["application/json"]["schema"])


def test_a_prediction_is_as_described(app: Flask) -> None:
    results = app.test_client().post("/predict", json=BODIES["predict"]).json["results"]
    assert results[0]["result"]
    check(results[0], DOCUMENT["components"]["schemas"]["Prediction"])


@pytest.mark.parametrize("name", sorted(name for name in OPERATIONS if "{project_id}" in OPERATIONS[name][1]))
def test_an_unknown_project_is_refused_as_described(name: str, app: Flask) -> None:
    method, path, operation = OPERATIONS[name]
    address = path.format(project_id=99, task_id=1, kind="uncertainty")
    answer = app.test_client().open(address, method=method, json={"model_version": "r0001-0a1b2c3d"})
    described = resolve(operation["responses"][str(answer.status_code)])
    assert answer.status_code == 404
    check(answer.json, described["content"]["application/json"]["schema"])


@pytest.mark.parametrize("name", sorted(BODIES))
def test_a_body_that_is_no_object_is_refused_as_described(name: str, app: Flask) -> None:
    method, path, operation = OPERATIONS[name]
    answer = app.test_client().open(path.format(project_id=1), method=method, json=[])
    described = resolve(operation["responses"][str(answer.status_code)])
    check(answer.json, described["content"]["application/json"]["schema"])


def test_choices_and_limits_are_those_of_the_code() -> None:
    order, limit = (parameter["schema"] for parameter in OPERATIONS["listTasks"][2]["parameters"])
    assert order["enum"] == list(ORDERS)
    assert (limit["default"], limit["maximum"]) == (DEFAULT_LIMIT, MAX_LIMIT)
    path = DOCUMENT["paths"]["/api/projects/{project_id}/tasks/{task_id}/{kind}.png"]
    assert path["parameters"][-1]["schema"]["enum"] == list(get_args(PictureKind))
    body = OPERATIONS["rollback"][2]["requestBody"]["content"]["application/json"]["schema"]
    assert body["properties"]["model_version"]["maxLength"] == MAX_VERSION_CHARS
