"""The web process on a real socket: sizes, lies about sizes, slow clients, and how it stops."""

from __future__ import annotations

import errno
import http.client
import json
import os
import resource
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from stack import wait_until

from ml_backend.config import Settings
from ml_backend.web import server
from ml_backend.web.app import RETRY_AFTER_S, create_app
from ml_backend.web.server import bind, serve

MB = 1024 * 1024
STUCK_S = 25.0
"""What waits for somebody else waits longer than this; a busy machine does not."""


@contextmanager
def running(loop, most_connections=server.CONNECTION_LIMIT, **settings):
    """A server in a thread; yields its port."""
    chosen = Settings(**{"web_threads": 4, "max_body_mb": 1, **settings})
    listener = bind("127.0.0.1", 0)
    stop = threading.Event()
    app = create_app(loop, chosen)
    thread = threading.Thread(target=serve, args=(app, chosen, listener, stop, most_connections))
    port = listener.getsockname()[1]
    thread.start()
    try:
        yield port, stop
    finally:
        stop.set()
        loop.may_go_on.set()
        thread.join(15)
        assert not thread.is_alive()


def ask(port, method, path, body=None, headers=None, **options):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(
            method, path, body, {"Content-Type": "application/json", **(headers or {})}, **options
        )
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers
    finally:
        connection.close()


def ask_raw(port, text):
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(text)
        connection.shutdown(socket.SHUT_WR)
        received = b""
        while data := connection.recv(65536):
            received += data
    return received


def wait_until_closed(port):
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return
        time.sleep(0.01)
    raise AssertionError("the server still takes connections")


def test_it_answers_and_does_not_say_what_it_is_made_of(loop):
    with running(loop) as (port, _):
        status, body, headers = ask(port, "GET", "/health")
    assert (status, json.loads(body)["status"]) == (200, "UP")
    assert "Server" not in headers


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_above_the_limit_is_refused_readably(loop, chunked):
    body = b'{"a": "' + b"x" * (2 * MB) + b'"}'
    with running(loop) as (port, _):
        if chunked:
            parts = (body[i : i + 65536] for i in range(0, len(body), 65536))
            status, answer, _ = ask(port, "POST", "/webhook", parts, encode_chunked=True)
        else:
            status, answer, _ = ask(port, "POST", "/webhook", body)
    assert status == 413
    assert set(json.loads(answer)) == {"error", "id"}
    assert not loop.events


def test_a_length_far_above_the_limit_is_refused_without_reading_on(loop):
    with running(loop) as (port, _):
        started = time.monotonic()
        answer = ask_raw(port, b"POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n{")
    assert answer.startswith(b"HTTP/1.1 413")
    assert set(json.loads(answer.split(b"\r\n\r\n", 1)[1])) == {"error", "id"}
    assert time.monotonic() - started < STUCK_S


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: -5\r\n",
        b"Content-Length: 5x\r\n",
        b"Content-Length: 5\r\nContent-Length: 9\r\n",
        b"Transfer-Encoding: gzip\r\n",
        b"No colon here\r\n",
    ],
)
def test_broken_requests_are_refused_in_the_same_form(loop, head):
    with running(loop) as (port, _):
        answer = ask_raw(port, b"POST /webhook HTTP/1.1\r\nHost: x\r\n" + head + b"\r\nhello")
        assert ask(port, "GET", "/health")[0] == 200
    status = int(answer.split()[1])
    assert 400 <= status < 600
    assert set(json.loads(answer.split(b"\r\n\r\n", 1)[1])) == {"error", "id"}
    assert not loop.events


def test_clients_that_promise_more_than_they_send_hold_no_thread(loop):
    with running(loop) as (port, _):
        lying = [socket.create_connection(("127.0.0.1", port)) for _ in range(12)]
        for connection in lying:
            connection.sendall(b"POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n{")
        started = time.monotonic()
        assert ask(port, "GET", "/health")[0] == 200
        assert time.monotonic() - started < STUCK_S
        for connection in lying:
            connection.close()
    assert not loop.events


def test_many_predictions_at_once_leave_health_and_webhooks_their_threads(loop, recorded):
    body = json.dumps(recorded("predict_batch")["body"])
    hook = json.dumps(recorded("webhook_START_TRAINING")["body"])
    loop.may_go_on.clear()
    with running(loop) as (port, _):
        answers = []
        callers = [
            threading.Thread(target=lambda: answers.append(ask(port, "POST", "/predict", body)))
            for _ in range(20)
        ]
        for caller in callers:
            caller.start()
        started = time.monotonic()
        for _ in range(10):
            assert ask(port, "GET", "/health")[0] == 200
            assert ask(port, "POST", "/webhook", hook)[0] == 201
        assert time.monotonic() - started < STUCK_S
        loop.may_go_on.set()
        for caller in callers:
            caller.join()
    assert [status for status, _, _ in answers] == [200] * 20
    assert all(len(json.loads(answer)["results"]) == 2 for _, answer, _ in answers)


def test_a_stopping_server_finishes_what_it_began_and_takes_nothing_new(loop, recorded):
    body = json.dumps(recorded("predict_batch")["body"])
    loop.may_go_on.clear()
    answers = []
    with running(loop) as (port, stop):
        caller = threading.Thread(target=lambda: answers.append(ask(port, "POST", "/predict", body)))
        caller.start()
        while not loop.asked:
            time.sleep(0.005)
        stop.set()
        wait_until_closed(port)
        loop.may_go_on.set()
        caller.join()
    assert answers[0][0] == 200
    assert json.loads(answers[0][1])["results"][0]["score"] == 0.25


def test_a_taken_port_is_an_error():
    with bind("127.0.0.1", 0) as first, pytest.raises(OSError, match="in use"):
        bind("127.0.0.1", first.getsockname()[1])


def connect_idle(port, n, first_bytes=b""):
    """Connections that ask for nothing, or begin to ask and do not go on."""
    opened = [socket.create_connection(("127.0.0.1", port)) for _ in range(n)]
    for connection in opened:
        connection.sendall(first_bytes)
    return opened


HALF_A_REQUEST = b"POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n{"


@pytest.mark.parametrize("first_bytes", [b"", HALF_A_REQUEST], ids=["idle", "half a request"])
def test_more_idle_connections_than_the_server_takes_keep_nobody_out(loop, first_bytes):
    most = 40
    with running(loop, most_connections=most) as (port, _):
        idle = connect_idle(port, 3 * most, first_bytes)
        for _ in range(3):
            assert ask(port, "GET", "/health")[0] == 200
        for connection in idle:
            connection.close()


def test_the_connections_of_running_requests_are_kept(loop, recorded):
    body = json.dumps(recorded("predict_batch")["body"])
    loop.may_go_on.clear()
    answers = []
    with running(loop, most_connections=40) as (port, _):
        caller = threading.Thread(target=lambda: answers.append(ask(port, "POST", "/predict", body)))
        caller.start()
        while not loop.asked:
            time.sleep(0.005)
        idle = connect_idle(port, 80)
        assert ask(port, "GET", "/health")[0] == 200
        loop.may_go_on.set()
        caller.join()
        for connection in idle:
            connection.close()
    assert answers[0][0] == 200


@pytest.mark.thorough
def test_a_thousand_and_fifty_idle_connections_keep_nobody_out(loop):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 3000:
        pytest.skip("the system allows this process too few open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 3000), hard))
    with running(loop) as (port, _):
        idle = connect_idle(port, 1050)
        started = time.monotonic()
        assert ask(port, "GET", "/health")[0] == 200
        assert time.monotonic() - started < STUCK_S
        for connection in idle:
            connection.close()


@pytest.fixture
def no_temporary_folder(monkeypatch):
    """As where its disk is full: what is there takes nothing."""

    def fail(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "TemporaryFile", fail)
    monkeypatch.setattr("waitress.buffers.TempfileBasedBuffer.newfile", fail)


def test_a_large_body_that_finds_no_room_is_told_so(loop, recorded, no_temporary_folder):
    """Label Studio was cut off in the middle, and nobody knew why."""
    body = json.dumps({**recorded("predict_batch")["body"], "padding": "x" * 600_000})
    with running(loop) as (port, _):
        status, answer, headers = ask(port, "POST", "/predict", body)
        assert status == 503
        assert headers["Retry-After"] == RETRY_AFTER_S
        told = json.loads(answer)["error"]
        assert "no temporary file can be written (No space left on device)" in told
        assert "TMPDIR" in told
        assert ask(port, "GET", "/health")[0] == 200


def test_a_large_answer_needs_no_temporary_file(loop, no_temporary_folder, monkeypatch):
    large = "y" * 3_000_000
    with running(loop) as (port, _), monkeypatch.context() as patched:
        patched.setattr("ml_backend.web.label_studio_routes.MODEL_CLASS", large)
        status, answer, _ = ask(port, "GET", "/health")
    assert status == 200
    assert json.loads(answer)["model_class"] == large


def test_without_handles_the_server_waits_and_says_so_once(loop, caplog):
    """A process that may open nothing more woke at once for whoever asked: it spun, and filled the log."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with running(loop) as (port, _), socket.socket() as client, caplog.at_level("WARNING"):
        assert ask(port, "GET", "/health")[0] == 200
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))  # what is open stays open
        try:
            client.connect(("127.0.0.1", port))
            client.sendall(b"GET /health HTTP/1.0\r\n\r\n")
            wait_until(lambda: "no new connection can be taken" in caplog.text, 10, "somebody is told")
            began = time.process_time()
            time.sleep(1.0)
            used_s = time.process_time() - began
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        client.settimeout(STUCK_S)
        assert client.recv(100).startswith(b"HTTP/1.0 200")
    assert used_s < 0.5
    (told,) = [record.getMessage() for record in caplog.records if "handles" in record.getMessage()]
    assert "ulimit -n" in told


def test_a_small_limit_of_open_files_is_raised_or_heeded(monkeypatch):
    asked = []
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    assert server._allow_files(1000) == 1000
    monkeypatch.setattr(resource, "getrlimit", lambda _: (512, 1024))
    assert server._allow_files(1000) == 768
    assert asked == [(1256, 4096), (1024, 1024)]


def test_who_asks_twice_for_the_end_breaks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    handlers: dict[int, Callable[[int, None], None]] = {}
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    stop, woken = threading.Event(), iter([None])  # what wakes the loop is there once
    server._stop_on_signals(SimpleNamespace(pull_trigger=lambda: next(woken)), stop)
    handlers[signal.SIGTERM](signal.SIGTERM, None)
    handlers[signal.SIGTERM](signal.SIGTERM, None)
    handlers[signal.SIGINT](signal.SIGINT, None)
    assert stop.is_set()
