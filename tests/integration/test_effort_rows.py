"""What annotations took is stored once per annotation, and counted by one round."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from stored_rows import open_database

from ml_backend.ports import AnnotationRecord
from ml_backend.storage import annotations, efforts, expiry, projects, tasks
from ml_backend.storage.database import Database
from ml_backend.storage.efforts import OpenEffort

pytestmark = pytest.mark.integration

REGION = {"type": "brushlabels", "value": {"rle": [1, 2, 3]}}


@pytest.fixture
def database(service_backend: Any) -> Iterator[Database]:
    database = open_database(service_backend.data_dir, service_backend.database_url)
    with database.write() as connection:
        projects.remember_project(connection, 1, 1_795_331_929)
        for number in (1, 2):
            record = AnnotationRecord(number, 10, number, "01", False, [REGION], 3.5, True)
            annotations.save(connection, 1, annotations.pack(record), 1, 100.0)
    yield database
    database.close()


def save(database: Database, seq: int, **measured: Mapping[str, Any]) -> None:
    with database.write() as connection:
        by_id = {int(name.removeprefix("a")): values for name, values in measured.items()}
        efforts.save(connection, 1, 10, seq, by_id)


def list_open(database: Database, truth_seq: int = 9) -> list[OpenEffort]:
    with database.read() as connection:
        return efforts.list_open(connection, 1, truth_seq)


def close(database: Database, truth_seq: int = 9) -> None:
    with database.write() as connection:
        efforts.close(connection, 1, truth_seq)


def test_lead_time_and_origin_come_back_with_the_annotation(database: Database) -> None:
    with database.read() as connection:
        first, _ = annotations.list_living(connection, 1, 10)
    assert (first.lead_time_s, first.from_prediction) == (3.5, True)


def test_each_annotation_is_open_until_a_round_counted_it(database: Database) -> None:
    save(database, 1, a1={"strokes": 2}, a2={"strokes": 1})
    assert [row.measured["strokes"] for row in list_open(database)] == [2, 1]
    close(database)
    assert list_open(database) == []


def test_an_edit_replaces_and_keeps_what_was_counted(database: Database) -> None:
    save(database, 1, a1={"strokes": 2})
    save(database, 2, a1={"strokes": 3})
    close(database)
    save(database, 3, a1={"strokes": 5})
    assert list_open(database) == [OpenEffort(1, {"strokes": 5}, {"strokes": 3})]


def test_building_the_same_again_opens_nothing(database: Database) -> None:
    save(database, 1, a1={"strokes": 2})
    close(database)
    save(database, 2, a1={"strokes": 2}, a2={"strokes": 1})
    assert [row.annotation_id for row in list_open(database)] == [2]


def test_what_came_during_a_round_is_left_to_the_next_one(database: Database) -> None:
    save(database, 1, a1={"strokes": 2})
    save(database, 5, a2={"strokes": 1})
    assert [row.annotation_id for row in list_open(database, truth_seq=4)] == [1]
    close(database, truth_seq=4)
    assert [row.annotation_id for row in list_open(database)] == [2]


def test_a_deleted_annotation_is_not_counted(database: Database) -> None:
    save(database, 1, a1={"strokes": 2}, a2={"strokes": 1})
    with database.write() as connection:
        annotations.delete(connection, 1, 1, 2, 200.0)
    assert [row.annotation_id for row in list_open(database)] == [2]


def test_the_effort_of_a_deleted_task_is_not_counted_and_goes_after_its_term(database: Database) -> None:
    save(database, 1, a1={"strokes": 2})
    with database.write() as connection:
        tasks.delete_tasks(connection, 1, [10], 200.0)
        expiry.drop_expired(connection, 1, 200.0 + expiry.KEPT_S)
        assert set(efforts.find_measured(connection, 1, 10)) == {1}
    assert list_open(database) == []
    with database.write() as connection:
        expiry.drop_expired(connection, 1, 201.0 + expiry.KEPT_S)
        assert efforts.find_measured(connection, 1, 10) == {}
