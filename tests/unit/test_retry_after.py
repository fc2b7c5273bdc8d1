"""Servers that ask to be left alone get no call until the time is over, whoever would have called."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from loop_fakes import make_bench

from core.errors import ImageUnavailableError
from ml_backend.errors import LabelStudioUnavailableError
from ml_backend.label_studio import retry_after
from ml_backend.label_studio.addresses import AddressPolicy, WebAddress
from ml_backend.label_studio.connection import Connection
from ml_backend.label_studio.downloads import download, new_http_client
from ml_backend.label_studio.image_frame import ImageLimits
from ml_backend.label_studio.retry_after import LONGEST_PAUSE_S, AskedToWaitError, Pauses, read_pause

NOON = 946_728_000.0
"""1 January 2000, 12:00:00 UTC."""


class Busy:
    """Answers as it is told to, and counts."""

    def __init__(self, status: int = 429, headers: Mapping[str, str] | None = None) -> None:
        self.status, self.headers, self.n_asked = status, headers or {"Retry-After": "90"}, 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.n_asked += 1
        return httpx.Response(self.status, headers=self.headers, json={"detail": "Request was throttled."})


@pytest.mark.parametrize(
    ("value", "sent_at", "expected_s"),
    [
        ("0", None, 0.0),
        ("90", None, 90.0),
        ("1.5", None, 1.5),
        ("-3", None, 0.0),
        ("Sat, 01 Jan 2000 12:00:45 GMT", None, 45.0),
        ("Sat, 01 Jan 2000 11:00:00 GMT", None, 0.0),
        ("Sat, 01 Jan 2000 15:00:45 GMT", "Sat, 01 Jan 2000 15:00:00 GMT", 45.0),
        ("Sat, 01 Jan 2000 12:00:45 GMT", "the day before", 45.0),
        ("Sat, 99 Jan 2000 12:00:45 GMT", None, 0.0),
        ("soon", None, 0.0),
        ("inf", None, 0.0),
        ("nan", None, 0.0),
        ("", None, 0.0),
    ],
)
def test_the_pause_is_read_in_seconds_or_as_a_moment_of_the_servers_own_clock(
    value: str, sent_at: str | None, expected_s: float
) -> None:
    headers = {"Retry-After": value} | ({"Date": sent_at} if sent_at else {})
    assert read_pause(httpx.Headers(headers), NOON) == pytest.approx(expected_s)


@pytest.mark.parametrize("status", [429, 503])
def test_no_call_is_sent_until_the_time_is_over_that_a_server_named(status: int) -> None:
    moments = [0.0]
    pauses, busy = Pauses(lambda: moments[0], lambda: NOON + moments[0]), Busy(status)
    hooks = {"request": [pauses.check], "response": [pauses.note]}
    with httpx.Client(transport=httpx.MockTransport(busy), event_hooks=hooks) as client:
        for moments[0] in (0.0, 1.0, 89.0):
            with pytest.raises(AskedToWaitError, match=rf"until 12:01:30 UTC \({status} with Retry-After\)"):
                client.get("http://studio/api/a")
        assert busy.n_asked == 1
        with pytest.raises(AskedToWaitError):
            client.get("http://elsewhere/api/a")  # which knows nothing of the pause, and asks for its own
        assert busy.n_asked == 2
        moments[0], busy.status = 90.0, 200
        assert client.get("http://studio/api/a").status_code == 200


def test_a_server_that_names_a_day_is_asked_again_after_ten_minutes() -> None:
    moments = [0.0]
    pauses = Pauses(lambda: moments[0], lambda: NOON)
    request = httpx.Request("GET", "http://studio/api")
    with pytest.raises(AskedToWaitError, match="until 12:10:00 UTC"):
        pauses.note(httpx.Response(429, headers={"Retry-After": "86400"}, request=request))
    moments[0] = LONGEST_PAUSE_S
    pauses.check(request)


@pytest.mark.parametrize(
    ("status", "headers"), [(429, {"Retry-After": "soon"}), (503, {"X": "y"}), (500, {"Retry-After": "90"})]
)
def test_answers_that_ask_for_no_pause_begin_none(status: int, headers: Mapping[str, str]) -> None:
    busy = Busy(status, headers)
    with closing(Connection("http://studio", "key", transport=httpx.MockTransport(busy))) as connection:
        for _ in range(2):
            with pytest.raises(LabelStudioUnavailableError, match=rf"is failing \({status}"):
                connection.request("GET", "/api/x")
    assert busy.n_asked == 2


def test_label_studio_that_asks_for_a_pause_is_left_alone_and_says_until_when() -> None:
    busy = Busy()
    with closing(Connection("http://studio", "k" * 40, transport=httpx.MockTransport(busy))) as connection:
        for _ in range(3):
            with pytest.raises(LabelStudioUnavailableError, match=r"takes no calls until [:\d]+ UTC"):
                connection.request("GET", "/api/x")
    assert busy.n_asked == 1


def test_a_host_of_images_that_asks_for_a_pause_is_left_alone(tmp_path: Path) -> None:
    busy = Busy()
    address = WebAddress(httpx.URL("http://images/a.png"), is_label_studio=False)
    policy = AddressPolicy("http://studio", allowed_hosts=("images",))
    with new_http_client(httpx.MockTransport(busy)) as client:
        for _ in range(2):
            with pytest.raises(ImageUnavailableError, match="images takes no calls until"):
                download(client, address, policy, None, ImageLimits(10**6, 10**6), tmp_path / "a")
    assert busy.n_asked == 1


def test_the_status_says_until_when_label_studio_wants_no_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench(tmp_path)
    busy = Busy()
    with closing(Connection("http://studio", "k" * 40, transport=httpx.MockTransport(busy))) as connection:

        def ask(project_id: int) -> None:
            connection.request("GET", f"/api/projects/{project_id}")

        monkeypatch.setattr(bench.server, "get_project", ask)
        monkeypatch.setattr(bench.server, "_answer", lambda: ask(1))
        bench.loop.reconcile(1)
        first = bench.loop.ready()["checks"]["label_studio"]
        bench.loop.reconcile(1)
        assert "takes no calls until" in first
        assert bench.loop.ready()["checks"]["label_studio"] == first
    assert busy.n_asked == 1
    assert retry_after.LONGEST_PAUSE_S <= 600
    bench.close()
