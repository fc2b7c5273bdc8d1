"""The web process on a real socket: sizes, lies about sizes, slow clients, and how it stops."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from contextlib import contextmanager

import pytest

from ml_backend.config import Settings
from ml_backend.web.app import create_app
from ml_backend.web.server import bind, serve

MB = 1024 * 1024
STUCK_S = 25.0
"""What waits for somebody else waits longer than this; a busy machine does not."""


@contextmanager
def running(loop, **settings):
    """A server in a thread; yields its port."""
    chosen = Settings(**{"web_threads": 4, "max_body_mb": 1, **settings})
    listener = bind("127.0.0.1", 0)
    stop = threading.Event()
    server = threading.Thread(target=serve, args=(create_app(loop, chosen), chosen, listener, stop))
    port = listener.getsockname()[1]
    server.start()
    try:
        yield port, stop
    finally:
        stop.set()
        loop.may_go_on.set()
        server.join(15)
        assert not server.is_alive()


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
