"""The loop's story, with a Label Studio, images and a clock at hand, and a training of two steps."""

from __future__ import annotations

import io
import json
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loop_fakes import CREATED, Bench, area, make_bench
from painted import LABEL_CONFIG, SIDE_PX, brush, make_picture
from PIL import Image
from stored_rows import list_trained

from core.errors import TrainingError
from core.schema import IGNORE_INDEX
from ml_backend.due import find_due
from ml_backend.errors import (
    ConflictError,
    LabelConfigError,
    NotFoundError,
    PayloadError,
    UnauthorizedError,
)
from ml_backend.storage import projects, rounds, tasks
from ml_backend.storage.projects import forget_project


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = make_bench(tmp_path)
    yield bench
    bench.close()


def due(bench: Bench) -> list[str]:
    """What learning asks for; what follows a promotion is the matter of the tests of scoring and order."""
    with bench.parts.database.read() as connection:
        project = projects.get_project(connection, 1)
        found = find_due(connection, project, bench.parts.settings, bench.clock())
    return [job for job in found if job not in ("score", "rank", "sync")]


def truth_of(bench: Bench, task_id: int) -> Any:
    return np.array(Image.open(io.BytesIO(bench.loop.picture(1, task_id, "truth"))))


# Record


def test_an_event_is_stored_without_asking_anybody(bench: Bench) -> None:
    bench.server.is_down = True
    bench.images.unreachable = {1}
    bench.submit(1)
    assert bench.status()["annotations"] == {"received": 1, "trained": 0, "pending": 1}
    assert bench.images.opened == []


def test_the_first_version_has_a_name(bench: Bench) -> None:
    assert bench.loop.connect(2, CREATED, LABEL_CONFIG, "http://label-studio", None) == "untrained"


def test_a_setup_that_cannot_be_used_is_refused_and_its_events_are_kept(bench: Bench) -> None:
    with pytest.raises(LabelConfigError, match="BrushLabels"):
        bench.loop.connect(
            1, CREATED, '<View><Image name="i" value="$i"/></View>', "http://label-studio", None
        )
    bench.server.label_config = '<View><Image name="i" value="$i"/></View>'
    bench.submit(1)
    status = bench.status()
    assert status["state"] == "error"
    assert "BrushLabels" in status["last_error"]
    assert status["annotations"]["received"] == 1
    bench.server.label_config = LABEL_CONFIG
    bench.loop.record(bench.event("PROJECT_UPDATED", "project-updated"))
    bench.loop.build_truth(1)
    assert bench.status()["state"] == "queued"


def test_a_late_event_of_an_older_project_with_the_same_number_is_left_out(bench: Bench) -> None:
    bench.submit(1)
    bench.server.created_at = str(int(CREATED) - 9000)
    with pytest.raises(ConflictError, match="another one here"):
        bench.submit(2)
    assert bench.status()["annotations"]["received"] == 1


@pytest.mark.parametrize("is_confirmed", [False, True])
def test_no_call_takes_a_project_away_by_naming_another_birth(bench: Bench, is_confirmed: bool) -> None:
    bench.submit(1)
    if is_confirmed:
        bench.loop.reconcile(1)
    version = bench.loop.run_round(1)
    with pytest.raises(ConflictError, match="brushloop forget 1"):
        bench.loop.connect(1, str(int(CREATED) + 5_000_000_000), LABEL_CONFIG, "http://other", None)
    assert bench.status()["annotations"]["received"] == 1
    assert bench.loop.versions(1) == [version]
    bench.submit(2)  # and the genuine calls after it count
    assert bench.status()["annotations"]["received"] == 2


def test_a_project_that_only_a_forged_call_made_gives_way_to_label_studios_own(bench: Bench) -> None:
    bench.server.created_at, genuine = str(int(CREATED) + 9000), bench.server.created_at
    bench.submit(1)
    bench.server.created_at = genuine
    bench.loop.reconcile(1)
    bench.submit(2)
    bench.loop.reconcile(1)
    assert bench.status()["annotations"]["received"] == len(bench.server.annotations)


def test_another_project_that_label_studio_itself_names_is_left_to_an_operator(bench: Bench) -> None:
    bench.submit(1)
    bench.loop.reconcile(1)
    bench.server.created_at = str(int(CREATED) + 9000)
    assert "brushloop forget 1" in str(bench.loop.reconcile(1).problem)
    assert "brushloop forget 1" in bench.status()["last_error"]
    assert bench.status()["annotations"]["received"] == 1


def test_a_project_that_holds_nothing_is_replaced_without_a_question(bench: Bench) -> None:
    bench.loop.connect(1, CREATED, LABEL_CONFIG, "http://label-studio", None)
    later = str(int(CREATED) + 9000)
    assert bench.loop.connect(1, later, LABEL_CONFIG, "http://label-studio", None) == "untrained"


def test_once_the_webhooks_key_is_known_nobody_else_speaks_for_the_project(bench: Bench) -> None:
    bench.submit(1)
    bench.server.webhook_key = "secret"
    bench.loop.reconcile(1)
    event = bench.event("TASKS_DELETED", "tasks-deleted", deleted_task_ids=(1,))
    for key in ("", "guess"):
        with pytest.raises(UnauthorizedError, match="brushloop setup"):
            bench.loop.record(event, key)
    assert bench.status()["annotations"]["received"] == 1
    bench.loop.record(bench.event("START_TRAINING", "start-training"))  # the button brings no key
    bench.loop.record(event, "secret")
    assert bench.status()["annotations"]["received"] == 0


def test_an_annotation_from_the_future_is_refused_because_no_later_one_would_beat_it(bench: Bench) -> None:
    with pytest.raises(PayloadError, match="set the clocks"):
        bench.tell(replace(bench.painted(1), updated_at="2199-01-01T00:00:00Z"))
    assert bench.status()["annotations"]["received"] == 0


def test_an_annotation_of_a_deleted_task_does_not_wait_forever(bench: Bench) -> None:
    record = bench.painted(1)
    bench.tell(record)
    bench.loop.record(bench.event("TASKS_DELETED", "tasks-deleted", deleted_task_ids=(1,)))
    bench.tell(replace(record, annotation_id=101, updated_at="999999"))
    assert bench.status()["annotations"] == {"received": 0, "trained": 0, "pending": 0}
    assert bench.status()["pool"]["tasks"] == 0


def test_the_credential_is_not_shown_anywhere(bench: Bench) -> None:
    bench.loop.connect(1, CREATED, LABEL_CONFIG, "http://label-studio", "very-secret")
    bench.submit(1)
    bench.loop.run_round(1)
    shown = [bench.status(), bench.loop.projects(), bench.loop.rounds(1), bench.loop.versions()]
    assert "very-secret" not in json.dumps(shown)


# The gate


def test_nothing_is_trained_while_the_gate_is_closed(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, min_pixels_per_class=5000)
    bench.submit(1)
    assert due(bench) == ["reconcile", "build"]
    bench.loop.reconcile(1)
    bench.loop.build_truth(1)
    bench.clock.now += 100
    status = bench.status()
    assert due(bench) == []
    assert status["state"] == "waiting"
    nucleus = status["readiness"]["classes"][1]
    truth = truth_of(bench, 1)
    assert nucleus["pixels"] == area(truth == 1)
    assert nucleus["needed_pixels"] == 5000
    assert str(5000 - nucleus["pixels"]) in status["advice"]
    bench.close()


def test_a_request_overrides_the_gate_and_the_model_is_used(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, min_pixels_per_class=5000)
    bench.submit(1)
    bench.loop.record(bench.event("START_TRAINING", "start-training"))
    assert bench.status()["state"] == "queued"
    assert "round" in due(bench)
    version = bench.loop.run_round(1)
    status = bench.status()
    assert status["model_version"] == version
    assert status["annotations"]["pending"] == 0
    assert status["state"] == "waiting"
    assert due(bench) == []
    bench.close()


def test_ten_quick_submits_make_one_round(bench: Bench) -> None:
    bench.loop.reconcile(1)
    for task_id in range(1, 11):
        bench.clock.now += 0.5
        bench.submit(task_id)
        bench.loop.build_truth(1)
        assert due(bench) == []
    bench.clock.now += 2.0
    assert due(bench) == ["round"]
    bench.loop.run_round(1)
    assert due(bench) == []
    assert sorted(bench.trainer.last_keys, key=int) == [str(i) for i in range(1, 11)]
    assert len(bench.loop.rounds(1)) == 1


def test_where_people_never_pause_a_round_comes_all_the_same(bench: Bench) -> None:
    bench.loop.reconcile(1)
    for task_id in range(1, 32):
        bench.submit(task_id)
        bench.loop.build_truth(1)
        bench.clock.now += 1.0
    assert "round" in due(bench)


# Run a round


def test_after_a_round_every_annotation_is_in_the_training_set_once(bench: Bench) -> None:
    bench.submit(1, 2)
    bench.tell(bench.painted(1, user_id=2, number=555))
    bench.submit(1)  # the same person again, in the same annotation
    bench.loop.run_round(1)
    assert bench.trainer.last_keys == ["1", "2"]
    assert bench.status()["annotations"] == {"received": 3, "trained": 3, "pending": 0}
    with bench.parts.database.read() as connection:
        assert list_trained(connection, 1) == {100: 1, 200: 1, 555: 1}


def test_what_arrives_during_a_round_waits_for_the_next_one(bench: Bench) -> None:
    bench.submit(1, 2)
    bench.trainer.during = lambda: bench.submit(3)
    bench.loop.run_round(1)
    bench.trainer.during = lambda: None
    status = bench.status()
    assert status["annotations"] == {"received": 3, "trained": 2, "pending": 1}
    assert status["state"] == "queued"
    bench.loop.run_round(1)
    assert bench.status()["annotations"] == {"received": 3, "trained": 3, "pending": 0}


def test_an_edit_during_a_round_is_not_taken_for_settled(bench: Bench) -> None:
    bench.submit(1, 2)
    bench.trainer.during = lambda: bench.submit(1)
    bench.loop.run_round(1)
    assert bench.status()["annotations"] == {"received": 2, "trained": 1, "pending": 1}


def test_a_worker_that_goes_down_leaves_the_other_tasks_to_the_next_one(bench: Bench) -> None:
    bench.submit(1, 2)
    looks = iter([False, True])
    assert bench.loop.build_truth(1, lambda: next(looks)) == 1
    assert bench.loop.build_truth(1) == 1


def test_only_tasks_that_changed_are_built_and_marked_as_new(bench: Bench) -> None:
    bench.submit(1, 2)
    bench.loop.run_round(1)
    bench.images.opened.clear()
    bench.submit(2)
    assert bench.loop.build_truth(1) == 1
    assert bench.images.opened == [2]
    bench.loop.run_round(1)
    flags = {example.summary.key: example.summary.is_new for example in bench.trainer.specs[-1].examples}
    assert flags == {"1": False, "2": True}
    assert bench.trainer.specs[-1].start is not None


def test_a_deleted_annotation_stops_teaching(bench: Bench) -> None:
    bench.submit(1, 2, 3)
    bench.loop.run_round(1)
    bench.server.drop(200)
    bench.loop.record(
        bench.event("ANNOTATIONS_DELETED", "annotations-deleted", deleted_annotation_ids=(200,))
    )
    assert bench.status()["state"] == "queued"
    bench.loop.run_round(1)
    assert bench.trainer.last_keys == ["1", "3"]
    assert bench.status()["annotations"] == {"received": 2, "trained": 2, "pending": 0}
    assert bench.status()["state"] == "idle"


def test_an_image_that_cannot_be_read_is_named_and_left_out(bench: Bench) -> None:
    bench.images.broken = {2}
    bench.submit(1, 2, 3)
    bench.loop.run_round(1)
    (report,) = bench.loop.rounds(1)
    assert report["skipped_images"] == {"2": "the image of task 2 is not an image"}
    status = bench.status()
    assert status["annotations"] == {"received": 3, "trained": 2, "pending": 0}
    assert status["readiness"]["lint"][0]["code"] == "image-unreadable"
    bench.images.broken = set()
    bench.loop.request_training(1)
    bench.loop.run_round(1)
    assert bench.status()["annotations"] == {"received": 3, "trained": 3, "pending": 0}


def test_an_image_that_breaks_after_it_was_measured_is_named_and_left_out(bench: Bench) -> None:
    bench.submit(1, 2, 3)
    bench.loop.build_truth(1)
    bench.images.broken = {2}
    bench.loop.run_round(1)
    (report,) = bench.loop.rounds(1)
    assert list(report["skipped_images"]) == ["2"]
    assert bench.status()["annotations"] == {"received": 3, "trained": 2, "pending": 0}
    bench.images.broken = set()
    bench.clock.now += 31
    bench.loop.build_truth(1)
    bench.loop.run_round(1)
    assert bench.status()["annotations"] == {"received": 3, "trained": 3, "pending": 0}


def test_an_image_whose_server_is_away_is_tried_again_later(bench: Bench) -> None:
    bench.images.unreachable = {2}
    bench.submit(1, 2)
    bench.loop.run_round(1)
    assert bench.status()["annotations"] == {"received": 2, "trained": 1, "pending": 0}
    assert due(bench) == []
    bench.clock.now += 40
    assert due(bench) == ["build"]
    bench.loop.build_truth(1)
    assert due(bench) == []  # still away: asked again, but later
    bench.images.unreachable = set()
    bench.clock.now += 120
    bench.loop.build_truth(1)
    assert bench.status()["annotations"] == {"received": 2, "trained": 1, "pending": 1}
    bench.clock.now += 3
    assert due(bench) == ["round"]
    bench.loop.run_round(1)
    assert bench.status()["annotations"] == {"received": 2, "trained": 2, "pending": 0}


def test_a_failed_round_says_why_and_is_not_repeated_by_itself(bench: Bench) -> None:
    def fail() -> None:
        raise TrainingError("the loss stopped being a number")

    bench.submit(1)
    bench.trainer.during = fail
    bench.loop.run_round(1)
    bench.clock.now += 60
    status = bench.status()
    assert (status["state"], status["last_error"]) == ("error", "the loss stopped being a number")
    assert due(bench) == []
    bench.trainer.during = lambda: None
    bench.submit(2)
    bench.loop.build_truth(1)
    bench.clock.now += 3
    assert due(bench) == ["round"]
    bench.loop.run_round(1)
    assert bench.status()["last_error"] is None
    assert bench.status()["annotations"]["pending"] == 0


def test_a_failure_that_nobody_thought_of_ends_the_round_too(bench: Bench) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    bench.submit(1)
    bench.trainer.during = fail
    with pytest.raises(ZeroDivisionError):
        bench.loop.run_round(1)
    assert bench.status()["state"] == "queued"
    assert "the worker's log has the cause" in bench.status()["last_error"]


def test_a_round_without_truth_fails_cleanly(bench: Bench) -> None:
    bench.loop.request_training(1)
    assert bench.loop.run_round(1) is None
    assert bench.status()["state"] == "error"
    assert "round" not in due(bench)


def test_a_second_round_does_not_start_while_one_runs(bench: Bench) -> None:
    second: list[Any] = []
    bench.submit(1)
    bench.trainer.during = lambda: second.append(bench.loop.run_round(1))
    assert bench.loop.run_round(1) is not None
    assert second == [None]
    assert [report["round"] for report in bench.loop.rounds(1)] == [1]


def test_a_request_during_a_round_is_one_waiting_round(bench: Bench) -> None:
    def ask_twice() -> None:
        bench.clock.now += 1
        bench.loop.request_training(1)
        bench.loop.request_training(1)

    bench.submit(1)
    bench.trainer.during = ask_twice
    bench.loop.run_round(1)
    bench.trainer.during = lambda: None
    assert due(bench) == ["round"]
    bench.clock.now += 1
    bench.loop.run_round(1)
    assert due(bench) == []


def test_a_cancelled_round_keeps_the_current_model(bench: Bench) -> None:
    bench.submit(1)
    first = bench.loop.run_round(1)

    def cancel_and_wait() -> None:
        bench.loop.cancel(1)
        bench.trainer.wait_for_a_stop()

    bench.submit(2)
    bench.trainer.during = cancel_and_wait
    assert bench.loop.run_round(1) is None
    assert bench.loop.rounds(1)[0]["state"] == "cancelled"
    status = bench.status()
    assert status["model_version"] == first
    assert status["training"] is None
    bench.clock.now += 60
    assert due(bench) == []


def test_a_worker_that_goes_down_leaves_its_round_to_the_next_one(bench: Bench) -> None:
    bench.submit(1)
    bench.loop.build_truth(1)
    assert bench.loop.run_round(1, should_stop=lambda: True) is None
    assert bench.loop.rounds(1)[0]["state"] == "interrupted"
    bench.clock.now += 3
    assert due(bench) == ["round"]
    assert bench.loop.run_round(1) is not None


def test_a_round_that_ends_its_workers_is_repeated_ever_more_slowly(bench: Bench) -> None:
    bench.submit(1)
    bench.loop.reconcile(1)
    bench.loop.build_truth(1)
    bench.clock.now += 3
    pauses = []
    for _ in range(4):
        waited = 0
        while due(bench) != ["round"]:
            bench.clock.now += 1
            waited += 1
        pauses.append(waited)
        bench.loop.run_round(1, should_stop=lambda: True)
    assert pauses[:2] == [0, 0]
    assert 0 < pauses[2] < pauses[3]


def test_a_round_that_was_taken_over_publishes_nothing(bench: Bench) -> None:
    bench.submit(1)

    def lose() -> None:
        with bench.parts.database.write() as connection:
            rounds.begin(connection, 1, "another|1|1|1", 0, bench.clock(), lambda running: True)

    bench.trainer.during = lose
    assert bench.loop.run_round(1) is None
    assert bench.loop.versions(1) == []
    assert bench.status()["annotations"]["pending"] == 1


def test_a_project_that_is_replaced_during_its_round_gets_nothing_of_it(bench: Bench) -> None:
    bench.submit(1)

    def replace_project() -> None:
        with bench.parts.database.write() as connection:
            forget_project(connection, 1)
        bench.loop.connect(1, str(int(CREATED) + 9000), LABEL_CONFIG, "http://ls", None)

    bench.trainer.during = replace_project
    assert bench.loop.run_round(1) is None
    assert bench.loop.versions(1) == []
    assert bench.status()["annotations"]["received"] == 0


def test_a_changed_labeling_setup_rebuilds_the_truth(bench: Bench) -> None:
    bench.submit(1)
    bench.loop.run_round(1)
    bench.server.label_config = LABEL_CONFIG.replace(
        '<Label value="Background"/>', '<Label value="Ring"/><Label value="Background"/>'
    )
    bench.loop.record(bench.event("PROJECT_UPDATED", "project-updated"))
    assert bench.status()["state"] == "waiting"
    bench.loop.build_truth(1)
    truth = truth_of(bench, 1)
    assert set(np.unique(truth)) <= {1, 2, IGNORE_INDEX}
    bench.loop.run_round(1)
    assert bench.trainer.specs[-1].schema.names == ("Ring", "Background", "Nucleus")
    assert bench.status()["annotations"]["pending"] == 0


def test_truth_is_what_people_painted(bench: Bench) -> None:
    mask = np.zeros((SIDE_PX, SIDE_PX), bool)
    mask[10:20, 10:20] = True
    everywhere = np.ones((SIDE_PX, SIDE_PX), bool)
    result = [brush("b", everywhere, "Background"), brush("n", mask, "Nucleus")]
    bench.tell(bench.painted(1, result=result))
    bench.loop.build_truth(1)
    truth = truth_of(bench, 1)
    assert np.array_equal(truth == 1, mask)
    assert np.array_equal(truth == 0, ~mask)


def test_truth_is_kept_apart_from_the_other_projects(bench: Bench) -> None:
    bench.submit(1)
    bench.loop.connect(2, CREATED, LABEL_CONFIG, "http://label-studio", None)
    bench.loop.run_round(1)
    assert bench.loop.status(2)["annotations"]["received"] == 0
    assert bench.loop.versions(2) == []
    with pytest.raises(NotFoundError):
        bench.loop.picture(2, 1, "truth")
    with pytest.raises(NotFoundError):
        bench.loop.rollback(2, bench.loop.versions(1)[0])


def test_rollback_makes_an_earlier_version_current_and_the_next_round_starts_from_it(bench: Bench) -> None:
    bench.submit(1)
    first = bench.loop.run_round(1)
    assert first is not None
    bench.loop.request_training(1)
    with_more = [bench.loop.run_round(1) for _ in range(1)]
    bench.loop.rollback(1, first)
    assert bench.status()["model_version"] == first
    bench.submit(2)
    bench.loop.run_round(1)
    start = bench.trainer.specs[-1].start
    assert start is not None
    assert start.name == first
    for version in [first, *filter(None, with_more)]:
        assert version in bench.loop.versions(1)


def test_a_rollback_during_a_round_is_not_undone_by_it(bench: Bench) -> None:
    bench.submit(1)
    first = bench.loop.run_round(1)
    assert first is not None
    bench.submit(2)
    second = bench.loop.run_round(1) or first
    bench.submit(3)
    bench.trainer.during = lambda: bench.loop.rollback(1, first)
    bench.loop.run_round(1)
    expected = {first} if second != first else {first, bench.status()["model_version"]}
    assert bench.status()["model_version"] in expected


def test_files_that_no_row_names_are_removed_after_a_while(bench: Bench) -> None:
    bench.submit(1)
    bench.loop.run_round(1)
    folder = next((bench.parts.settings.data_dir / "projects").iterdir())
    orphans = [folder / "truth" / "9-9.npy", folder / "models" / "r0001-dead", folder / "scratch" / "half"]
    for orphan in orphans:
        orphan.parent.mkdir(exist_ok=True)
        orphan.write_bytes(b"x")
        os.utime(orphan, (1.0, 1.0))
    kept = sorted((folder / "models").iterdir())[0]
    for path in (folder / "truth").iterdir():
        os.utime(path, (1.0, 1.0))
    bench.submit(1)
    bench.loop.run_round(1)
    assert not any(orphan.exists() for orphan in orphans)
    assert kept.exists()
    assert len(list((folder / "truth").iterdir())) == 1


def test_a_running_round_shows_in_the_status(bench: Bench) -> None:
    seen: list[dict[str, Any]] = []
    bench.submit(1)
    bench.trainer.during = lambda: seen.append(bench.status())
    bench.loop.run_round(1)
    assert seen[0]["state"] == "training"
    assert seen[0]["training"]["round"] == 1
    assert 0 <= seen[0]["training"]["progress"] <= 1
    assert seen[0]["training"]["started_at"].startswith("2033-05-18T")


def test_an_unknown_project_is_not_found(bench: Bench) -> None:
    for ask in (bench.loop.status, bench.loop.rounds, bench.loop.versions, bench.loop.request_training):
        with pytest.raises(NotFoundError, match="project 7"):
            ask(7)


def test_the_picture_of_a_task_is_as_large_as_its_image(bench: Bench) -> None:
    bench.submit(1)
    with pytest.raises(NotFoundError, match="no model"):
        bench.loop.picture(1, 1, "label_map")
    bench.loop.run_round(1)
    for kind in ("probability", "uncertainty", "label_map", "truth"):
        picture = Image.open(io.BytesIO(bench.loop.picture(1, 1, kind)))
        assert picture.size == (SIDE_PX, SIDE_PX)
    assert make_picture(1)[0].shape[:2] == (SIDE_PX, SIDE_PX)


def test_a_killed_write_leaves_no_half_of_an_event(bench: Bench) -> None:
    bench.submit(1)
    with sqlite3.connect(bench.parts.settings.data_dir / "brushloop.sqlite3") as connection:
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    connection.close()
    assert mode == "wal"
    with bench.parts.database.read() as connection:
        assert [task.task_id for task in tasks.list_truth(connection, 1)] == [1]
