"""The worker's jobs while something is away: told once, and due again as soon as it is back."""

from __future__ import annotations

import errno
import logging
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from loop_fakes import Bench, make_bench
from painted import LABEL_CONFIG
from sqlalchemy.exc import OperationalError

from ml_backend.rounds.failing_jobs import FailingJobs
from ml_backend.storage import health, wakeups
from ml_backend.storage.installation import IDENTITY_FILE
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


def test_a_job_that_the_database_cuts_off_again_is_said_and_tried_more_slowly(bench, worker, monkeypatch):
    sent: list[str] = []
    monkeypatch.setattr(worker.queue, "send", lambda kind, project_id: sent.append(kind))

    def cut(project_id: int) -> None:
        raise OperationalError("", {}, Exception("canceling statement due to statement timeout"))

    def said() -> list[str]:
        with bench.parts.database.read() as connection:
            return health.list_troubles(connection, 1)

    worker._job("build", cut)(1)
    assert said() == []
    look(worker)
    assert "build" in sent
    sent.clear()
    worker._job("build", cut)(1)
    assert "statement timeout" in said()[0]
    look(worker)
    assert "build" not in sent
    worker._job("build", lambda project_id: None)(1)
    assert said() == []


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


def look(worker: Worker) -> None:
    worker._next_tick = 0.0
    worker.tick()


def test_a_job_that_fails_is_said_and_tried_again_with_growing_pauses(bench, worker, caplog, monkeypatch):
    sent: list[str] = []
    monkeypatch.setattr(worker.queue, "send", lambda kind, project_id: sent.append(kind))

    def fail(project_id: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    pauses = []
    for _ in range(7):
        while "build" not in sent:
            bench.clock.now += 1
            look(worker)
        worker._job("build", fail)(1)
        sent.clear()
        began = bench.clock.now
        while "build" not in sent:
            bench.clock.now += 1
            look(worker)
        pauses.append(bench.clock.now - began)
    assert pytest.approx(pauses, abs=2) == [5, 9, 17, 33, 61, 61, 61]
    assert sum(bool(record.exc_info) for record in caplog.records) == 1
    with bench.parts.database.write() as connection:
        health.note_worker(connection, bench.parts.owner, bench.clock())
    assert "Label maps could not be built: the disk is full" in bench.status()["last_error"]
    worker._job("build", bench.loop.build_truth)(1)
    assert bench.status()["last_error"] is None


def test_what_failed_and_is_due_no_more_is_said_no_more(bench, worker, monkeypatch):
    monkeypatch.setattr(worker.queue, "send", lambda kind, project_id: None)
    now = [0.0]
    worker._failing = FailingJobs(bench.parts, LOST_AFTER_S, lambda: now[0])
    look(worker)
    worker._failing.note(1, "rank", ValueError("no number"))
    look(worker)
    with bench.parts.database.read() as connection:
        (said,) = health.list_troubles(connection, 1)
    assert said.startswith("Scores could not be ranked: an unexpected failure (ValueError)")
    now[0] += 5
    look(worker)
    with bench.parts.database.read() as connection:
        assert health.list_troubles(connection, 1) == []


def test_a_project_whose_rows_cannot_be_read_leaves_the_others_alone(bench, worker, monkeypatch):
    sent: list[tuple[int, str]] = []
    now = [0.0]
    worker._failing = FailingJobs(bench.parts, LOST_AFTER_S, lambda: now[0])
    monkeypatch.setattr(worker.queue, "send", lambda kind, project_id: sent.append((project_id, kind)))
    bench.loop.connect(2, "1", LABEL_CONFIG, "http://label-studio", "token")
    with bench.parts.database.write() as connection:
        update_project(connection, 1, reconciled_at=bench.clock())
        connection.exec_driver_sql("UPDATE tasks SET data = '{\"image' WHERE project_id = 1")
    look(worker)
    assert (2, "reconcile") in sent
    assert 1 not in [project_id for project_id, _ in sent]
    with bench.parts.database.read() as connection:
        (said,) = health.list_troubles(connection, 1)
    assert said.startswith("What is due could not be found out: an unexpected failure (JSONDecodeError)")
    with bench.parts.database.write() as connection:
        connection.exec_driver_sql("UPDATE tasks SET data = '{}' WHERE project_id = 1")
    now[0] += 5
    look(worker)
    assert (1, "build") in sent
    with bench.parts.database.read() as connection:
        assert health.list_troubles(connection, 1) == []


def test_a_job_that_the_queue_did_not_take_is_due_as_soon_as_it_does(bench, worker, caplog, monkeypatch):
    sent: list[str] = []

    def refuse(kind: str, project_id: int) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(worker.queue, "send", refuse)
    look(worker)
    said = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert said == ["miss_ticks cause=database or disk is full"]
    monkeypatch.setattr(worker.queue, "send", lambda kind, project_id: sent.append(kind))
    look(worker)
    assert {"reconcile", "build"} <= set(sent)


def test_nothing_is_begun_in_a_folder_whose_disk_is_away_and_that_is_said(bench, worker, caplog, monkeypatch):
    sent: list[str] = []
    monkeypatch.setattr(worker.queue, "send", lambda kind, project_id: sent.append(kind))
    look(worker)
    sent.clear()
    bench.clock.now += 2 * LOST_AFTER_S
    identity = bench.parts.settings.data_dir / IDENTITY_FILE
    kept = identity.read_bytes()
    identity.unlink()
    look(worker)
    assert sent == []
    assert "miss_ticks cause=a file or folder cannot be used (DATA_DIR is away or empty" in caplog.text
    assert "is its disk mounted?" in bench.loop.ready()["checks"]["disk"]
    identity.write_bytes(kept)
    look(worker)
    assert {"reconcile", "build"} <= set(sent)
    assert bench.loop.ready()["checks"]["disk"] is None
