"""The worker's jobs while the database is away: told in one line, and due again as soon as it is back."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from loop_fakes import Bench, make_bench
from sqlalchemy.exc import OperationalError

from ml_backend.storage import wakeups
from ml_backend.storage.projects import update_project
from ml_backend.worker import LOST_AFTER_S, Worker


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = make_bench(tmp_path)
    bench.submit(1)
    yield bench
    bench.close()


@pytest.fixture
def worker(bench: Bench) -> Worker:
    return Worker(bench.loop, threading.Event())


def test_a_job_that_the_database_cut_off_is_sent_again_at_once(bench, worker, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    parts, sent = bench.loop.parts, []
    monkeypatch.setattr(worker.queue, "send", lambda kind, project_id: sent.append(kind))

    def cut(project_id: int) -> None:
        monkeypatch.setattr(worker, "_clear", fail)
        raise OperationalError("", {}, ConnectionError("server closed the connection"))

    def fail(project_id: int, kind: str) -> None:
        raise OperationalError("", {}, ConnectionError("server closed the connection"))

    really_clear = worker._clear
    with parts.database.write() as connection:
        assert wakeups.take(connection, 1, "build", parts.clock(), LOST_AFTER_S)
    worker._job("build", cut)(1)
    worker.tick()
    assert "build" not in sent  # the database is still away
    monkeypatch.setattr(worker, "_clear", really_clear)
    worker._next_tick = 0.0
    worker.tick()
    assert "build" in sent
    assert [r.getMessage().split()[0] for r in caplog.records if r.exc_info] == []
    assert any(r.getMessage().startswith("postpone_job kind=build") for r in caplog.records)


def test_a_worker_that_cannot_write_at_its_start_says_so_and_begins_once_it_can(
    bench, worker, caplog, monkeypatch
):
    """As over a standby, or files that are read-only."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(worker.queue, "start", lambda: None)
    monkeypatch.setattr(worker.queue, "send", lambda kind, project_id: None)
    database = bench.parts.database
    refusal = "CREATE TRIGGER refuse BEFORE UPDATE ON projects BEGIN SELECT RAISE(ABORT, 'read-only'); END"
    with database.write() as connection:
        update_project(connection, 1, reconciled_at=1.0)
        connection.exec_driver_sql(refusal)
    worker.start()
    assert [r.getMessage() for r in caplog.records if r.levelname == "WARNING"] == [
        "miss_ticks cause=the database did not answer as it should (read-only):"
        " see that it is reachable and has room"
    ]
    worker._next_tick = 0.0
    worker.tick()
    assert bench.loop._get(1).reconciled_at == 1.0
    with database.write() as connection:
        connection.exec_driver_sql("DROP TRIGGER refuse")
    worker._next_tick = 0.0
    worker.tick()
    assert bench.loop._get(1).reconciled_at is None
    assert caplog.records[-1].getMessage() == "resume_ticks"


def test_a_project_that_has_its_share_of_a_lane_is_not_sent(bench, worker, monkeypatch):
    sent = []
    monkeypatch.setattr(worker.queue, "send", lambda kind, project_id: sent.append(kind))
    with worker.queue.places("build").enter(1) as entered:
        assert entered
        worker.tick()
        assert "build" not in sent
    worker.tick()
    assert "build" in sent


def test_projects_take_turns_where_those_before_them_are_always_due(bench, worker, monkeypatch):
    sent: list[int] = []
    ticks: list[int] = []
    lane = SimpleNamespace(
        has_place=lambda project_id: len(sent) < len(ticks)
    )  # a place becomes free each time
    monkeypatch.setattr(worker.queue, "places", lambda kind: lane)
    monkeypatch.setattr(worker.queue, "send", lambda kind, project_id: sent.append(project_id))
    monkeypatch.setattr(worker, "_take", lambda project_id, kind: True)
    monkeypatch.setattr(worker, "_list_due", lambda: [(1, "round"), (2, "round"), (3, "round")])
    for number in range(6):
        ticks.append(number)
        worker.tick()
    assert sent == [1, 2, 3, 1, 2, 3]
