"""The machine interrupts a round, which is repeated by itself; only truth and setup make it fail."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from loop_fakes import Bench, make_bench
from sqlalchemy.exc import OperationalError

from core.errors import (
    CheckpointError,
    ImageUnavailableError,
    MachineError,
    NonFiniteLossError,
    OutOfMemoryError,
)
from ml_backend.due import JobKind, find_due
from ml_backend.rounds import publishing, troubles
from ml_backend.storage.projects import get_project

LOCKED = OperationalError("UPDATE", {}, Exception("database is locked"))
FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    torch.set_num_threads(1)
    bench = make_bench(tmp_path)
    yield bench
    bench.close()


def raising(error: BaseException) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


def list_due(bench: Bench) -> list[JobKind]:
    with bench.parts.database.read() as connection:
        return find_due(connection, get_project(connection, 1), bench.parts.settings, bench.clock())


def is_round_due(bench: Bench) -> bool:
    return "round" in list_due(bench)


@pytest.mark.parametrize(
    "trouble",
    [
        FULL,
        PermissionError(errno.EACCES, "Permission denied"),
        MemoryError(),
        LOCKED,
        OutOfMemoryError("the training process was ended by SIGKILL"),
        MachineError("the training process ended with code 1"),
        ImageUnavailableError("no annotated image can be had now"),
        CheckpointError("the base weights are damaged"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_trouble_of_the_machine_is_said_while_it_lasts_and_gone_with_its_cause(
    bench: Bench, trouble: Exception
) -> None:
    bench.submit(1)
    bench.trainer.during = raising(trouble)
    assert bench.loop.run_round(1) is None
    status = bench.status()
    assert (bench.loop.rounds(1)[0]["state"], status["state"]) == ("interrupted", "queued")
    assert "interrupted once and is tried again" in status["last_error"]
    assert "repeated by itself" in status["advice"]
    bench.trainer.during = lambda: None
    bench.clock.now += 3
    assert is_round_due(bench)
    assert bench.loop.run_round(1) is not None
    status = bench.status()
    assert (status["state"], status["last_error"], status["annotations"]["pending"]) == ("idle", None, 0)


def test_what_truth_causes_still_waits_for_people(bench: Bench) -> None:
    bench.submit(1)
    bench.trainer.during = raising(NonFiniteLossError("the loss stopped being a number"))
    bench.loop.run_round(1)
    bench.clock.now += 1000
    assert bench.status()["state"] == "error"
    assert not is_round_due(bench)


def test_a_requested_round_that_is_interrupted_waits_as_well_until_somebody_asks_again(bench: Bench) -> None:
    bench.submit(1)
    bench.loop.request_training(1)
    bench.trainer.during = raising(FULL)
    for _ in range(4):
        bench.loop.run_round(1)
    assert not is_round_due(bench)
    assert "interrupted 4 times" in bench.status()["last_error"]
    bench.loop.request_training(1)
    assert is_round_due(bench)


def test_pauses_grow_to_a_minute_and_differ_between_projects(bench: Bench) -> None:
    bench.submit(1)
    bench.loop.reconcile(1)
    bench.trainer.during = raising(FULL)
    waits = []
    for _ in range(9):
        bench.loop.run_round(1)
        began = bench.clock.now
        while not is_round_due(bench):
            bench.clock.now += 1
        waits.append(bench.clock.now - began)
    assert waits[0] <= 3 <= waits[2] < waits[4]
    assert 45 <= max(waits) <= 75
    assert len(set(waits[-4:])) > 1


def list_tries(bench: Bench, seconds: int, look_s: int = 10) -> list[tuple[float, str]]:
    """When drafts and rounds were due and run, by a worker that looks so often."""
    run = {
        "draft": bench.loop.run_draft, "round": bench.loop.run_round, "build": bench.loop.build_truth,
        "reconcile": bench.loop.reconcile,
    }  # fmt: skip
    began, tried = bench.clock.now, []
    while bench.clock.now < began + seconds:
        for kind in list_due(bench):
            if kind in run:
                run[kind](1)
                tried.append((bench.clock.now - began, kind))
        bench.clock.now += look_s
    return [(at, kind) for at, kind in tried if kind in ("draft", "round")]


def test_before_the_first_model_no_drafts_come_with_each_repetition(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, draft_s=3.0)
    bench.submit(1)
    bench.trainer.during = raising(FULL)
    tried = list_tries(bench, 300, look_s=4)
    assert [kind for _, kind in tried[:3]] == ["draft", "draft", "round"]
    assert {kind for _, kind in tried[3:]} == {"round"}
    assert len(tried) <= 15
    assert f"interrupted {len(tried) - 2} times" in bench.status()["last_error"]
    bench.close()


def test_while_label_studio_and_images_are_away_pauses_grow_to_minutes_and_end_when_it_answers(
    bench: Bench,
) -> None:
    bench.submit(1)
    bench.loop.build_truth(1)
    bench.server.is_down = True
    bench.images.away = {1}
    tried = [at for at, _ in list_tries(bench, 3600)]
    pauses = [later - at for at, later in pairwise(tried)]
    assert max(pauses[:4]) < 60
    assert 240 <= min(pauses[9:]) <= max(pauses) <= 370
    assert f"interrupted {len(tried)} times" in bench.status()["last_error"]
    assert "is tried again in about" in bench.status()["last_error"]
    bench.clock.now += 61
    assert not is_round_due(bench)
    bench.server.is_down = False
    bench.images.away = set()
    assert list_tries(bench, 35)
    assert bench.status()["annotations"] == {"received": 1, "trained": 1, "pending": 0}


@pytest.mark.parametrize(
    "error",
    [
        FULL,
        OutOfMemoryError("memory ran out"),
        ImageUnavailableError("away"),
        NonFiniteLossError("no number"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_ended_a_training_process_is_judged_alike_by_its_worker(error: Exception) -> None:
    ending = troubles.judge(error)
    assert troubles.judge(troubles.to_error(ending)) == ending


def test_all_interruptions_are_counted_however_many_they_are(bench: Bench) -> None:
    bench.submit(1)
    bench.trainer.during = raising(FULL)
    tried = list_tries(bench, 1800)
    assert len(tried) > 25
    assert f"interrupted {len(tried)} times" in bench.status()["last_error"]


@pytest.mark.parametrize("trouble", [LOCKED, FULL], ids=["locked", "full"])
def test_a_trained_model_is_published_once_the_machine_allows_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, trouble: Exception
) -> None:
    real, refusals = publishing.publish, [trouble, trouble]

    def refuse_twice(*arguments: Any) -> str | None:
        if refusals:
            raise refusals.pop()
        return real(*arguments)

    monkeypatch.setattr(publishing, "publish", refuse_twice)
    monkeypatch.setattr(publishing, "FIRST_PAUSE_S", 0.01)
    bench.submit(1)
    assert bench.loop.run_round(1) is not None
    assert len(bench.trainer.specs) == 1
    assert bench.status()["annotations"] == {"received": 1, "trained": 1, "pending": 0}


def test_a_publication_whose_answer_was_lost_is_not_made_twice(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, answers = publishing.publish, [True]

    def lose_the_first_answer(*arguments: Any) -> str | None:
        version = real(*arguments)
        if answers:
            answers.pop()
            raise LOCKED
        return version

    monkeypatch.setattr(publishing, "publish", lose_the_first_answer)
    monkeypatch.setattr(publishing, "FIRST_PAUSE_S", 0.01)
    bench.submit(1)
    version = bench.loop.run_round(1)
    assert version == bench.status()["model_version"]
    assert bench.loop.versions(1) == [version]


def test_a_folder_of_the_same_name_that_no_row_names_gives_way(bench: Bench) -> None:
    artifacts = bench.parts.artifacts(bench.loop._get(1))
    for content in (b"of a round that the database forgot", b"new"):
        scratch = artifacts.new_scratch()
        scratch.mkdir()
        (scratch / "weights.safetensors").write_bytes(content)
        artifacts.publish(scratch, "r0001-00000000")
    assert (artifacts.models / "r0001-00000000" / "weights.safetensors").read_bytes() == b"new"


def test_after_memory_ran_out_the_next_round_takes_less_and_says_so(bench: Bench) -> None:
    bench.submit(1)
    bench.trainer.during = raising(OutOfMemoryError("the training process ran out of memory"))
    bench.loop.run_round(1)
    bench.loop.run_round(1)
    bench.trainer.during = lambda: None
    bench.loop.run_round(1)
    assert [spec.halvings for spec in bench.trainer.specs] == [0, 1, 2]
    assert "memory ran out 2 times" in bench.loop.rounds(1)[0]["note"]
    bench.submit(2)
    bench.loop.run_round(1)
    assert bench.trainer.specs[-1].halvings == 0


def test_a_round_whose_images_cannot_be_had_now_is_not_the_fault_of_the_truth(bench: Bench) -> None:
    bench.submit(1)
    bench.loop.build_truth(1)
    bench.images.away = {1}
    bench.loop.run_round(1)
    assert bench.loop.rounds(1)[0]["state"] == "interrupted"
    bench.images.away = set()
    assert bench.loop.run_round(1) is not None


def test_a_cancel_counts_for_the_running_round_alone_whatever_the_clocks_say(bench: Bench) -> None:
    bench.clock.now += 365 * 24 * 3600
    bench.loop.cancel(1)
    bench.loop.request_training(1)
    bench.clock.now -= 365 * 24 * 3600
    bench.submit(1)
    assert bench.loop.run_round(1) is not None
    assert not is_round_due(bench)
