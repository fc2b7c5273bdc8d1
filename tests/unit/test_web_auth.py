"""Basic auth: everything but `/health` once it is configured, and no secret anywhere."""

from __future__ import annotations

import base64
import hmac
import logging

import pytest

from ml_backend.web import auth

USER, PASSWORD = "brush", "gehéim:with:colons"


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.fixture
def locked(make_client):
    return make_client(basic_auth_user=USER, basic_auth_pass=PASSWORD)


def every_rule(client):
    for rule in client.application.url_map.iter_rules():
        path = rule.rule
        for variable, value in (
            ("project_id", "3"),
            ("task_id", "1"),
            ("kind", "uncertainty"),
            ("filename", "dashboard.css"),
        ):
            for converter in (
                f"<int(min=1, max={2**63 - 1}):{variable}>",
                f"<path:{variable}>",
                f"<{variable}>",
            ):
                path = path.replace(converter, value)
        assert "<" not in path
        for method in rule.methods:
            yield method, path


def test_every_route_and_method_but_the_probes_needs_the_credentials(locked, loop):
    seen = set()
    for method, path in every_rule(locked):
        if path in ("/health", "/ready"):
            continue
        seen.add(path)
        answer = locked.open(path, method=method)
        assert answer.status_code == 401, (method, path)
        assert answer.headers["WWW-Authenticate"].startswith('Basic realm="Brushloop"')
    assert {"/", "/metrics", "/setup", "/webhook", "/api/projects/3/train", "/static/dashboard.css"} <= seen
    assert not loop.commands
    assert not loop.events


def test_the_probes_stay_open(locked):
    assert locked.get("/health").status_code == 200
    assert locked.get("/ready").status_code == 200


def test_unknown_addresses_tell_a_stranger_nothing(locked):
    assert locked.get("/nowhere").status_code == 401
    assert locked.get("/nowhere", headers=basic(USER, PASSWORD)).status_code == 404


def test_the_right_credentials_are_let_in(locked):
    assert locked.get("/api/projects", headers=basic(USER, PASSWORD)).status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        basic(USER, "wrong")["Authorization"],
        basic("wrong", PASSWORD)["Authorization"],
        basic(USER, "")["Authorization"],
        basic("", "")["Authorization"],
        basic(USER, PASSWORD)["Authorization"].replace("Basic", "Bearer"),
        "Basic",
        "Basic ",
        "Basic ***",
        "Basic \xff\xfe",
        "Basic " + base64.b64encode(b"nocolon").decode(),
        "Basic " + base64.b64encode(b"\xff\xfe:\x00").decode(),
        "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode() + "!",
        "Digest username=brush",
        "x" * 5000,
    ],
)
def test_wrong_credentials_schemes_and_garbage_get_401(locked, header):
    answer = locked.get("/api/projects", headers={"Authorization": header})
    assert answer.status_code == 401
    assert set(answer.json) == {"error", "id"}


def test_the_recorded_basic_auth_header_of_label_studio_is_understood(make_client, recorded):
    client = make_client(basic_auth_user="mluser", basic_auth_pass="mlpass")
    request = recorded("setup_basic_auth_extra_params")
    headers = {"Authorization": request["headers"]["Authorization"]}
    assert client.post("/setup", json=request["body"], headers=headers).status_code == 200


def test_both_parts_are_compared_in_constant_time(locked, monkeypatch):
    compared = []
    monkeypatch.setattr(auth.hmac, "compare_digest", lambda a, b: compared.append((a, b)) or a == b)
    locked.get("/api/projects", headers=basic("wrong", "wrong"))
    assert compared == [(b"wrong", USER.encode()), (b"wrong", PASSWORD.encode())]
    assert hmac.compare_digest is auth.hmac.compare_digest


@pytest.mark.parametrize("settings", [{"basic_auth_user": "brush"}, {"basic_auth_pass": "secret"}])
def test_half_a_credential_does_not_start_an_open_server(make_client, settings):
    with pytest.raises(ValueError, match="set together"):
        make_client(**settings)


def test_without_credentials_configured_everything_is_open(client):
    assert client.get("/api/projects").status_code == 200


def test_secrets_are_in_no_answer_and_no_log_line(make_client, loop, recorded, caplog):
    client = make_client(
        basic_auth_user=USER, basic_auth_pass=PASSWORD, label_studio_api_key="key-of-the-server"
    )
    setup = recorded("setup")["body"]
    right = basic(USER, PASSWORD)
    texts = []
    with caplog.at_level(logging.DEBUG):
        for headers in (right, basic(USER, "almost" + PASSWORD), {}):
            texts.append(client.post("/setup", json=setup, headers=headers).text)
            texts.append(
                client.post("/setup", json={**setup, "project": setup["access_token"]}, headers=headers).text
            )
            texts.append(client.post("/webhook", json={**setup, "action": 5}, headers=headers).text)
            texts.append(client.get("/api/projects/3/status", headers=headers).text)
            texts.append(client.get("/metrics", headers=headers).text)
        loop.failure = RuntimeError("out of luck")
        texts.append(client.post("/setup", json=setup, headers=right).text)
    everything = "\n".join([*texts, caplog.text])
    assert len(everything) > 1000
    for secret in (
        PASSWORD,
        "key-of-the-server",
        setup["access_token"],
        right["Authorization"].removeprefix("Basic "),
    ):
        assert secret not in everything
