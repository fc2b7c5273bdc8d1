"""Servers that drip: whole downloads have an end, obey a stop, and keep no other project waiting."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np
import pytest
from dripping import Dripping
from loop_fakes import make_bench

from core.errors import ImageUnavailableError, RoundCancelledError
from ml_backend.errors import LabelStudioUnavailableError
from ml_backend.label_studio import downloads
from ml_backend.label_studio.connection import Connection
from ml_backend.label_studio.images import CachedImages, ImageAccess, ImageSettings
from ml_backend.processes.fair_places import FORGOTTEN_S, SLOW_S, FairPlaces, SlowProjects
from ml_backend.processes.patience import patience

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 100000\r\n\r\n"
SOON_S = 5.0
"""Far more than any of these waits, and far less than a byte a second would take."""


@pytest.fixture(params=[b"", HEAD], ids=["its headers", "its body"])
def server(request: pytest.FixtureRequest) -> Iterator[Dripping]:
    server = Dripping(request.param)
    yield server
    server.close()


@pytest.fixture
def images(tmp_path, server):
    settings = ImageSettings("http://127.0.0.1:1", 10**6, 10**6, 10**6, (f"127.0.0.1:{server.port}",))
    images = CachedImages(tmp_path, settings, lambda project_id: ImageAccess("p1"))
    yield images
    images.close()


def wanted(server: Dripping) -> dict[str, str]:
    return {"image": f"http://127.0.0.1:{server.port}/a.png"}


def test_a_download_that_drips_lasts_no_longer_than_the_patience_of_the_caller(images, server):
    began = time.monotonic()
    with patience(0.3), pytest.raises(ImageUnavailableError):
        images.open(1, 1, wanted(server))
    assert time.monotonic() - began < SOON_S


def test_a_download_ends_when_the_process_is_asked_to_stop(images, server):
    stop = threading.Event()
    ends: list[BaseException] = []

    def fetch() -> None:
        try:
            with patience(should_stop=stop.is_set):
                images.open(1, 1, wanted(server))
        except RoundCancelledError as error:
            ends.append(error)

    thread = threading.Thread(target=fetch)
    thread.start()
    assert server.asked.wait(30)
    stop.set()
    thread.join(SOON_S)
    assert len(ends) == 1


def test_a_call_of_the_api_that_drips_has_an_end(server):
    connection = Connection(f"http://127.0.0.1:{server.port}", "key", timeout_s=0.1)
    began = time.monotonic()
    with pytest.raises(LabelStudioUnavailableError, match="in time"):
        connection.request("GET", "/api/projects/1")
    assert time.monotonic() - began < SOON_S
    connection.close()


def test_a_server_that_drips_is_given_up_before_anything_else_is_over(images, server, monkeypatch):
    monkeypatch.setattr(downloads, "SLOW_AFTER_S", 0.2)
    monkeypatch.setattr(downloads, "READ_TIMEOUT_S", 0.3)
    with pytest.raises(ImageUnavailableError, match=r"too slow|in time"):
        images.open(1, 1, wanted(server))


def test_an_image_at_hand_needs_no_patience(tmp_path):
    bench_images = CachedImages(
        tmp_path, ImageSettings("http://127.0.0.1:1", 10**6, 10**6, 10**6), lambda _: ImageAccess("p1")
    )
    data = {"image": PNG}
    first = bench_images.open(1, 1, data)
    with patience(0.0):
        assert np.array_equal(bench_images.open(1, 1, data), first)
    bench_images.close()


def test_projects_whose_images_drip_leave_places_to_one_that_has_none():
    places, held = FairPlaces(10), []
    for project in (1, 2):
        for _ in range(10):
            place = places.enter(project)
            held.append((place, place.__enter__()))
    assert sum(entered for _, entered in held) == 9
    with places.enter(3) as entered:
        assert entered
    for place, _ in held:
        place.__exit__(None, None, None)
    assert places.has_place(1)
    assert places.has_place(2)


def test_a_project_takes_no_more_places_than_its_share():
    places = FairPlaces(6, most=1)
    with places.enter(1) as first, places.enter(1) as second, places.enter(2) as other:
        assert (first, second, other) == (True, False, True)


def test_any_number_of_slow_projects_leaves_half_of_a_lane_to_the_others():
    clock = [0.0]
    slow = SlowProjects(now=lambda: clock[0])
    calls, rounds = FairPlaces(6, 2, slow, watches=True), FairPlaces(4, 1, slow)
    for project in range(1, 9):
        with calls.enter(project):
            clock[0] += SLOW_S
    with ExitStack() as held:
        assert sum(held.enter_context(calls.enter(project)) for project in range(1, 9)) == 3
        assert [held.enter_context(rounds.enter(project)) for project in (1, 2, 3)] == [True, True, False]
        assert held.enter_context(calls.enter(20))
        assert held.enter_context(rounds.enter(20))
    assert calls.has_place(3)
    clock[0] += FORGOTTEN_S
    with calls.enter(1), calls.enter(2), calls.enter(3), calls.enter(4) as fourth:
        assert fourth, "who was quick again is not slow"


def test_work_that_takes_long_by_itself_makes_no_project_slow():
    clock = [0.0]
    places = FairPlaces(4, 1, SlowProjects(now=lambda: clock[0]))
    for project in (1, 2, 3):
        with places.enter(project):
            clock[0] += 60.0
    with places.enter(1), places.enter(2), places.enter(3) as third:
        assert third


def test_an_image_on_its_way_keeps_no_other_project_from_an_answer(tmp_path):
    bench = make_bench(tmp_path)
    bench.submit(1, 2, 3)
    bench.loop.run_round(1)
    stop, really_open = threading.Event(), bench.images.open

    def open_slowly(project_id, task_id, data):
        if task_id >= 20:
            assert stop.wait(60)
        return really_open(project_id, task_id, data)

    bench.images.open = open_slowly
    soon = time.monotonic() + 60
    threads = [
        threading.Thread(target=bench.loop.suggest, args=(1, [bench.task(task_id)], None, soon))
        for task_id in (20, 21, 22)
    ]
    for thread in threads:
        thread.start()
    assert bench.loop.suggest(1, [bench.task(10)], None, soon)[0]
    stop.set()
    for thread in threads:
        thread.join(60)
    bench.close()


PNG = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9"
    "awAAAABJRU5ErkJggg=="
)
