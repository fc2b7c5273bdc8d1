"""Webhooks get lost; asking Label Studio finds what they did not tell."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from loop_fakes import CREATED, Bench, make_bench
from painted import LABEL_CONFIG

from ml_backend.errors import LabelStudioRefusedError
from ml_backend.ports import ProjectRecord
from ml_backend.storage import annotations, expiry, tables, tasks


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = make_bench(tmp_path)
    yield bench
    bench.close()


def newest(bench: Bench, task_id: int) -> list[tuple[int, str]]:
    with bench.parts.database.read() as connection:
        return [(r.annotation_id, r.updated_at) for r in annotations.list_living(connection, 1, task_id)]


def test_an_annotation_whose_webhook_never_arrived_is_found(bench: Bench) -> None:
    record = bench.painted(1)
    found = bench.loop.reconcile(1)
    assert found.changed_annotations == 1
    assert newest(bench, 1) == [(100, record.updated_at)]
    assert bench.status()["annotations"]["pending"] == 1


def test_an_edit_that_was_missed_is_taken_over(bench: Bench) -> None:
    bench.submit(1)
    record = bench.painted(1)
    assert bench.loop.reconcile(1).changed_annotations == 1
    assert newest(bench, 1) == [(100, record.updated_at)]


def test_a_deletion_that_was_missed_is_taken_over(bench: Bench) -> None:
    bench.submit(1, 2)
    bench.server.drop(100)
    bench.clock.now += 1
    assert bench.loop.reconcile(1).deleted_annotations == 1
    assert newest(bench, 1) == []
    assert newest(bench, 2) != []


def test_a_task_that_is_gone_takes_its_annotations_with_it(bench: Bench) -> None:
    bench.submit(1, 2)
    del bench.server.tasks[1], bench.server.annotations[100]
    bench.clock.now += 1
    assert bench.loop.reconcile(1).deleted_tasks == 0  # one listing proves nothing
    bench.clock.now += 61
    assert bench.loop.reconcile(1).deleted_tasks == 1
    assert bench.status()["annotations"]["received"] == 1
    assert bench.status()["pool"]["tasks"] == 1


def test_a_second_look_fetches_nothing(bench: Bench) -> None:
    bench.submit(1, 2)
    bench.server.add_task(3)
    bench.loop.reconcile(1)
    assert bench.server.fetched == [1, 2]
    bench.loop.reconcile(1)
    assert bench.server.fetched == [1, 2]
    assert bench.status()["pool"]["tasks"] == 3


def test_only_the_task_that_changed_is_fetched_again(bench: Bench) -> None:
    bench.submit(1, 2)
    bench.loop.reconcile(1)
    bench.server.fetched.clear()
    bench.submit(2)
    bench.loop.reconcile(1)
    assert bench.server.fetched == [2]


def list_in_round(bench: Bench) -> list[int]:
    """What a round asks Label Studio for, in the order of ids."""
    bench.server.listed.clear()
    bench.clock.now += 1
    bench.loop.run_round(1)
    return sorted(bench.server.listed)


def test_a_round_lists_painted_tasks_alone_once_the_pool_is_known(bench: Bench) -> None:
    for task_id in range(1, 31):
        bench.server.add_task(task_id)
    bench.submit(1, 2)
    bench.loop.reconcile(1)
    bench.painted(5)  # its webhook is lost
    assert list_in_round(bench) == [1, 2, 5]
    assert newest(bench, 5) != []
    bench.server.add_task(31)
    assert list_in_round(bench) == list(range(1, 32))
    assert list_in_round(bench) == [1, 2, 5]
    bench.clock.now += bench.parts.settings.reconcile_every_s
    assert list_in_round(bench) == list(range(1, 32))


def test_a_round_that_lists_painted_tasks_alone_drops_those_that_are_gone(bench: Bench) -> None:
    bench.submit(1, 2)
    bench.server.add_task(3)
    bench.loop.reconcile(1)
    del bench.server.tasks[1], bench.server.annotations[100]
    bench.server.add_task(4)  # there are as many as before
    assert list_in_round(bench) == [2]
    bench.clock.now += 61
    assert list_in_round(bench) == [2]
    assert newest(bench, 1) == []
    assert bench.status()["pool"]["tasks"] == 2  # 4 is found when all are listed again
    bench.loop.reconcile(1)
    assert bench.status()["pool"]["tasks"] == 3


def test_an_annotation_that_arrives_while_label_studio_lists_is_not_dropped(bench: Bench) -> None:
    bench.submit(1)
    listing = bench.server.get_task

    def get_task_before_the_submit(task_id: int) -> object:
        task = listing(task_id)
        bench.clock.now += 1
        bench.tell(bench.painted(1, user_id=2, number=777))
        return task

    bench.server.get_task = get_task_before_the_submit  # type: ignore[method-assign, assignment]
    bench.loop.reconcile(1)
    assert [annotation_id for annotation_id, _ in newest(bench, 1)] == [100, 777]


def test_a_deletion_that_arrives_while_label_studio_lists_is_not_undone(bench: Bench) -> None:
    bench.submit(1)
    listing = bench.server.get_task

    def get_task_before_the_deletion(task_id: int) -> object:
        task = listing(task_id)
        bench.clock.now += 1
        bench.loop.record(
            bench.event("ANNOTATIONS_DELETED", "annotations-deleted", deleted_annotation_ids=(100,))
        )
        return task

    bench.server.get_task = get_task_before_the_deletion  # type: ignore[method-assign, assignment]
    bench.loop.reconcile(1)
    assert newest(bench, 1) == []


def test_a_task_that_is_deleted_between_listing_and_fetching_is_dropped(bench: Bench) -> None:
    bench.submit(1, 2)
    summaries = list(bench.server.iter_task_summaries(1))
    bench.server.iter_task_summaries = lambda project_id: iter(summaries)  # type: ignore[method-assign, assignment]
    del bench.server.tasks[1], bench.server.annotations[100], bench.server.iter_task_summaries
    for _ in range(2):
        bench.clock.now += 61
        bench.loop.reconcile(1)
    assert bench.status()["annotations"]["received"] == 1


def test_a_late_webhook_after_reconciliation_changes_nothing(bench: Bench) -> None:
    record = bench.painted(1)
    bench.loop.reconcile(1)
    bench.tell(record)
    bench.tell(replace(record, updated_at="000000", result=[]))
    assert newest(bench, 1) == [(100, record.updated_at)]
    assert bench.status()["annotations"]["received"] == 1


def test_label_studio_down_is_reported_and_a_round_goes_on_with_what_is_here(bench: Bench) -> None:
    bench.submit(1)
    bench.server.is_down = True
    version = bench.loop.run_round(1)
    assert version is not None
    (report,) = bench.loop.rounds(1)
    assert "Label Studio could not be asked" in report["note"]
    status = bench.status()
    assert "Label Studio could not be asked" in status["last_error"]
    assert status["state"] == "idle"
    assert status["annotations"] == {"received": 1, "trained": 1, "pending": 0}


def test_a_task_whose_image_was_away_waits_no_longer_than_label_studio(bench: Bench) -> None:
    """However often it was tried meanwhile: pauses that grew end with their cause."""
    bench.submit(1)
    bench.loop.run_round(1)
    bench.submit(2)
    bench.server.is_down, bench.images.away = True, {2}
    bench.loop.reconcile(1)
    for _ in range(6):
        bench.loop.build_truth(1)
        bench.clock.now += tasks.LONGEST_RETRY_S
    assert bench.status()["annotations"]["trained"] == 1
    bench.loop.build_truth(1)  # it fails once more, and the next try is minutes away
    bench.server.is_down, bench.images.away = False, set()
    bench.clock.now += 1
    bench.loop.reconcile(1)
    assert bench.loop.build_truth(1) == 1
    bench.loop.run_round(1)
    assert bench.status()["annotations"] == {"received": 2, "trained": 2, "pending": 0}


def test_a_round_takes_in_what_webhooks_missed(bench: Bench) -> None:
    bench.submit(1)
    bench.painted(2)  # its webhook never comes
    bench.loop.run_round(1)
    assert bench.trainer.last_keys == ["1", "2"]
    assert bench.status()["annotations"] == {"received": 2, "trained": 2, "pending": 0}


def test_imported_annotations_are_asked_for(bench: Bench) -> None:
    bench.loop.reconcile(1)
    bench.painted(1)
    bench.loop.record(bench.event("TASKS_CREATED", "tasks-created", tasks=(bench.task(1),)))
    from ml_backend.due import find_due
    from ml_backend.storage import projects

    with bench.parts.database.read() as connection:
        project = projects.get_project(connection, 1)
        assert "reconcile" in find_due(connection, project, bench.parts.settings, bench.clock())


def test_a_labeling_setup_that_changed_unnoticed_is_taken_over(bench: Bench) -> None:
    bench.server.label_config = LABEL_CONFIG.replace("Nucleus", "Cell")
    bench.loop.reconcile(1)
    assert [row["name"] for row in bench.status()["readiness"]["classes"]] == ["Background", "Cell"]


def test_a_project_that_was_made_anew_inherits_nothing(bench: Bench) -> None:
    bench.submit(1)
    bench.server.annotations.clear()
    bench.server.created_at = str(int(CREATED) + 9000)
    bench.loop.reconcile(1)
    assert bench.status()["annotations"]["received"] == 0


def test_one_empty_listing_drops_nothing_and_a_day_of_them_drops_what_is_gone(bench: Bench) -> None:
    bench.submit(1, 2)
    bench.loop.run_round(1)
    before = bench.status()
    kept, bench.server.tasks = bench.server.tasks, {}
    for _ in range(3):
        bench.clock.now += 600
        assert bench.loop.reconcile(1).deleted_tasks == 0
    assert bench.status()["annotations"] == before["annotations"]
    assert bench.status()["pool"] == before["pool"]
    bench.server.tasks = kept
    bench.clock.now += 600
    bench.loop.reconcile(1)
    assert bench.status()["annotations"] == before["annotations"]
    bench.server.tasks, bench.server.annotations = {}, {}
    for _ in range(2):
        bench.clock.now += 24 * 3600 + 1
        bench.loop.reconcile(1)
    assert bench.status()["pool"]["tasks"] == 0


def test_a_listing_shorter_than_the_servers_own_count_is_said_and_drops_nothing(bench: Bench) -> None:
    bench.submit(1, 2)
    bench.loop.reconcile(1)
    summaries = list(bench.server.iter_task_summaries(1))
    bench.server.iter_task_summaries = lambda project_id: iter(summaries[:1])  # type: ignore[method-assign, assignment]
    for _ in range(3):
        bench.clock.now += 24 * 3600 + 1
        found = bench.loop.reconcile(1)
        assert found.deleted_tasks == 0
        assert "listed 1 of 2 tasks" in str(found.problem)


def test_a_project_that_was_deleted_in_label_studio_is_said_and_kept(bench: Bench, monkeypatch) -> None:
    bench.submit(1)

    def refuse(project_id: int) -> ProjectRecord:
        raise LabelStudioRefusedError("Label Studio refused (404)", 404)

    monkeypatch.setattr(bench.server, "get_project", refuse)
    bench.loop.reconcile(1)
    assert "deleted there" in bench.status()["last_error"]
    assert "brushloop forget 1" in bench.status()["last_error"]
    assert bench.status()["annotations"]["received"] == 1
    monkeypatch.undo()
    bench.loop.reconcile(1)
    assert bench.status()["last_error"] is None


def test_what_belongs_to_tasks_that_were_dropped_and_came_back_is_complete_again(bench: Bench) -> None:
    bench.submit(1, 2)
    bench.loop.run_round(1)
    bench.server.add_task(9)
    bench.loop.suggest(1, [bench.task(2), bench.task(9)], None, math.inf)
    bench.clock.now += 1
    before, kept = list_rows_of(bench, 2), dict(bench.server.tasks)
    assert all(before.values())
    annotation = bench.server.annotations.pop(200)
    del bench.server.tasks[2], bench.server.tasks[9]
    for _ in range(2):
        bench.clock.now += 61
        bench.loop.reconcile(1)
    assert {row["task"] for row in bench.loop.ranked_tasks(1)} == set()
    bench.server.tasks = kept
    bench.server.keep(annotation)
    bench.clock.now += 61
    bench.loop.reconcile(1)
    bench.loop.build_truth(1)
    assert list_rows_of(bench, 2) == before
    assert {row["task"] for row in bench.loop.ranked_tasks(1)} == {2, 9}
    bench.loop.push(1)
    assert sorted(task_id for task_id, _ in bench.server.predictions.values()) == [2, 9]
    bench.loop.run_round(1)
    assert bench.status()["annotations"] == {"received": 2, "trained": 2, "pending": 0}
    efforts = [report["effort"]["annotations"] for report in bench.loop.rounds(1)]
    assert efforts == [0, 2]


def list_rows_of(bench: Bench, task_id: int) -> dict[str, list[tuple[Any, ...]]]:
    """Stored answers, sent regions and efforts of a task."""
    listed = {}
    with bench.parts.database.read() as connection:
        for table in (tables.predictions, tables.sent_regions, tables.efforts):
            # How far the truth is numbered is no part of what the row says.
            columns = [column for column in table.c if column.name != "seq"]
            query = sa.select(*columns).where(table.c.project_id == 1, table.c.task_id == task_id)
            listed[table.name] = [tuple(row) for row in connection.execute(query)]
    return listed


def test_what_belongs_to_a_deleted_task_goes_after_its_term_without_a_round(bench: Bench) -> None:
    bench.submit(1, 2)
    bench.loop.run_round(1)
    bench.loop.suggest(1, [bench.task(2)], None, math.inf)
    bench.loop.record(bench.event("TASKS_DELETED", "tasks-deleted", deleted_task_ids=(2,)))
    del bench.server.tasks[2], bench.server.annotations[200]
    bench.clock.now += expiry.KEPT_S
    bench.loop.reconcile(1)
    assert all(list_rows_of(bench, 2).values())
    bench.clock.now += 1
    bench.loop.reconcile(1)
    assert not any(list_rows_of(bench, 2).values())
    assert any(list_rows_of(bench, 1).values())
