"""SIGTERM ends web process and worker within 30 s, while an answer waits for an image that drips."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from dripping import Dripping
from stack import running_stack, wait_until

from bench.fake_label_studio import stamp_now

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 10000000\r\n\r\n"
LONGEST_S = 30.0
"""`stop_grace_period` of the compose file."""


@pytest.mark.thorough
@pytest.mark.slow(about_s=30)
@pytest.mark.parametrize("service_backend", ["sqlite"], indirect=True)
def test_web_and_worker_end_in_time_while_an_answer_waits_for_an_image_that_drips(
    service_backend: Any, tmp_path: Path
) -> None:
    server = Dripping(HEAD + b"H" * 10**6)  # fast enough at first, so that nobody gives it up
    environment = {**service_backend.environment(), "ALLOWED_IMAGE_HOSTS": f"127.0.0.1:{server.port}"}
    with running_stack(tmp_path / "logs", environment) as stack:
        stack.start_web()
        stack.start_worker()
        stack.server.connect_backend()
        for number in (1, 2, 3):
            stack.server.submit_as(number, number)
        stack.wait_until_trained()
        body = stack.server.predict_body(1, [1])
        body["tasks"] = [
            {"id": 70, "data": {"image": f"http://127.0.0.1:{server.port}/a.png"}, "updated_at": stamp_now()}
        ]
        asking = threading.Thread(target=ask, args=(f"{stack.url}/predict", body))
        asking.start()
        wait_until(server.asked.is_set, 30, "the image is asked for", stack.describe)
        began = time.monotonic()
        stack.stop()
        took_s = time.monotonic() - began
        asking.join(60)
    server.close()
    assert took_s < LONGEST_S


def ask(url: str, body: Any) -> None:
    try:
        httpx.post(url, json=body, timeout=120)
    except httpx.HTTPError:
        return  # the process went away, which is what this is about
