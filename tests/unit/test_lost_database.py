"""A database that is lost, damaged, newer or another's ends the start with one sentence: path and remedy."""

from __future__ import annotations

import errno
import sqlite3
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
from loop_fakes import make_bench
from sqlalchemy.exc import OperationalError

from ml_backend.command import cli
from ml_backend.config import Settings
from ml_backend.errors import DatabaseRefusedError
from ml_backend.jobs import QUEUE_FILE, Queue, find_problem
from ml_backend.rounds.failing_jobs import FailingJobs
from ml_backend.storage import health
from ml_backend.storage.database import SQLITE_NAME, connect_database, migrate
from ml_backend.storage.installation import IDENTITY_FILE


def start(folder: Path) -> None:
    database = connect_database(folder)
    try:
        migrate(database, folder)
    finally:
        database.close()


def lose_database(folder: Path) -> None:
    for path in folder.glob(f"{SQLITE_NAME}*"):
        path.unlink()


def test_a_database_that_is_gone_beside_its_folder_is_no_new_installation(tmp_path: Path) -> None:
    start(tmp_path)
    start(tmp_path)  # as it was
    lose_database(tmp_path)
    with pytest.raises(DatabaseRefusedError, match=r"is empty, but .* holds its files: .*restore"):
        start(tmp_path)


def test_a_folder_of_models_from_before_identities_counts_too(tmp_path: Path) -> None:
    (tmp_path / "projects" / "1-0" / "models" / "r0001-00000000").mkdir(parents=True)
    with pytest.raises(DatabaseRefusedError, match="holds its files"):
        start(tmp_path)


def test_two_halves_of_two_installations_do_not_start(tmp_path: Path) -> None:
    start(tmp_path / "one")
    start(tmp_path / "two")
    lose_database(tmp_path / "two")
    (tmp_path / "one" / SQLITE_NAME).rename(tmp_path / "two" / SQLITE_NAME)
    with pytest.raises(DatabaseRefusedError, match="belong to two installations"):
        start(tmp_path / "two")


def forget_identity(folder: Path, *, with_project: bool) -> None:
    with sqlite3.connect(folder / SQLITE_NAME) as connection:
        connection.execute("DELETE FROM installation")
        if with_project:
            connection.execute("INSERT INTO projects (project_id, folder) VALUES (1, '1-0')")
    connection.close()


def test_a_new_database_does_not_take_over_the_folder_of_another(tmp_path: Path) -> None:
    start(tmp_path)
    forget_identity(tmp_path, with_project=False)
    with pytest.raises(DatabaseRefusedError, match=r"is new, but .* belongs to another"):
        start(tmp_path)


def test_a_database_from_before_identities_takes_that_of_its_folder(tmp_path: Path) -> None:
    start(tmp_path)
    identity = (tmp_path / IDENTITY_FILE).read_text().strip()
    forget_identity(tmp_path, with_project=True)
    start(tmp_path)
    with sqlite3.connect(tmp_path / SQLITE_NAME) as connection:
        assert connection.execute("SELECT identity FROM installation").fetchall() == [(identity,)]
    connection.close()


def test_a_database_that_another_one_keeps_locked_is_not_writable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ml_backend.storage.database.PROBE_TIMEOUT_MS", 10)
    start(tmp_path)
    database = connect_database(tmp_path)
    other = sqlite3.connect(tmp_path / SQLITE_NAME, isolation_level=None)
    try:
        database.check_writable()
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(OperationalError, match="locked"):
            database.check_writable()
        other.execute("ROLLBACK")
        database.check_writable()
    finally:
        other.close()
        database.close()


@pytest.mark.parametrize("damage", ["truncated", "garbage", "zeroed"])
def test_a_damaged_file_is_refused_with_path_and_remedy(tmp_path: Path, damage: str) -> None:
    start(tmp_path)
    path = tmp_path / SQLITE_NAME
    content = path.read_bytes()
    zeroed = content[:4096] + bytes(len(content) - 4096)
    path.write_bytes({"truncated": content[:5000], "garbage": b"garbage" * 1000, "zeroed": zeroed}[damage])
    with pytest.raises(DatabaseRefusedError, match="brushloop restore") as refused:
        start(tmp_path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def start_with_tomorrows(folder: Path) -> None:
    """A database that a later version has migrated already."""
    start(folder)
    with closing(sqlite3.connect(folder / SQLITE_NAME)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999_from_tomorrow'")


def test_a_newer_database_is_refused_in_one_sentence(tmp_path: Path) -> None:
    start_with_tomorrows(tmp_path)
    with pytest.raises(DatabaseRefusedError, match="newer Brushloop"):
        start(tmp_path)


COMMANDS = [
    "serve --port 0", "worker", "forget 1 --yes", "export 1 --form png --out {folder}/out",
    "export-model 1 --out {folder}/model.onnx", "predict {folder} --project 1 --out {folder}/out",
]  # fmt: skip


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words.split()[0])
def test_every_command_of_an_older_version_names_path_and_remedy_in_one_sentence(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    start_with_tomorrows(tmp_path)
    before = (tmp_path / SQLITE_NAME).read_bytes()
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    monkeypatch.setattr(sys, "argv", ["brushloop", *words.format(folder=tmp_path).split()])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert ended.value.code == 1
    assert said == (
        f"error: the database {tmp_path / SQLITE_NAME} was written by a newer Brushloop: install that one"
        " again, or bring back a backup from before with `brushloop restore`"
    )
    assert (tmp_path / SQLITE_NAME).read_bytes() == before


@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
def test_nothing_is_written_beside_a_log_that_was_removed_while_running_and_nothing_of_it_is_lost(
    tmp_path: Path, suffix: str
) -> None:
    database = connect_database(tmp_path)
    migrate(database, tmp_path)
    with database.write() as connection:
        health.note_worker(connection, "elsewhere|1|1|w", 1.0)
    (tmp_path / f"{SQLITE_NAME}{suffix}").unlink()
    for access in (database.read, database.write):
        refusal = pytest.raises(OperationalError, match=f"{suffix} was removed .*start every process again")
        with refusal, access() as connection:
            health.list_workers(connection)
    # As after a process that was killed: it closes nothing.
    with closing(sqlite3.connect(tmp_path / SQLITE_NAME)) as other:
        assert other.execute("SELECT owner FROM workers").fetchall() == [("elsewhere|1|1|w",)]
    database.close()
    again = connect_database(tmp_path)
    with again.read() as connection:
        assert [owner for owner, _ in health.list_workers(connection)] == ["elsewhere|1|1|w"]
    again.close()


def test_a_log_that_sqlite_removes_by_itself_is_no_trouble(tmp_path: Path) -> None:
    database = connect_database(tmp_path)
    migrate(database, tmp_path)
    for number in range(3):
        database.engine.dispose()  # the last one who closes writes the log into the database
        assert not (tmp_path / f"{SQLITE_NAME}-wal").exists()
        with database.write() as connection:
            health.note_worker(connection, f"elsewhere|{number}|1|w", 1.0)
    database.close()


def test_nothing_is_written_into_a_file_that_was_removed_while_running(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    try:
        bench.submit(1)
        lose_database(tmp_path)
        with pytest.raises(OperationalError, match="removed or replaced"):
            bench.submit(2)
    finally:
        bench.close()


def test_a_data_folder_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(DatabaseRefusedError, match=r"the data folder .*file.*: see DATA_DIR"):
            connect_database(folder)


def test_an_address_of_a_database_that_cannot_be_read_is_refused_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(DatabaseRefusedError, match="write it as postgresql://") as refused:
        connect_database(tmp_path, "postgresql://user:secret@host:port/name")
    assert "secret" not in str(refused.value)


def test_an_identity_that_is_empty_is_written_again_and_one_of_garbage_is_refused(tmp_path: Path) -> None:
    start(tmp_path)
    identity = (tmp_path / IDENTITY_FILE).read_text()
    (tmp_path / IDENTITY_FILE).write_bytes(b"")
    start(tmp_path)
    assert (tmp_path / IDENTITY_FILE).read_text() == identity
    (tmp_path / IDENTITY_FILE).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DatabaseRefusedError, match="belong to two installations"):
        start(tmp_path)


@pytest.mark.parametrize("damage", ["garbage", "a folder"])
def test_a_damaged_queue_is_said_and_made_again_by_the_next_worker(tmp_path: Path, damage: str) -> None:
    settings, path = Settings(data_dir=tmp_path), tmp_path / QUEUE_FILE
    assert find_problem(settings) is None
    if damage == "garbage":
        path.write_bytes(b"garbage" * 1000)
    else:
        path.mkdir()
    said = find_problem(settings)
    assert said is not None
    assert str(path) in said
    assert "start the worker again" in said
    arrived = threading.Event()
    queue = Queue(settings, {"build": lambda project_id: arrived.set()})
    queue.start()
    queue.send("build", 1)
    assert arrived.wait(60)
    queue.stop()
    assert find_problem(settings) is None


def test_a_folder_that_may_not_be_looked_into_is_a_database_that_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(tmp_path)
    bench = make_bench(tmp_path)
    exists = Path.exists

    def refuse(path: Path) -> bool:
        if path.name.startswith(SQLITE_NAME):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return exists(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "exists", refuse)
        with pytest.raises(OperationalError), bench.parts.database.read() as connection:
            connection.exec_driver_sql("SELECT 1")
        said = bench.loop.ready()["checks"]["database"]
        # Nothing more is raised where it cannot even be noted that a job failed.
        assert not FailingJobs(bench.parts, 60.0).note(1, "push", OSError("disk"))
    assert "Permission denied" in said
    assert "the right to read and write it" in said
    assert bench.loop.ready()["checks"]["database"] is None
    bench.close()
