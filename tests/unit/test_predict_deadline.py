"""A call to `/predict` that comes when the house is full: what is stored is answered, the rest is owed."""

from __future__ import annotations

import time

import pytest
from loop_fakes import make_bench


@pytest.fixture
def bench(tmp_path):
    bench = make_bench(tmp_path)
    bench.submit(1, 2, 3)
    bench.loop.run_round(1)
    assert bench.status()["model_version"]
    yield bench
    bench.close()


def test_after_the_deadline_no_image_is_fetched_and_the_tasks_are_pushed_later(bench):
    tasks = [bench.task(task_id) for task_id in range(10, 60)]
    for task in tasks:
        bench.server.add_task(task.task_id)
    bench.images.opened.clear()
    assert bench.loop.suggest(1, tasks, None, time.monotonic()) == [None] * 50
    assert not bench.images.opened
    bench.clock.now += 1
    assert bench.loop.push(1) == 50
    assert sorted(task_id for task_id, _ in bench.server.pushed) == list(range(10, 60))


def test_after_the_deadline_a_stored_answer_is_still_given(bench):
    task = bench.task(10)
    answer = bench.loop.suggest(1, [task], None, time.monotonic() + 60)
    assert answer[0]
    assert bench.loop.suggest(1, [task, bench.task(11)], None, time.monotonic()) == [answer[0], None]
