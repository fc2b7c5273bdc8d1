"""The queue, the same over SQLite and Redis: jobs arrive, also in another process, and lanes do not block."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import services
from huey.registry import Message
from stored_rows import open_database

from ml_backend.config import Settings
from ml_backend.jobs import LANE_NAME, QUEUE_FILE, JsonSerializer, Queue, find_problem
from ml_backend.storage import projects, rounds, wakeups

pytestmark = pytest.mark.integration


class Recorder:
    """Jobs that write down that they ran."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, int]] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def jobs(self) -> dict[Any, Callable[[int], None]]:
        return {kind: self._job(kind) for kind in ("round", "build", "reconcile", "push")}

    def _job(self, kind: str) -> Callable[[int], None]:
        def run(project_id: int) -> None:
            if kind == "round":
                assert self.may_go_on.wait(240)
            self.ran.append((kind, project_id))
            if project_id < 0:
                raise ValueError("broken")

        return run

    def wait_for(self, n_jobs: int, timeout_s: float = 120) -> list[tuple[str, int]]:
        deadline = time.monotonic() + timeout_s
        while len(self.ran) < n_jobs and time.monotonic() < deadline:
            time.sleep(0.02)
        return self.ran


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def queue(service_backend: Any, recorder: Recorder) -> Iterator[Queue]:
    queue = Queue(service_backend.settings(), recorder.jobs())
    yield queue
    recorder.may_go_on.set()
    queue.stop()


def test_jobs_arrive_once(queue: Queue, recorder: Recorder) -> None:
    queue.start()
    for project_id in range(1, 6):
        queue.send("build", project_id)
    recorder.wait_for(5)
    time.sleep(0.3)
    assert sorted(recorder.ran) == [("build", i) for i in range(1, 6)]


def test_a_round_that_trains_for_long_keeps_nothing_else_waiting(queue: Queue, recorder: Recorder) -> None:
    recorder.may_go_on.clear()
    queue.start()
    queue.send("round", 1)
    queue.send("build", 2)
    queue.send("push", 3)
    assert sorted(recorder.wait_for(2)) == [("build", 2), ("push", 3)]
    recorder.may_go_on.set()
    assert ("round", 1) in recorder.wait_for(3)


def test_jobs_outlive_the_process_that_sent_them(
    service_backend: Any, queue: Queue, recorder: Recorder
) -> None:
    sender = Queue(service_backend.settings(), Recorder().jobs())
    sender.send("reconcile", 4)
    sender.stop()
    queue.start()
    assert recorder.wait_for(1) == [("reconcile", 4)]


def test_a_job_that_fails_does_not_stop_the_next_one(queue: Queue, recorder: Recorder, caplog: Any) -> None:
    queue.start()
    queue.send("build", -1)
    queue.send("build", 2)
    assert sorted(recorder.wait_for(2)) == [("build", -1), ("build", 2)]


def test_stopping_waits_for_what_runs(queue: Queue, recorder: Recorder) -> None:
    recorder.may_go_on.clear()
    queue.start()
    queue.send("round", 1)
    time.sleep(0.6)
    threading.Timer(0.3, recorder.may_go_on.set).start()
    queue.stop()
    assert recorder.ran == [("round", 1)]


def test_messages_are_json_and_nothing_in_them_is_run() -> None:
    serializer = JsonSerializer()
    message = Message("id", "brushloop_round", None, 0, 0, None, [3], {}, None, None)
    assert serializer.deserialize(serializer.serialize(message)) == message
    with pytest.raises(ValueError, match="Expecting value"):
        serializer.deserialize(b"cposix\nsystem\n(S'true'\ntR.")


def test_of_many_schedulers_one_sends_the_job(service_backend: Any) -> None:
    database = open_database(service_backend.data_dir, service_backend.database_url)
    with database.write() as connection:
        projects.remember_project(connection, 1, 1)
    won: list[bool] = []

    def take() -> None:
        with database.write() as connection:
            won.append(wakeups.take(connection, 1, "round", 1000.0, 60.0))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False] * 7 + [True]
    with database.read() as connection:
        assert rounds.find_running(connection, 1) is None
    database.close()


def test_a_redis_that_answers_and_takes_no_job_is_named_with_the_remedy(tmp_path: Path) -> None:
    if missing := services.missing_services():
        pytest.skip(missing)
    import redis

    with services.redis(tmp_path / "redis") as url, redis.Redis.from_url(url) as server:
        settings = Settings(data_dir=tmp_path, redis_url=url)
        assert find_problem(settings) is None
        key = f"huey.redis.{LANE_NAME.format('calls')}"
        for begin, end, words in (
            (["CONFIG", "SET", "maxmemory", "1"], ["CONFIG", "SET", "maxmemory", "0"], "more memory"),
            (["REPLICAOF", "127.0.0.1", "1"], ["REPLICAOF", "NO", "ONE"], "name the primary"),
            (["SET", key, "1"], ["DEL", key], "of another program"),
        ):
            server.execute_command(*begin)
            assert words in str(find_problem(settings))
            server.execute_command(*end)
            assert find_problem(settings) is None


def test_a_queue_in_a_file_that_takes_no_job_is_named(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    queue = Queue(settings, {"round": lambda project_id: None})
    assert find_problem(settings) is None
    with closing(sqlite3.connect(tmp_path / QUEUE_FILE, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert "takes no jobs (database is locked)" in str(find_problem(settings))
        other.execute("ROLLBACK")
        assert find_problem(settings) is None
        other.execute("DROP TABLE task")  # as where an empty file was put into its place
    assert "takes no jobs (no such table" in str(find_problem(settings))
    queue.send("round", 1)
    assert find_problem(settings) is None
    queue.stop()
