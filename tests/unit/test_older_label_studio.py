"""Label Studio brought back from an older backup: contents and numbers go back, and are given again."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
import torch
from loop_fakes import Bench, make_bench

from ml_backend.due import find_due
from ml_backend.storage import annotations, tables, tasks
from ml_backend.storage.projects import get_project


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    torch.set_num_threads(1)
    bench = make_bench(tmp_path)
    yield bench
    bench.close()


def ask(bench: Bench) -> None:
    """A reconciliation some time later, and the label maps that it makes due."""
    bench.clock.now += 10
    bench.loop.reconcile(1)
    bench.loop.build_truth(1)


def used(bench: Bench, task_id: int) -> list[int]:
    """The annotations in the label map of a task."""
    with bench.parts.database.read() as connection:
        task = tasks.find_task(connection, 1, task_id)
    return task.truth["annotation_ids"] if task and task.truth else []


def test_the_older_content_of_an_annotation_is_the_one_that_counts(bench: Bench) -> None:
    bench.submit(1)
    older = bench.server.annotations[100]
    bench.tell(bench.painted(1, result=older.result[:1]))
    ask(bench)
    bench.server.keep(older)
    ask(bench)
    with bench.parts.database.read() as connection:
        (living,) = annotations.list_living(connection, 1, 1)
    assert (living.updated_at, len(living.result)) == (older.updated_at, len(older.result))
    assert bench.status()["annotations"]["pending"] == 1


@pytest.mark.parametrize("is_told", [True, False], ids=["by a webhook", "by a listing"])
@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_a_number_of_an_annotation_that_is_given_again_leaves_the_task_that_had_it(
    bench: Bench, is_told: bool, before: int, after: int
) -> None:
    bench.submit(1, 2)
    bench.tell(bench.painted(before, number=7))
    ask(bench)
    assert used(bench, before) == [100 * before, 7]
    moved = replace(bench.server.annotations[7], task_id=after, updated_at="900000")
    bench.server.keep(moved)
    if is_told:
        bench.tell(moved)
        bench.loop.build_truth(1)
    else:
        ask(bench)
    assert sorted(used(bench, before)) == [100 * before]
    assert sorted(used(bench, after)) == [7, 100 * after]


def fingerprints(bench: Bench, task_id: int) -> list[str]:
    """What the stored answers for a task depend on, its image among it."""
    with bench.parts.database.read() as connection:
        p = tables.predictions.c
        return list(connection.execute(sa.select(p.fingerprint).where(p.task_id == task_id)).scalars())


@pytest.mark.parametrize("is_opened", [True, False], ids=["somebody opens it first", "it is listed"])
def test_a_number_of_a_task_that_is_given_again_has_another_image(bench: Bench, is_opened: bool) -> None:
    bench.submit(1, 2)
    bench.server.add_task(3)
    bench.loop.reconcile(1)
    bench.loop.run_round(1)
    for task_id in (1, 3):
        assert bench.loop.suggest(1, [bench.task(task_id)], None, math.inf) != [None]
    bench.loop.push(1)
    assert bench.status()["annotations"]["pending"] == 0
    others = {task_id: {"image": f"/data/upload/1/{task_id + 40}.png"} for task_id in (1, 3)}
    bench.server.tasks.update(others)
    if is_opened:
        opened = [replace(bench.task(task_id), data=data) for task_id, data in others.items()]
        bench.loop.suggest(1, opened, None, math.inf)
    else:
        ask(bench)
    with bench.parts.database.read() as connection:
        stored = {task_id: tasks.find_task(connection, 1, task_id) for task_id in others}
    assert {task_id: task.data for task_id, task in stored.items() if task} == others
    assert bench.status()["annotations"]["pending"] == 1  # what was painted is of another image now
    bench.clock.now += 10
    bench.loop.run_round(1)
    assert bench.status()["annotations"] == {"received": 2, "trained": 2, "pending": 0}


def test_what_was_answered_for_the_image_before_is_replaced_in_label_studio(bench: Bench) -> None:
    bench.submit(1)
    bench.server.add_task(3)
    bench.loop.reconcile(1)
    bench.loop.run_round(1)
    (answer,) = bench.loop.suggest(1, [bench.task(3)], None, math.inf)
    assert answer is not None
    bench.server.place(3, answer)
    before = fingerprints(bench, 3)
    bench.server.tasks[3] = {"image": "/data/upload/1/43.png"}
    ask(bench)
    bench.loop.push(1)
    ((task_id, held),) = bench.server.predictions.values()
    assert (task_id, held["model_version"]) == (3, answer["model_version"])
    assert fingerprints(bench, 3) != before


def test_the_version_and_predictions_that_label_studio_lost_are_told_again(bench: Bench) -> None:
    bench.submit(1)
    bench.server.add_task(3)
    bench.server.stamps |= {1: "2026-11-28T02:00:00Z", 3: "2026-11-28T01:00:00Z"}  # type: ignore[dict-item]
    bench.loop.reconcile(1)
    bench.loop.run_round(1)
    (answer,) = bench.loop.suggest(1, [bench.task(3)], None, math.inf)
    assert answer is not None
    version = bench.status()["model_version"]
    bench.loop.push(1)
    assert bench.loop.sync_project_order(1)
    bench.clock.now += 600
    bench.loop.push(1)
    assert [p["model_version"] for _, p in bench.server.predictions.values()] == [version]

    bench.server.predictions.clear()
    bench.server.model_version = "an older one"
    bench.server.stamps[1] = "2026-11-28T01:59:59.5Z"  # type: ignore[assignment]
    ask(bench)
    with bench.parts.database.read() as connection:
        due = find_due(connection, get_project(connection, 1), bench.parts.settings, bench.clock())
    assert "sync" in due
    assert "push" in due
    bench.loop.push(1)
    assert bench.loop.sync_project_order(1)
    assert bench.server.model_version == version
    assert (3, version) in [(task_id, p["model_version"]) for task_id, p in bench.server.predictions.values()]
    ask(bench)  # the stamp that went back is known now
    with bench.parts.database.read() as connection:
        due = find_due(connection, get_project(connection, 1), bench.parts.settings, bench.clock())
    assert "push" not in due
