"""Trainings that nobody asks for: drafts before rounds, and continuations after them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from loop_fakes import Bench, make_bench

from core.errors import TrainingError
from ml_backend.due import find_due
from ml_backend.rounds import continuing
from ml_backend.rounds.lease import name_owner
from ml_backend.storage import projects, reviews, rounds
from ml_backend.training import TrainedRound, TrainingSpec


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = make_bench(tmp_path, draft_s=3.0, learners="all", consolidate_s=300.0, score_tasks_per_round=0)
    yield bench
    bench.close()


def due(bench: Bench) -> list[str]:
    with bench.parts.database.read() as connection:
        project = projects.get_project(connection, 1)
        found = find_due(connection, project, bench.parts.settings, bench.clock())
    return [job for job in found if job not in ("score", "rank", "sync", "push")]


def settle(bench: Bench) -> None:
    """The review of the current version is over, and people pause."""
    with bench.parts.database.write() as connection:
        version = projects.get_project(connection, 1).current_version
        done = ("planned_version", "kept_version", "settled_version", "ranked_version")
        reviews.update_review(connection, 1, **dict.fromkeys(done, version))
    bench.clock.now += 60


def paint_and_build(bench: Bench, *task_ids: int) -> None:
    bench.submit(*task_ids)
    bench.loop.reconcile(1)
    bench.loop.build_truth(1)


def outcome(
    bench: Bench, *, promoted: bool = True, gain: float = 0.1, held_out: Any = None, **changed: Any
) -> None:
    """Have the trainer say this of what it trains from now on, whatever it was."""

    def edit(spec: TrainingSpec, trained: TrainedRound) -> TrainedRound:
        report = {**trained.report, "promoted": promoted, "seconds": spec.settings.budget_s, "draft": False}
        report["changed"] = {**report["changed"], "mean_dice": gain, **changed}
        report["held_out"] = held_out or report["held_out"]
        return replace(trained, promoted=trained.promoted and promoted, report=report)

    bench.trainer.edit = edit


# Drafts


def test_the_first_usable_truth_gives_a_draft_at_once_and_then_the_round(bench: Bench) -> None:
    paint_and_build(bench, 1)
    assert due(bench) == ["draft"]  # although people do not pause yet
    draft = bench.loop.run_draft(1)
    assert draft is not None
    assert bench.trainer.specs[-1].settings.budget_s == 3.0
    assert not bench.trainer.specs[-1].holds_out
    status = bench.status()
    assert status["model_version"] == draft
    assert status["annotations"] == {"received": 1, "trained": 0, "pending": 1}
    assert due(bench) == []
    bench.clock.now += 3
    assert due(bench) == ["round"]
    bench.loop.run_round(1)
    assert bench.status()["annotations"] == {"received": 1, "trained": 1, "pending": 0}
    assert [report["kind"] for report in bench.loop.rounds(1)] == ["round", "draft"]


def test_a_round_after_a_draft_starts_from_what_was_there_before(bench: Bench) -> None:
    paint_and_build(bench, 1)
    bench.loop.run_draft(1)
    version = bench.loop.run_round(1)
    assert bench.trainer.specs[-1].start is None
    assert bench.trainer.specs[-1].holds_out
    assert bench.status()["model_version"] == version


def test_a_draft_leaves_the_effort_to_the_round_after_it(bench: Bench) -> None:
    bench.submit(1)
    bench.tell(bench.painted(1, user_id=2, number=555))
    bench.loop.build_truth(1)
    bench.loop.run_draft(1)
    bench.loop.run_round(1)
    one_round, draft = bench.loop.rounds(1)
    assert draft["effort"]["annotations"] > 0
    assert one_round["effort"] == draft["effort"]


def test_a_class_that_the_model_does_not_know_gives_a_draft_too(bench: Bench) -> None:
    outcome(bench)
    paint_and_build(bench, 1)
    bench.loop.run_round(1)
    paint_and_build(bench, 2)
    assert due(bench) == []
    with bench.parts.database.write() as connection:
        model = bench.status()["model_version"]
        connection.exec_driver_sql(
            "UPDATE rounds SET report = replace(report, '\"Nucleus\":', '\"Other\":') WHERE model_version=?",
            (model,),
        )
    assert due(bench) == ["draft"]
    bench.loop.run_draft(1)
    assert bench.trainer.specs[-1].holds_out  # or nobody could compare it with the model in use


def test_a_draft_is_tried_once_before_each_round(bench: Bench) -> None:
    def fail() -> None:
        raise TrainingError("no")

    paint_and_build(bench, 1)
    bench.trainer.during = fail
    assert bench.loop.run_draft(1) is None
    assert due(bench) == []
    assert bench.status()["state"] == "queued"


def test_a_draft_leaves_a_request_for_a_round_alone(bench: Bench) -> None:
    paint_and_build(bench, 1)
    bench.loop.request_training(1)
    assert due(bench) == ["draft"]
    bench.loop.run_draft(1)
    assert due(bench) == ["round"]


def test_without_seconds_for_it_there_is_no_draft(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, draft_s=0.0, learners="all")
    paint_and_build(bench, 1)
    assert due(bench) == []
    bench.close()


# Continuations


def learn(bench: Bench, *task_ids: int) -> str | None:
    paint_and_build(bench, *task_ids)
    version = bench.loop.run_round(1)
    settle(bench)
    return version


def test_training_goes_on_with_growing_budgets_up_to_the_limit(bench: Bench) -> None:
    outcome(bench)
    learn(bench, 1)
    budgets = []
    while due(bench) == ["consolidate"]:
        assert bench.loop.consolidate(1) is not None
        spec = bench.trainer.specs[-1]
        budgets.append(spec.settings.warm_budget_s)
        assert spec.is_patient
        settle(bench)
    assert budgets == [40.0, 80.0, 160.0]  # the 20 s that are left would be worth less than the last one
    assert bench.status()["state"] == "idle"
    assert bench.status()["annotations"] == {"received": 1, "trained": 1, "pending": 0}
    assert len({spec.settings.seed for spec in bench.trainer.specs}) == 4


def test_the_encoder_learns_in_continuations_alone_and_not_where_memory_ran_out(bench: Bench) -> None:
    outcome(bench)
    learn(bench, 1)
    bench.loop.consolidate(1)
    one_round, continuation = (spec.settings.learners for spec in bench.trainer.specs)
    assert continuation == (*one_round, "tuned")
    spec = replace(bench.trainer.specs[0], halvings=1)
    assert continuing.to_continuation(spec, 40.0, 2).settings.learners == one_round


def test_a_plateau_ends_it(bench: Bench) -> None:
    outcome(bench, gain=0.0)
    learn(bench, 1)
    for _ in range(2):
        bench.loop.consolidate(1)
        settle(bench)
    assert due(bench) == []


def test_new_truth_begins_anew(bench: Bench) -> None:
    outcome(bench, gain=0.0)
    learn(bench, 1)
    for _ in range(2):
        bench.loop.consolidate(1)
        settle(bench)
    learn(bench, 2)
    assert due(bench) == ["consolidate"]


@pytest.mark.parametrize("what", ["truth", "question", "request", "review"])
def test_everything_else_comes_first(bench: Bench, what: str) -> None:
    outcome(bench)
    learn(bench, 1)
    if what == "truth":
        bench.submit(2)
    elif what == "request":
        bench.loop.request_training(1)
    elif what == "question":
        with bench.parts.database.write() as connection:
            reviews.note_asked(connection, 1, bench.clock())
    else:
        with bench.parts.database.write() as connection:
            reviews.update_review(connection, 1, kept_version="another")
    assert "consolidate" not in due(bench)


def run_until_wanted(bench: Bench, want: Any) -> str | None:
    """Continue, have something come first while it trains, and wait until the lease has noticed."""
    waited = threading.Event()

    def during() -> None:
        bench.clock.now += 1
        want()
        waited.wait(1.2)  # the lease looks twice a second

    bench.trainer.during = during
    version = bench.loop.consolidate(1)
    bench.trainer.during = lambda: None
    return version


def test_one_that_gives_way_early_leaves_no_trace(bench: Bench) -> None:
    outcome(bench)
    first = learn(bench, 1)
    assert run_until_wanted(bench, lambda: bench.submit(2)) is None
    assert [report["state"] for report in bench.loop.rounds(1)] == ["done"]
    status = bench.status()
    assert (status["model_version"], status["state"]) == (first, "queued")
    assert status["annotations"] == {"received": 2, "trained": 1, "pending": 1}


def test_one_that_gives_way_later_publishes_what_it_gained(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(continuing, "WORTH_S", 0.0)
    outcome(bench)
    first = learn(bench, 1)
    version = run_until_wanted(bench, lambda: bench.submit(2))
    assert version not in (None, first)
    assert bench.loop.rounds(1)[0]["changed"]["steps"] == 1  # where it stood when it was asked to finish
    assert bench.status()["annotations"] == {"received": 2, "trained": 1, "pending": 1}
    bench.loop.run_round(1)
    assert bench.status()["annotations"] == {"received": 2, "trained": 2, "pending": 0}


def test_a_request_that_interrupts_is_still_answered_by_a_round(bench: Bench) -> None:
    outcome(bench)
    learn(bench, 1)
    run_until_wanted(bench, lambda: bench.loop.request_training(1))
    assert due(bench) == ["round"]


def test_a_cancelled_continuation_is_the_last_over_this_truth(bench: Bench) -> None:
    outcome(bench)
    learn(bench, 1)
    assert run_until_wanted(bench, lambda: bench.loop.cancel(1)) is None
    assert bench.loop.rounds(1)[0]["state"] == "cancelled"
    settle(bench)
    assert due(bench) == []


def test_after_a_rollback_nothing_goes_on(bench: Bench) -> None:
    outcome(bench)
    first = learn(bench, 1)
    learn(bench, 2)
    bench.loop.rollback(1, str(first))
    settle(bench)
    assert due(bench) == []
    assert bench.status()["annotations"] == {"received": 2, "trained": 1, "pending": 0}


def test_a_continuation_whose_worker_was_killed_is_repeated_but_not_for_ever(bench: Bench) -> None:
    outcome(bench)
    learn(bench, 1)
    for left in (["consolidate"], []):
        with bench.parts.database.write() as connection:
            number = rounds.begin(
                connection, 1, "gone", 1, bench.clock(), lambda running: True, kind="continuation"
            )
            assert number is not None
            rounds.finish(connection, 1, number, "gone", "interrupted", bench.clock())
        assert due(bench) == left


@pytest.mark.parametrize("kind", ["draft", "continuation"])
def test_one_that_was_killed_is_repeated_although_its_row_says_running(bench: Bench, kind: Any) -> None:
    outcome(bench)
    paint_and_build(bench, 1)
    if kind == "continuation":
        learn(bench, 1)
    machine, pid, _, name = name_owner().split("|")
    with bench.parts.database.write() as connection:
        killed = f"{machine}|{pid}|0.00|{name}"  # the number of its process was given to another one
        assert rounds.begin(connection, 1, killed, 1, bench.clock(), lambda running: True, kind=kind)
    assert due(bench) == ["draft" if kind == "draft" else "consolidate"]


def test_it_shows_in_the_status_while_it_runs(bench: Bench) -> None:
    seen: list[Any] = []
    outcome(bench)
    learn(bench, 1)
    bench.trainer.during = lambda: seen.append(bench.status())
    bench.loop.consolidate(1)
    assert seen[0]["state"] == "refining"
    assert seen[0]["training"]["kind"] == "continuation"


# Refused rounds and classes that are not learnt


def test_a_refused_round_is_not_learnt_and_is_trained_on_before_paint_is_asked_for(bench: Bench) -> None:
    outcome(bench)
    learn(bench, 1)
    outcome(bench, promoted=False, gain=-0.1)
    assert learn(bench, 2) is None
    status = bench.status()
    assert status["annotations"] == {"received": 2, "trained": 1, "pending": 0}
    assert "1 annotations are not in the model in use" in status["advice"]
    assert "goes on" in status["advice"]
    assert due(bench) == ["consolidate"]
    outcome(bench)
    assert bench.loop.consolidate(1) is not None
    assert bench.trainer.specs[-1].settings.warm_budget_s == 40.0
    assert {e.summary.key for e in bench.trainer.specs[-1].examples if e.summary.is_new} == {"2"}
    assert bench.status()["annotations"] == {"received": 2, "trained": 2, "pending": 0}


def test_a_class_that_is_not_found_is_named_with_the_steps_and_what_to_do(bench: Bench) -> None:
    held_out = {"Nucleus": {"dice": 0.0, "iou": 0.0, "interval": [0.0, 0.0]}}
    outcome(bench, steps=13, held_out=held_out)
    learn(bench, 1)
    status = bench.status()
    assert status["weak_classes"] == [{"name": "Nucleus", "dice": 0.0, "steps": 13}]
    assert "Nucleus" in status["advice"]
    assert "13 steps" in status["advice"]
    assert "13 of at least 50" in status["advice"]
    report = bench.loop.rounds(1)[0]
    assert report["weak_classes"] == status["weak_classes"]
    assert "13 of at least 50" in report["note"]
