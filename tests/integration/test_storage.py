"""What the database promises, the same for SQLite and PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from stored_rows import list_trained, open_database

from ml_backend.errors import NotFoundError
from ml_backend.ports import AnnotationRecord, SentRegion
from ml_backend.storage import (
    annotations as rows,
)
from ml_backend.storage import (
    candidates,
    expiry,
    models,
    predictions,
    projects,
    rounds,
    scorings,
    sent_regions,
    tables,
    task_data,
    tasks,
    wakeups,
)
from ml_backend.storage.database import Database
from ml_backend.storage.models import StoredModel

pytestmark = pytest.mark.integration

CREATED = 1_795_331_929
REGION = {"type": "brushlabels", "value": {"rle": [1, 2, 3]}}


@pytest.fixture
def database(service_backend: Any) -> Iterator[Database]:
    database = open_database(service_backend.data_dir, service_backend.database_url)
    with database.write() as connection:
        projects.remember_project(connection, 1, CREATED)
    yield database
    database.close()


def painted(
    annotation_id: int = 1, *, at: str = "01", task_id: int = 10, user_id: int = 7, **changes: Any
) -> AnnotationRecord:
    values = {"was_cancelled": False, "result": [REGION], **changes}
    return AnnotationRecord(annotation_id, task_id, user_id, at, **values)


def save(database: Database, record: AnnotationRecord, **more: Any) -> bool:
    with database.write() as connection:
        seq = projects.next_seq(connection, 1, 100.0)
        changed = bool(rows.save(connection, 1, rows.pack(record), seq, 100.0, **more))
        if changed:
            tasks.touch_task(connection, 1, record.task_id, seq)
        return changed


def living(database: Database, task_id: int = 10) -> list[tuple[int, str]]:
    with database.read() as connection:
        return [(r.annotation_id, r.updated_at) for r in rows.list_living(connection, 1, task_id)]


def test_the_schema_is_the_one_that_the_tables_describe(database: Database) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, tables.metadata) == []


def test_many_processes_may_open_a_new_database_at_once(service_backend: Any) -> None:
    def open_it(_: int) -> int:
        database = open_database(service_backend.data_dir, service_backend.database_url)
        with database.read() as connection:
            n_projects = len(projects.list_projects(connection))
        database.close()
        return n_projects

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(open_it, range(6))) == [0] * 6


def test_the_same_annotation_twice_counts_once(database: Database) -> None:
    assert save(database, painted())
    assert not save(database, painted())
    with database.read() as connection:
        assert rows.count(connection, 1) == rows.AnnotationCounts(received=1, trained=0, pending=1)


def test_an_older_event_never_replaces_a_newer_one(database: Database) -> None:
    save(database, painted(at="05"))
    assert not save(database, painted(at="04", result=[]))
    assert living(database) == [(1, "05")]


def test_stamps_with_and_without_microseconds_are_in_order(database: Database) -> None:
    save(database, painted(at="2026-11-22T07:20:24Z"))
    assert save(database, painted(at="2026-11-22T07:20:24.500000Z"))
    assert not save(database, painted(at="2026-11-22T07:20:24Z"))
    assert living(database) == [(1, "2026-11-22T07:20:24.500000Z")]


def test_a_late_created_does_not_bring_a_deleted_annotation_back(database: Database) -> None:
    save(database, painted(at="01"))
    with database.write() as connection:
        assert rows.delete(connection, 1, 1, 2, now=200.0) == 10
    assert not save(database, painted(at="02"))
    assert living(database) == []


def test_a_deletion_that_comes_before_its_annotation_is_kept(database: Database) -> None:
    with database.write() as connection:
        assert rows.delete(connection, 1, 1, 2, now=200.0) is None
    assert not save(database, painted())
    assert living(database) == []


def test_only_a_listing_made_after_the_deletion_brings_an_annotation_back(database: Database) -> None:
    save(database, painted())
    with database.write() as connection:
        rows.delete(connection, 1, 1, 2, now=200.0)
    assert not save(database, painted(), listed_seq=0)
    assert save(database, painted(), listed_seq=100)
    assert living(database) == [(1, "01")]


def test_all_annotations_but_cancelled_ones_count_the_oldest_edit_first(database: Database) -> None:
    save(database, painted(1, at="01", user_id=7))
    save(database, painted(2, at="02", user_id=7))
    save(database, painted(3, at="01", user_id=8))
    save(database, painted(4, at="09", user_id=9, was_cancelled=True))
    assert living(database) == [(1, "01"), (3, "01"), (2, "02")]


def test_cancelling_an_annotation_changes_the_truth(database: Database) -> None:
    save(database, painted(at="01"))
    assert save(database, painted(at="02", was_cancelled=True, result=[]))
    assert living(database) == []


def test_a_skip_has_nothing_to_be_trained_on_and_is_never_pending(database: Database) -> None:
    assert not save(database, painted(was_cancelled=True, result=[]))
    assert not save(database, painted(2, result=[]))
    with database.read() as connection:
        assert rows.count(connection, 1).pending == 0


def test_a_large_annotation_comes_back_unchanged(database: Database) -> None:
    stream = np.random.default_rng(0).integers(0, 256, 50_000).tolist()
    save(database, painted(result=[{"value": {"rle": stream}, "text": "Zellkern ä"}]))
    with database.read() as connection:
        (record,) = rows.list_living(connection, 1, 10)
    assert list(record.result) == [{"value": {"rle": stream}, "text": "Zellkern ä"}]


def test_a_round_settles_only_what_it_saw(database: Database) -> None:
    save(database, painted(1))
    with database.read() as connection:
        (task,) = tasks.list_unbuilt(connection, 1, 100.0, 10)
    with database.write() as connection:
        tasks.save_truth(connection, 1, task, {"maps": None}, [(3, 1), (0, 0)], [])
        (seen,) = tasks.list_truth(connection, 1)
    save(database, painted(2, user_id=8))  # arrives while the round trains
    with database.write() as connection:
        tasks.settle_task(connection, 1, seen, round_number=4, used=[1])
        models.add_model(connection, 1, models.to_model("r0004", 4, None, 1, 0.0, {}))
        models.set_current(connection, 1, "r0004")
    with database.read() as connection:
        assert rows.count(connection, 1) == rows.AnnotationCounts(received=2, trained=1, pending=1)
        assert list_trained(connection, 1) == {1: 4}
        assert tasks.has_unsettled(connection, 1, attempted_seq=0)
        assert tasks.sum_counts(connection, 1) == {0: (3, 1)}


def test_an_annotation_of_a_person_who_painted_again_leaves_the_training_set(database: Database) -> None:
    for number, record in enumerate([painted(1, at="01"), painted(2, at="02")], start=1):
        save(database, record)
        with database.write() as connection:
            (task,) = tasks.list_unbuilt(connection, 1, 100.0, 10)
            tasks.save_truth(connection, 1, task, {}, [], [])
            (seen,) = tasks.list_truth(connection, 1)
            tasks.settle_task(connection, 1, seen, number, [record.annotation_id])
    with database.read() as connection:
        assert list_trained(connection, 1) == {2: 2}
        assert rows.count(connection, 1).pending == 0


def test_a_deleted_task_takes_its_annotations_and_counts_with_it(database: Database) -> None:
    save(database, painted())
    with database.write() as connection:
        (task,) = tasks.list_unbuilt(connection, 1, 100.0, 10)
        tasks.save_truth(connection, 1, task, {}, [(5, 1)], [{"code": "a", "message": "b"}])
        tasks.delete_tasks(connection, 1, [10], now=300.0)
    with database.read() as connection:
        assert rows.count(connection, 1).received == 0
        assert tasks.sum_counts(connection, 1) == {}
        assert tasks.list_findings(connection, 1, 10) == []
        assert tasks.find_deleted(connection, 1, [10, 11]) == {10}
        assert tasks.has_unsettled(connection, 1, attempted_seq=0)


def test_another_labeling_setup_makes_every_painted_task_stale(database: Database) -> None:
    with database.write() as connection:
        project = projects.get_project(connection, 1)
        projects.set_label_config(connection, project, "<View/>", 100.0)
    save(database, painted())
    with database.write() as connection:
        task_data.remember_tasks(connection, 1, [(11, {"image": "b.png"})], 100.0)
        (task,) = tasks.list_unbuilt(connection, 1, 100.0, 10)
        tasks.save_truth(connection, 1, task, {}, [], [])
        project = projects.get_project(connection, 1)
        assert not projects.set_label_config(connection, project, "<View/>", 110.0)
        assert not tasks.has_unbuilt(connection, 1, 100.0)
        assert projects.set_label_config(connection, project, "<View>2</View>", 120.0)
        assert [task.task_id for task in tasks.list_unbuilt(connection, 1, 100.0, 10)] == [10]


def test_a_task_that_could_not_be_used_waits_for_its_time(database: Database) -> None:
    save(database, painted())
    with database.write() as connection:
        (task,) = tasks.list_unbuilt(connection, 1, 100.0, 10)
        tasks.save_truth(connection, 1, task, {}, [], [], retry_at=500.0)
        (seen,) = tasks.list_truth(connection, 1)
        tasks.settle_task(connection, 1, seen, 1, [])
        assert not tasks.has_unbuilt(connection, 1, 499.0)
        assert not tasks.has_unsettled(connection, 1, attempted_seq=0)
        (again,) = tasks.list_unbuilt(connection, 1, 500.0, 10)
        revived = tasks.revive_task(connection, 1, again, 500.0)
        assert rows.count(connection, 1).pending == 1
        assert tasks.has_unsettled(connection, 1, attempted_seq=0)
        tasks.save_truth(connection, 1, revived, {}, [], [])
        assert not tasks.has_unbuilt(connection, 1, 900.0)


def test_a_project_with_another_creation_time_inherits_nothing(database: Database) -> None:
    save(database, painted())
    with database.write() as connection:
        models.add_model(connection, 1, model("r0001-aaaaaaaa"))
        again = projects.remember_project(connection, 1, CREATED + 1)  # the same, rounded differently
        assert again is not None
        assert rows.count(connection, 1).received == 1
        assert projects.remember_project(connection, 1, CREATED + 5000) is None  # anybody may have said so
        assert rows.count(connection, 1).received == 1
        other = projects.confirm_project(connection, 1, CREATED + 5000)  # Label Studio said so
        assert other is not None
        assert other.is_confirmed
        assert other.folder != again.folder
    with database.read() as connection:
        assert rows.count(connection, 1).received == 0
        assert models.list_known_versions(connection, 1) == set()


def test_a_late_message_about_a_project_that_is_gone_is_refused(database: Database) -> None:
    save(database, painted())
    with database.write() as connection:
        assert projects.remember_project(connection, 1, CREATED - 5000) is None


def test_a_confirmed_project_that_holds_something_is_never_replaced(database: Database) -> None:
    save(database, painted())
    with database.write() as connection:
        assert projects.confirm_project(connection, 1, CREATED) is not None
        assert projects.confirm_project(connection, 1, CREATED + 5000) is None
        assert rows.count(connection, 1).received == 1


def model(version: str, number: int = 1) -> StoredModel:
    return models.to_model(version, number, None, 1, 100.0, {"draft": True})


def test_a_version_is_never_published_twice(database: Database) -> None:
    with database.write() as connection:
        models.add_model(connection, 1, model("r0001-aaaaaaaa"))
    with pytest.raises(sa.exc.IntegrityError), database.write() as connection:
        models.add_model(connection, 1, model("r0001-aaaaaaaa"))


def test_an_unknown_version_is_not_found(database: Database) -> None:
    with database.read() as connection, pytest.raises(NotFoundError, match="r0009"):
        models.get_model(connection, 1, "r0009-aaaaaaaa")


def begin(database: Database, owner: str, *, lost: bool = False) -> int | None:
    with database.write() as connection:
        return rounds.begin(connection, 1, owner, 5, 100.0, lambda running: lost)


def test_one_of_many_workers_gets_the_round(database: Database) -> None:
    barrier = threading.Barrier(8)

    def compete(owner: int) -> int | None:
        barrier.wait()
        return begin(database, f"worker-{owner}")

    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(compete, range(8)))
    assert sorted(number for number in numbers if number is not None) == [1]


def test_a_lost_round_is_recorded_as_interrupted_and_its_late_owner_is_refused(database: Database) -> None:
    assert begin(database, "first") == 1
    assert begin(database, "second") is None
    assert begin(database, "second", lost=True) == 2
    with database.write() as connection:
        assert not rounds.beat(connection, 1, 1, "first", 101.0)
        assert not rounds.finish(connection, 1, 1, "first", "done", 101.0)
        assert rounds.finish(connection, 1, 2, "second", "done", 102.0, report={"seconds": 1})
        states = [(stored.number, stored.state) for stored in rounds.list_rounds(connection, 1)]
    assert states == [(2, "done"), (1, "interrupted")]


def test_interruptions_in_a_row_over_the_same_truth_are_counted(database: Database) -> None:
    for owner in ("a", "b", "c"):
        begin(database, owner, lost=True)
    with database.read() as connection:
        assert rounds.list_interrupted(connection, 1, requests=0) == []  # the newest one still runs
    begin(database, "d", lost=True)
    with database.write() as connection:
        rounds.finish(connection, 1, 4, "d", "interrupted", 150.0)
        interrupted = rounds.list_interrupted(connection, 1, requests=0)
        assert [stored.number for stored in interrupted] == [4, 3, 2, 1]
        assert interrupted[0].finished_at == 150.0
        assert rounds.list_interrupted(connection, 1, requests=1) == []


def test_sent_regions_come_back_as_they_were(database: Database) -> None:
    mask = np.random.default_rng(1).random((7, 13)) > 0.5
    sent = SentRegion("abc", "Nucleus", "r0001-aaaaaaaa", 3, 4, mask)
    with database.write() as connection:
        sent_regions.save_sent(connection, 1, 10, [sent], 100.0)
        sent_regions.save_sent(connection, 1, 10, [sent], 101.0)
        (found,) = sent_regions.list_sent(connection, 1, 10)
    assert (found.region_id, found.class_name, found.top, found.left) == ("abc", "Nucleus", 3, 4)
    assert np.array_equal(found.mask, mask)


def test_old_sent_regions_go_unless_they_are_held_or_painted_on(database: Database) -> None:
    def keep(task_id: int, version: str, sent_at: float) -> None:
        region = SentRegion(f"{task_id}{version}", "Nucleus", version, 0, 0, np.ones((2, 2), bool))
        with database.write() as connection:
            sent_regions.save_sent(connection, 1, task_id, [region], sent_at)

    def left(task_id: int) -> list[str]:
        with database.read() as connection:
            return [region.model_version for region in sent_regions.list_sent(connection, 1, task_id)]

    for task_id in (10, 11, 12):
        keep(task_id, "r1", 100.0)
        keep(task_id, "r2", 200.0)
    keep(12, "r3", 300.0)
    save(database, painted(task_id=10))
    save(database, painted(2, task_id=11))
    with database.write() as connection:
        rows.delete(connection, 1, 2, projects.next_seq(connection, 1, 300.0), 300.0)
        held = {"result": [], "score": 0.5, "model_version": "r2"}
        predictions.save_prediction(connection, 1, 11, "f", held, [], 200.0)
        assert expiry.drop_sent(connection, 1, before=300.0) == 3
        assert expiry.drop_sent(connection, 1, before=300.0) == 0
        assert expiry.drop_sent(connection, 2, before=1e9) == 0
    assert left(10) == ["r1", "r2"]  # painted on
    assert left(11) == ["r2"]  # held by Label Studio; what was painted there is deleted
    assert left(12) == ["r3"]  # not old


def test_a_prediction_is_kept_per_task_version_and_fingerprint(database: Database) -> None:
    prediction = {"result": [], "score": 0.25, "model_version": "r0001-aaaaaaaa"}
    with database.write() as connection:
        task_data.remember_tasks(connection, 1, [(10, {"image": "a"}), (11, {"image": "b"})], 100.0)
        predictions.save_prediction(connection, 1, 10, "f1", prediction, [{"top": 1}], 100.0)
        predictions.save_prediction(connection, 1, 11, "f1", {**prediction, "score": 0.125}, [], 100.0)
        assert predictions.find_prediction(connection, 1, 10, "r0001-aaaaaaaa", "f1") == prediction
        assert predictions.find_prediction(connection, 1, 10, "r0001-aaaaaaaa", "f2") is None
        ranked = predictions.rank_tasks(connection, 1, "r0001-aaaaaaaa", 10)
        assert predictions.count_scored(connection, 1, "r0001-aaaaaaaa") == (2, 0)
        assert predictions.count_scored(connection, 1, "r0002-bbbbbbbb") == (0, 2)
    found = [(task.task_id, task.score, task.regions) for task in ranked]
    assert found == [(11, 0.125, "[]"), (10, 0.25, '[{"top": 1}]')]


def test_of_each_task_the_newest_prediction_is_kept(database: Database) -> None:
    prediction = {"result": [], "score": 0.25, "model_version": "r0001-aaaaaaaa"}
    with database.write() as connection:
        predictions.save_prediction(connection, 1, 10, "f", prediction, [], 100.0)
        newer = {**prediction, "model_version": "r0002-bbbbbbbb"}
        predictions.save_prediction(connection, 1, 10, "f", newer, [], 101.0)
        assert predictions.find_prediction(connection, 1, 10, "r0001-aaaaaaaa", "f") is None
        assert predictions.find_prediction(connection, 1, 10, "r0002-bbbbbbbb", "f") == newer


def test_a_changed_score_is_told_and_what_the_model_found_is_kept(database: Database) -> None:
    scene = np.float16([0.6, 0.8])
    with database.write() as connection:
        task_data.remember_tasks(connection, 1, [(10, {"image": "a"}), (11, {"image": "b"})], 100.0)
        for task_id, score, seen in ((10, 0.25, scene), (11, 0.125, None)):
            answer = {"result": [], "score": score, "model_version": "v1"}
            predictions.save_prediction(connection, 1, task_id, "f", answer, [], 1.0, seen, ["Nucleus"])
        candidates.change_scores(connection, 1, "v1", {11: 0.75})
        candidates.change_scores(connection, 1, "v2", {10: 0.5})
        candidates.change_scores(connection, 1, "v1", {})
        told = [predictions.find_prediction(connection, 1, i, "v1", "f") for i in (10, 11)]
        assert [answer and answer["score"] for answer in told] == [0.25, 0.75]
        stored = predictions.find_stored(connection, 1, 11)
        assert stored is not None
        assert stored["score"] == 0.75
        first, second = candidates.list_candidates(connection, 1, "v1", 5)
        assert len(candidates.list_candidates(connection, 1, "v1", 1)) == 1
        assert candidates.list_candidates(connection, 1, "v2", 5) == []
    assert [(c.task_id, c.score, c.told) for c in (first, second)] == [(10, 0.25, 0.25), (11, 0.125, 0.75)]
    assert first.embedding.tolist() == scene.tolist()
    assert second.embedding.size == 0
    assert first.classes == {"Nucleus"}


def lease_pushes(connection: Any, now: float, owner: str = "me", gone: Any = ()) -> list[int]:
    leased = predictions.lease_pushes(connection, 1, owner, now, now + 50, gone, 5)
    return sorted(push.task_id for push in leased)


def test_owed_pushes_are_given_up_after_too_many_attempts(database: Database) -> None:
    with database.write() as connection:
        predictions.enqueue_pushes(connection, 1, [10, 11], 100.0, is_open=True)
        assert lease_pushes(connection, 100.0) == [10, 11]
        predictions.clear_pushes(connection, 1, [11], "me")
        predictions.postpone_pushes(connection, 1, [10], "me", 200.0, max_attempts=2)
        assert lease_pushes(connection, 199.0) == []
        assert lease_pushes(connection, 200.0) == [10]
        predictions.postpone_pushes(connection, 1, [10], "me", 300.0, max_attempts=2)
        assert lease_pushes(connection, 900.0) == []


def test_owed_pushes_that_nobody_tried_are_not_given_up(database: Database) -> None:
    with database.write() as connection:
        predictions.enqueue_pushes(connection, 1, [10], 100.0, is_open=True)
        for now in range(100, 105):
            assert lease_pushes(connection, now) == [10]
            predictions.postpone_pushes(connection, 1, [10], "me", now + 1, max_attempts=None)
        assert lease_pushes(connection, 105) == [10]
        predictions.postpone_pushes(connection, 1, [10], "me", 106.0, max_attempts=2)
        assert lease_pushes(connection, 106) == [10]


def test_a_push_belongs_to_one_worker_until_it_is_lost(database: Database) -> None:
    with database.write() as connection:
        predictions.enqueue_pushes(connection, 1, [10], 100.0, is_open=False)
        assert lease_pushes(connection, 100.0) == [10]
        assert lease_pushes(connection, 149.0, "other") == []
        assert not predictions.has_due_push(connection, 1, 149.0)
        assert lease_pushes(connection, 149.0, "other", gone={"me"}) == [10]
        predictions.clear_pushes(connection, 1, [10], "me")
        assert lease_pushes(connection, 199.0, "third") == [10]
        predictions.clear_pushes(connection, 1, [10], "third")
        assert predictions.count_due_pushes(connection, 1, 900.0) == 0


def test_a_push_that_is_asked_for_again_while_it_is_sent_is_still_due(database: Database) -> None:
    """What is under way may be an older answer: whoever sends it does not know of the newer one."""
    with database.write() as connection:
        predictions.enqueue_pushes(connection, 1, [10, 11], 100.0, is_open=False)
        assert lease_pushes(connection, 100.0) == [10, 11]
        for _ in range(2):
            predictions.enqueue_pushes(connection, 1, [10], 101.0, is_open=False)
        assert lease_pushes(connection, 102.0) == [], "one worker at a time"
        predictions.clear_pushes(connection, 1, [10, 11], "me")
        assert lease_pushes(connection, 102.0) == [10]
        predictions.clear_pushes(connection, 1, [10], "me")
        assert predictions.count_due_pushes(connection, 1, 900.0) == 0


def test_asking_again_does_not_forget_how_often_a_push_failed(database: Database) -> None:
    with database.write() as connection:
        predictions.enqueue_pushes(connection, 1, [10], 100.0, is_open=False)
        for attempt in range(3):
            assert lease_pushes(connection, 100.0 + attempt) == [10]
            predictions.enqueue_pushes(connection, 1, [10], 100.0, is_open=False)
            predictions.postpone_pushes(connection, 1, [10], "me", 101.0 + attempt, max_attempts=3)
        assert predictions.count_due_pushes(connection, 1, 900.0) == 0


def test_a_task_is_scored_by_one_worker_at_a_time_in_the_order_of_the_plan(database: Database) -> None:
    def take(owner: str, now: float, gone: Any = ()) -> int | None:
        with database.write() as connection:
            return scorings.lease_next(connection, 1, "r0001-aaaaaaaa", owner, now, now + 50, gone)

    with database.write() as connection:
        scorings.plan(connection, 1, "r0001-aaaaaaaa", [12, 10, 11])
    assert [take("a", 1.0), take("b", 1.0), take("c", 1.0), take("d", 1.0)] == [12, 10, 11, None]
    assert take("d", 2.0, gone={"b"}) == 10
    with database.write() as connection:
        assert not scorings.drop(connection, 1, 10, "b"), "it was taken over"
        assert scorings.drop(connection, 1, 10, "d")
        scorings.give_back(connection, 1, 11, "c")
    assert take("e", 3.0) == 11
    with database.write() as connection:
        scorings.plan(connection, 1, "r0002-bbbbbbbb", [10])
    assert take("f", 100.0) is None, "another model was promoted"


def test_what_is_scored_next_is_read_from_the_start_of_an_index(database: Database) -> None:
    with database.write() as connection:
        images = [(task_id, {"image": str(task_id)}) for task_id in range(1, 301)]
        task_data.remember_tasks(connection, 1, images, 1.0)
        for task_id in range(101, 301):
            answer = {"score": (task_id * 7 % 200) / 200, "model_version": "v1" if task_id <= 200 else "v2"}
            predictions.save_prediction(connection, 1, task_id, "f", answer, [], float(task_id))
        scorings.note_try(connection, 1, 5, 50.0)
        never = scorings.list_never(connection, 1, 100)
        assert sorted(never) == list(range(1, 101))
        assert never[-1] == 5, "what could not be scored waits"
        assert scorings.list_stale(connection, 1, "v2", 3) == [101, 102, 103]
        unsure = scorings.list_unsure(connection, 1, "v2", 5)
        assert unsure == sorted(range(101, 201), key=lambda i: i * 7 % 200)[:5]
        drawn = scorings.list_random(connection, 1, "v2", 2**30, 1000)
        assert sorted(drawn) == list(range(1, 201))
        assert predictions.count_scored(connection, 1, "v2") == (100, 100)
        tasks.delete_tasks(connection, 1, [101, 1], 60.0)
        assert scorings.list_stale(connection, 1, "v2", 1) == [102]
        assert 1 not in scorings.list_never(connection, 1, 100)
        assert predictions.count_scored(connection, 1, "v2") == (100, 99)


def test_the_queries_of_the_pool_use_its_indices(database: Database) -> None:
    if database.is_postgres:
        pytest.skip("its planner chooses by the number of rows")
    statements: list[tuple[str, Any]] = []

    def keep(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        statements.append((statement, parameters))

    sa.event.listen(database.engine, "before_cursor_execute", keep)
    with database.read() as connection:
        scorings.list_never(connection, 1, 5)
        scorings.list_stale(connection, 1, "v2", 5)
        scorings.list_unsure(connection, 1, "v2", 5)
        scorings.list_random(connection, 1, "v2", 5, 5)
        predictions.rank_tasks(connection, 1, "v2", 5)
        candidates.list_candidates(connection, 1, "v2", 5)
    sa.event.remove(database.engine, "before_cursor_execute", keep)
    selects = [(text, values) for text, values in statements if text.startswith("SELECT")]
    assert len(selects) == 7
    with database.engine.connect() as raw:
        for text, values in selects:
            steps = [row[3] for row in raw.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", values)]
            assert "USING" in steps[0], text
            assert "INDEX ix_" in steps[0], text
            assert not any("TEMP B-TREE" in step for step in steps), text


def test_a_wake_up_is_sent_once_until_it_arrives_or_is_lost(database: Database) -> None:
    def take(now: float) -> bool:
        with database.write() as connection:
            return wakeups.take(connection, 1, "round", now, lost_after_s=60.0)

    assert [take(1000.0), take(1001.0)] == [True, False]
    with database.write() as connection:
        wakeups.clear(connection, 1, "round")
    assert [take(1002.0), take(1061.0), take(1063.0)] == [True, False, True]


def test_no_access_token_is_in_a_projects_printed_form(database: Database) -> None:
    with database.write() as connection:
        projects.update_project(connection, 1, access_token="very-secret")
        assert "very-secret" not in repr(projects.get_project(connection, 1))


def test_nothing_of_a_failed_write_stays(database: Database) -> None:
    def fail_half_way() -> None:
        with database.write() as connection:
            projects.update_project(connection, 1, title="half")
            models.get_model(connection, 1, "none")

    with pytest.raises(NotFoundError):
        fail_half_way()
    with database.read() as connection:
        assert projects.get_project(connection, 1).title == ""


def test_a_stopped_process_holds_others_for_a_limited_time(database):
    """SQLite's writers wait for a time; PostgreSQL also ends sessions that idle inside a transaction."""
    names = ("lock_timeout", "idle_in_transaction_session_timeout")
    with database.read() as connection:
        if database.is_postgres:
            limits = [connection.execute(sa.text(f"SHOW {name}")).scalar_one() for name in names]
            assert limits == ["15s", "1min"]
        else:
            assert connection.execute(sa.text("PRAGMA busy_timeout")).scalar_one() == 15_000
