"""What is away is said: by `/ready`, by the status, and only while it lasts."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from loop_fakes import Bench, make_bench
from sqlalchemy.exc import DatabaseError, DBAPIError, InternalError, OperationalError, ProgrammingError

from ml_backend.due import find_due
from ml_backend.errors import LabelStudioUnavailableError
from ml_backend.jobs import watch_queue
from ml_backend.learning_loop import LearningLoop
from ml_backend.storage import database, health, predictions
from ml_backend.storage.projects import get_project


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    torch.set_num_threads(1)
    bench = make_bench(tmp_path)
    yield bench
    bench.close()


def show_a_worker(bench: Bench) -> None:
    with bench.parts.database.write() as connection:
        health.note_worker(connection, "elsewhere|1|1|w", bench.clock())


def test_the_queue_is_asked_once_in_a_while_however_many_ask() -> None:
    answers = iter(["the queue cannot be reached", None])
    clock = [100.0]
    ask = watch_queue(lambda: next(answers), known_s=3.0, now=lambda: clock[0])
    assert [ask(), ask(), ask()] == ["the queue cannot be reached"] * 3
    clock[0] += 3.0
    assert [ask(), ask()] == [None, None]


def test_without_a_worker_nothing_is_ready_and_the_status_names_the_command(bench: Bench) -> None:
    found = bench.loop.ready()
    assert not found["ready"]
    assert "start `brushloop worker`" in found["checks"]["workers"]
    bench.loop.request_training(1)
    assert "start `brushloop worker`" in bench.status()["last_error"]
    show_a_worker(bench)
    assert bench.loop.ready() == {"ready": True, "checks": dict.fromkeys(found["checks"])}
    assert bench.status()["last_error"] is None
    bench.clock.now += 100
    assert "has been seen for 100 s" in bench.loop.ready()["checks"]["workers"]


def test_a_disk_without_room_and_a_queue_that_is_away_are_named(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    show_a_worker(bench)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 8, 1_000_000))
    loop = LearningLoop(replace(bench.parts, queue_problem=lambda: "the queue cannot be reached"))
    found = loop.ready()
    assert not found["ready"]
    assert "free some space" in found["checks"]["disk"]
    assert found["checks"]["queue"] == "the queue cannot be reached"


def test_a_temporary_folder_that_takes_nothing_is_named_and_one_that_is_gone_is_looked_for_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    show_a_worker(bench)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    assert bench.loop.ready()["ready"]
    in_data, take = bench.parts.settings.data_dir, tempfile.TemporaryFile

    def fail(*, dir: Any = None) -> Any:
        if dir == in_data:
            return take(dir=dir)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "TemporaryFile", fail)
    found = bench.loop.ready()
    assert not found["ready"]
    assert "no temporary file can be written (No space left on device)" in found["checks"]["disk"]
    assert "TMPDIR" in found["checks"]["disk"]


def test_a_database_that_nobody_can_write_to_is_named_before_the_worker(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "PROBE_TIMEOUT_MS", 50)
    show_a_worker(bench)
    bench.loop.request_training(1)
    bench.clock.now += 100
    with closing(sqlite3.connect(bench.parts.settings.data_dir / database.SQLITE_NAME)) as other:
        other.isolation_level = None
        other.execute("BEGIN IMMEDIATE")
        found, status = bench.loop.ready(), bench.status()
    assert "database is locked): see which process holds it" in found["checks"]["database"]
    assert "database is locked" in status["last_error"]
    assert "no worker has been seen for 100 s" in status["last_error"]  # it may be the one who holds it
    show_a_worker(bench)
    assert bench.loop.ready()["ready"]


def test_a_disk_that_takes_nothing_more_is_said_while_it_lasts_whatever_is_free(bench: Bench) -> None:
    show_a_worker(bench)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        found, status = bench.loop.ready(), bench.status()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not found["ready"]
    assert "see DATA_DIR and its disk" in found["checks"]["disk"]
    assert status["last_error"] == found["checks"]["disk"]
    assert bench.loop.ready()["ready"]
    assert bench.status()["last_error"] is None


def test_label_studios_trouble_is_in_the_status_while_it_lasts_and_leaves_with_its_cause(
    bench: Bench,
) -> None:
    show_a_worker(bench)
    bench.server.is_down = True
    bench.loop.reconcile(1)
    assert "could not be asked" in bench.status()["last_error"]
    found = bench.loop.ready()
    assert found["ready"]
    assert "could not be asked" in found["checks"]["label_studio"]
    bench.server.is_down = False
    bench.loop.reconcile(1)
    assert bench.status()["last_error"] is None
    assert bench.loop.ready()["checks"]["label_studio"] is None


def test_label_studio_that_answers_again_ends_the_pause_of_its_order(bench: Bench) -> None:
    def due() -> list[str]:
        with bench.parts.database.read() as connection:
            return list(find_due(connection, get_project(connection, 1), bench.parts.settings, bench.clock()))

    show_a_worker(bench)
    bench.submit(1)
    bench.loop.run_round(1)
    bench.server.is_down = True
    bench.loop.reconcile(1)
    for _ in range(9):
        assert not bench.loop.sync_project_order(1)
    assert "sync" not in due()
    bench.server.is_down = False
    bench.loop.reconcile(1)
    assert "order could not be updated" in bench.status()["last_error"]
    assert "sync" in due()
    assert bench.loop.sync_project_order(1)
    assert bench.status()["last_error"] is None


def test_ready_is_503_with_retry_after_and_needs_no_credentials(loop: Any, client: Any) -> None:
    assert client.get("/ready").status_code == 200
    loop.failure = RuntimeError("away")
    answer = client.get("/ready")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert answer.json["checks"]["database"] == "it is away"


def test_a_database_that_is_away_is_a_503_with_a_sentence(loop: Any, client: Any) -> None:
    loop.failure = OperationalError("SELECT", {}, Exception("database is locked"))
    answer = client.get("/api/projects/3/status")
    assert answer.status_code == 503
    assert "Retry-After" in answer.headers
    assert "GET /ready" in answer.json["error"]


def refusal(kind: type[DBAPIError], words: str, sqlstate: str = "") -> DBAPIError:
    cause = Exception(words)
    cause.sqlstate = sqlstate  # type: ignore[attr-defined]  # as psycopg's errors have it
    return kind("SELECT", {}, cause)


@pytest.mark.parametrize(
    "failure",
    [
        refusal(InternalError, "cannot execute UPDATE in a read-only transaction", "25006"),
        refusal(DatabaseError, "database disk image is malformed"),
        refusal(ProgrammingError, "permission denied for table projects", "42501"),
        refusal(ProgrammingError, 'relation "projects" does not exist', "42P01"),
        OSError(errno.EMFILE, "Too many open files"),
        OSError(errno.EROFS, "Read-only file system"),
    ],
    ids=str,
)
def test_whatever_the_machine_refuses_is_a_503_that_may_be_tried_again(
    loop: Any, client: Any, failure: Exception
) -> None:
    loop.failure = failure
    answer = client.get("/api/projects/3/status")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "3")
    assert "GET /ready" in answer.json["error"]


def test_the_log_alone_names_the_file_that_cannot_be_used(
    loop: Any, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    loop.failure = OSError(errno.EACCES, "Permission denied", "/data/projects/3/current")
    answer = client.get("/api/projects/3/status")
    assert "/data/projects/3/current" in caplog.text
    assert "/data/projects/3/current" not in answer.json["error"]


def test_a_wrong_statement_is_a_fault_of_ours(loop: Any, client: Any) -> None:
    loop.failure = refusal(ProgrammingError, "no such column: nothing")
    assert client.get("/api/projects/3/status").status_code == 500


def test_a_disk_that_takes_no_more_files_is_named_although_bytes_are_free(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    show_a_worker(bench)
    counted = os.statvfs(bench.parts.settings.data_dir)
    full = os.statvfs_result((*counted[:5], 1000, 3, 3, *counted[8:]))
    monkeypatch.setattr(os, "statvfs", lambda path: full)
    found = bench.loop.ready()
    assert not found["ready"]
    assert "only 3 more files fit" in found["checks"]["disk"]
    assert "only 3 more files fit" in bench.status()["last_error"]
    monkeypatch.undo()
    assert bench.loop.ready()["ready"]


def test_an_answer_arrives_although_the_note_about_it_cannot_be_written(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise OperationalError("INSERT", {}, Exception("database is locked"))

    bench.submit(1)
    bench.loop.run_round(1)
    monkeypatch.setattr(predictions, "enqueue_pushes", refuse)
    (answer,) = bench.loop.suggest(1, [bench.task(9)], None, float("inf"))
    assert answer is not None


def test_predictions_that_cannot_be_sent_are_said_until_they_can(tmp_path: Path, monkeypatch) -> None:
    bench = make_bench(tmp_path)
    bench.submit(1, 2, 3)
    bench.loop.run_round(1)
    bench.server.add_task(10)
    bench.loop.suggest(1, [bench.task(10)], None, 0.0)
    bench.clock.now += 1

    def refuse(*_: object) -> None:
        raise LabelStudioUnavailableError("Label Studio is failing (502)")

    monkeypatch.setattr(bench.server, "list_predictions", refuse)
    bench.loop.push(1)
    assert "could not be sent" in bench.status()["last_error"]
    bench.loop.reconcile(1)
    assert "could not be sent" in bench.status()["last_error"]  # reading works, and sending does not
    monkeypatch.undo()
    bench.clock.now += 120
    assert bench.loop.push(1) == 1
    assert bench.status()["last_error"] is None
    bench.close()
