"""Equal work at the same time is done once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError

import pytest

from ml_backend.suggestions.single_flight import SingleFlight


def test_callers_at_the_same_time_share_the_work() -> None:
    flights: SingleFlight[object] = SingleFlight()
    started, go_on, calls = threading.Event(), threading.Event(), []

    def work() -> object:
        calls.append(1)
        started.set()
        assert go_on.wait(10)
        return object()

    with ThreadPoolExecutor(4) as pool:
        results = [pool.submit(flights.run, "key", work, 10)]
        assert started.wait(10)
        results += [pool.submit(flights.run, "key", work, 10) for _ in range(3)]
        threading.Timer(0.2, go_on.set).start()
        found = {id(result.result(10)) for result in results}
    assert len(found) == 1
    assert len(calls) == 1


def test_the_next_caller_works_again() -> None:
    flights: SingleFlight[int] = SingleFlight()
    assert [flights.run("key", lambda: 1, 1), flights.run("key", lambda: 2, 1)] == [1, 2]


def test_a_failure_is_everybodys() -> None:
    flights: SingleFlight[int] = SingleFlight()
    started, go_on = threading.Event(), threading.Event()

    def fail() -> int:
        started.set()
        assert go_on.wait(10)
        raise ValueError("broken")

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(flights.run, "key", fail, 10)
        assert started.wait(10)
        second = pool.submit(flights.run, "key", fail, 10)
        threading.Timer(0.2, go_on.set).start()
        for result in (first, second):
            with pytest.raises(ValueError, match="broken"):
                result.result(10)


def test_nobody_waits_longer_than_he_can() -> None:
    flights: SingleFlight[int] = SingleFlight()
    started, go_on = threading.Event(), threading.Event()

    def work() -> int:
        started.set()
        assert go_on.wait(10)
        return 1

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(flights.run, "key", work, 10)
        assert started.wait(10)
        with pytest.raises((TimeoutError, FutureTimeoutError)):
            flights.run("key", work, 0.05)
        go_on.set()
        assert first.result(10) == 1
