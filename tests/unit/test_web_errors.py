"""Every failure has the same JSON form, the right status, an id that is in the log, and no inner parts."""

from __future__ import annotations

import logging

import pytest

from core import errors as core_errors
from core.errors import BrushloopError
from ml_backend import errors as service_errors
from ml_backend.errors import LabelStudioRefusedError
from ml_backend.web.app import status_of

TABLE = {
    "PayloadError": 400,
    "RLEError": 400,
    "UnauthorizedError": 401,
    "NotFoundError": 404,
    "ConflictError": 409,
    "TrainingError": 409,
    "NotEnoughTruthError": 409,
    "NonFiniteLossError": 409,
    "RoundCancelledError": 409,
    "TooLargeError": 413,
    "LabelConfigError": 422,
    "SchemaError": 422,
    "ImageError": 422,
    "ImageRefusedError": 422,
    "CheckpointError": 503,
    "DeviceError": 503,
    "EncoderError": 503,
    "BusyError": 503,
    "MachineError": 503,
    "OutOfMemoryError": 503,
    "ImageUnavailableError": 503,
    "LabelStudioImageError": 503,
    "LabelStudioError": 503,
    "LabelStudioUnavailableError": 503,
    "LabelStudioRefusedError": 503,
    "BrushloopError": 500,
    "ServiceError": 500,
    "DatabaseRefusedError": 500,
    "UncheckedCopyError": 500,
}


def make_error(kind: type[BrushloopError]) -> BrushloopError:
    return kind("no such thing", 403) if kind is LabelStudioRefusedError else kind("no such thing")


def all_kinds() -> list[type[BrushloopError]]:
    modules = (core_errors, service_errors)
    found = {
        v for m in modules for v in vars(m).values() if isinstance(v, type) and issubclass(v, BrushloopError)
    }
    return sorted(found, key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", all_kinds())
def test_every_error_of_both_packages_has_its_status(client, loop, kind):
    loop.failure = make_error(kind)
    answer = client.get("/api/projects/3/status")
    assert answer.status_code == TABLE[kind.__name__] == status_of(loop.failure)
    assert set(answer.json) == {"error", "id"}
    if answer.status_code != 500:
        assert answer.json["error"] == "no such thing"


def test_an_unexpected_failure_is_logged_with_its_traceback_and_sent_without(client, loop, caplog):
    loop.failure = RuntimeError("password=hunter2 in /some/path.py")
    with caplog.at_level(logging.ERROR):
        answer = client.get("/api/projects")
    assert answer.status_code == 500
    assert "hunter2" not in answer.text
    assert "Traceback" not in answer.text
    record = next(r for r in caplog.records if answer.json["id"] in r.getMessage())
    assert record.exc_info[1] is loop.failure


def test_a_refusal_is_logged_under_its_id(client, caplog):
    with caplog.at_level(logging.WARNING):
        answer = client.get("/api/projects/99/status")
    assert answer.status_code == 404
    assert any(
        answer.json["id"] in r.getMessage() and "no project 99" in r.getMessage() for r in caplog.records
    )


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/{0}", 404),
        ("POST", "/health", 405),
        ("GET", "/predict", 405),
        ("DELETE", "/api/projects", 405),
        ("GET", "/api/projects/0/status", 404),
        ("GET", "/api/projects/-1/status", 404),
        ("GET", "/api/projects/x/status", 404),
        ("GET", f"/api/projects/{10**40}/status", 404),
        ("GET", "/static/../app.py", 404),
        ("GET", "/static/%2e%2e/app.py", 404),
        ("GET", "/api/projects/3/tasks/1/secret.png", 404),
    ],
)
def test_wrong_addresses_and_methods_have_the_json_form_too(client, method, path, status):
    answer = client.open(path, method=method)
    assert answer.status_code == status
    assert set(answer.json) == {"error", "id"}


def test_a_wrong_method_says_which_ones_are_right(client):
    assert set(client.get("/predict").headers["Allow"].split(", ")) == {"POST", "OPTIONS"}


@pytest.mark.parametrize("path", ["/setup", "/predict", "/webhook", "/api/projects/3/rollback"])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"  ",
        b"[]",
        b"null",
        b'"text"',
        b"12",
        b"{",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": 1} x',
        b"{'a': 1}",
        b'{"a": "\xff"}',
        b'{"a": "\\ud800"}',
        b'{"a": "\\u0000"}',
        b'{"a": "\x00"}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b'{"a": ' + b"[" * 100_000,
        b'{"a": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b"\x1f\x8b\x08\x00compressed",
        b"action=ANNOTATION_CREATED",
        b"{}",
    ],
)
def test_a_body_that_is_not_one_json_object_gets_400(client, loop, path, body):
    answer = client.post(path, data=body, content_type="application/json")
    assert answer.status_code == 400
    assert set(answer.json) == {"error", "id"}
    assert len(answer.json["error"]) < 300
    assert not loop.events
    assert not loop.connected


def test_an_escaped_backslash_before_u0000_is_no_nul(client, recorded):
    body = recorded("webhook_PROJECT_UPDATED")["body"]
    body["project"]["title"] = "a\\u0000"
    assert client.post("/webhook", json=body).status_code == 201


def test_a_body_above_the_limit_gets_413(make_client, loop):
    client = make_client(max_body_mb=1)
    answer = client.post(
        "/webhook", data=b'{"a": "' + b"x" * 1024 * 1024 + b'"}', content_type="application/json"
    )
    assert answer.status_code == 413
    assert "MAX_BODY_MB" in answer.json["error"]
    assert not loop.events


def test_a_streamed_body_without_length_is_measured_while_it_is_read(make_client):
    class Endless:
        def read(self, size=-1):
            return b"x" * min(size if size > 0 else 65536, 65536)

        def readinto(self, buffer):
            buffer[:] = b"x" * len(buffer)
            return len(buffer)

        def readline(self, size=-1):
            return self.read(size)

    client = make_client(max_body_mb=1)
    answer = client.post(
        "/webhook",
        environ_overrides={
            "wsgi.input": Endless(),
            "wsgi.input_terminated": True,
            "HTTP_TRANSFER_ENCODING": "chunked",
            "CONTENT_TYPE": "application/json",
        },
    )
    assert answer.status_code == 413


def test_every_answer_carries_the_security_headers(client):
    for path in ("/health", "/nowhere", "/", "/static/dashboard.js", "/metrics"):
        headers = client.get(path, buffered=True).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_page_of_another_site_cannot_post(client, loop, site):
    answer = client.post("/api/projects/3/train", headers={"Sec-Fetch-Site": site})
    assert answer.status_code == 403
    assert not loop.commands
    assert client.post("/api/projects/3/train", headers={"Sec-Fetch-Site": "same-origin"}).status_code == 202


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/x", ""])
def test_what_a_form_of_any_page_can_send_is_refused(client, loop, kind):
    for path in ("/webhook", "/setup", "/predict", "/api/projects/3/rollback"):
        assert client.post(path, data=b"{}", content_type=kind).status_code == 415
    assert not loop.events


def test_a_post_from_the_origin_of_another_page_is_refused(client, loop):
    for origin in ("https://evil.example", "null", "http://localhost:1"):
        assert client.post("/api/projects/3/train", headers={"Origin": origin}).status_code == 403
    assert not loop.commands
    assert client.post("/api/projects/3/train", headers={"Origin": "http://localhost"}).status_code == 202


@pytest.mark.parametrize("host", ["evil.example", "b.evil.example:9090", "localhost.evil.example", "a@b.c"])
def test_a_name_that_is_not_ours_is_refused_with_the_setting_that_allows_it(client, host):
    answer = client.get("/api/projects", headers={"Host": host})
    assert answer.status_code == 400
    assert "ALLOWED_HOSTS" in answer.json["error"]
    assert client.get("/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["127.0.0.1:9090", "[::1]:90", "localhost", "backend:9090", "host.docker.internal"]
)
def test_addresses_and_names_of_a_local_network_are_ours(client, host):
    assert client.get("/api/projects", headers={"Host": host}).status_code == 200


def test_the_names_of_the_settings_are_ours(make_client):
    client = make_client(brushloop_url="https://b.example.org/x", allowed_hosts=("other.example.org",))
    for host in ("b.example.org", "OTHER.example.org:80"):
        assert client.get("/api/projects", headers={"Host": host}).status_code == 200
