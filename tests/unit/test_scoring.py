"""After a promotion the new model looks at some tasks: on a budget, shared, behind people and trainings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from review_fakes import ReviewBench, score_of

from ml_backend.due import find_due
from ml_backend.review import scoring
from ml_backend.storage import reviews, rounds, scorings
from ml_backend.storage.projects import get_project


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Any]:
    made: list[ReviewBench] = []

    def make(n_tasks: int, **settings: Any) -> ReviewBench:
        made.append(ReviewBench(tmp_path / str(len(made)), n_tasks, **settings))
        return made[-1]

    yield make
    for bench in made:
        bench.close()


def due(bench: ReviewBench) -> set[str]:
    with bench.parts.database.read() as connection:
        project = get_project(connection, 1)
        return set(find_due(connection, project, bench.parts.settings, bench.clock())) - {"reconcile"}


def test_nothing_is_scored_before_there_is_a_model(make: Any) -> None:
    bench = make(5)
    assert "score" not in due(bench)
    assert bench.score() == 0


def test_a_promoted_model_scores_as_many_tasks_as_the_budget_has(make: Any) -> None:
    bench = make(30, score_tasks_per_round=8)
    bench.promote()
    assert "score" in due(bench)
    assert bench.score() == 8
    assert "score" not in due(bench)
    assert bench.bench.status()["pool"] == {"tasks": 30, "scored": 8, "stale": 0}
    bench.promote()
    assert bench.bench.status()["pool"] == {"tasks": 30, "scored": 0, "stale": 8}
    assert bench.score() == 8
    pool = bench.bench.status()["pool"]
    assert pool["scored"] == 8
    assert pool["stale"] > 0


def test_the_least_sure_tasks_come_first(make: Any) -> None:
    bench = make(12)
    version = bench.promote()
    bench.score()
    assert bench.ranked() == sorted(range(1, 13), key=lambda i: score_of(i, version))


@pytest.mark.parametrize("n_broken", [0, 10])
def test_over_some_rounds_every_task_gets_a_score(make: Any, n_broken: int) -> None:
    """Also when more tasks cannot be read than one round looks at."""
    bench = make(100, score_tasks_per_round=8)
    bench.suggester.broken = set(range(1, n_broken + 1))
    for _ in range(40):
        bench.promote()
        bench.score()
        if len(set(bench.suggester.looked)) == 100 - n_broken:
            return
    raise AssertionError(f"only {len(set(bench.suggester.looked))} of {100 - n_broken} tasks were scored")


def test_a_score_that_got_old_is_made_anew_again_and_again(make: Any) -> None:
    bench = make(30, score_tasks_per_round=10)
    for _ in range(10):
        bench.promote()
        bench.score()
    last = {task_id: n for n, task_id in enumerate(bench.suggester.looked)}
    assert set(last) == set(range(1, 31))
    assert min(last.values()) >= 20, "each was scored in the last eight rounds"


def test_a_round_costs_as_many_queries_with_many_tasks_as_with_few(make: Any) -> None:
    import sqlalchemy as sa

    counts = []
    for n_tasks in (60, 600):
        bench = make(n_tasks, score_tasks_per_round=5)
        bench.promote()
        statements: list[str] = []
        sa.event.listen(
            bench.parts.database.engine, "before_cursor_execute", lambda *a, s=statements: s.append(a[2])
        )
        bench.score()
        counts.append(len(statements))
    assert counts[0] == counts[1]


def test_a_budget_of_seconds_ends_it_too(make: Any) -> None:
    bench = make(20, score_budget_s=1e-9)
    bench.promote()
    assert bench.score() == 1
    assert "score" not in due(bench)


def test_without_tasks_per_round_nothing_is_scored(make: Any) -> None:
    bench = make(20, score_tasks_per_round=0)
    bench.promote()
    assert "score" not in due(bench)


def test_a_newer_model_ends_the_work_for_the_older_one(make: Any) -> None:
    bench = make(20)
    bench.promote()

    def promote_once(task_id: int) -> None:
        if bench.n_rounds == 1 and len(bench.suggester.looked) == 3:
            bench.promote()

    bench.suggester.during = promote_once
    bench.score()
    assert len(bench.suggester.looked) == 3 + 20
    assert bench.bench.status()["pool"] == {"tasks": 20, "scored": 20, "stale": 0}
    with bench.parts.database.read() as connection:
        assert not scorings.has_any(connection, 1)


def test_a_worker_that_dies_leaves_its_task_to_another(make: Any) -> None:
    class Killed(BaseException):
        pass

    def die(task_id: int) -> None:
        raise Killed

    bench = make(4)
    bench.promote()
    bench.suggester.during = die
    with pytest.raises(Killed):
        bench.score()
    bench.suggester.during = lambda task_id: None
    assert bench.score() == 3, "nobody knows yet that the other one is gone"
    bench.clock.now += scoring.LEASE_S + 1
    assert "score" in due(bench)
    assert bench.score() == 1
    assert sorted(bench.suggester.looked) == [1, 2, 3, 4]


def test_no_task_is_scored_twice_at_a_time(make: Any) -> None:
    bench = make(9)
    bench.promote()
    inner: list[int] = []

    def another_worker(task_id: int) -> None:
        if not inner:
            inner.append(task_id)
            bench.score()

    bench.suggester.during = another_worker
    bench.score()
    assert sorted(bench.suggester.looked) == list(range(1, 10))


def test_a_training_goes_first(make: Any) -> None:
    bench = make(9)
    bench.promote()

    def start_round(task_id: int) -> None:
        if len(bench.suggester.looked) == 2:
            with bench.parts.database.write() as connection:
                rounds.begin(connection, 1, "elsewhere|1|1|x", 1, bench.clock(), lambda running: False)

    bench.suggester.during = start_round
    assert bench.score() == 3
    assert "score" not in due(bench)
    with bench.parts.database.write() as connection:
        rounds.finish(connection, 1, 1, "elsewhere|1|1|x", "done", bench.clock())
    assert "score" in due(bench)
    assert bench.score() == 6


def test_people_go_first(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = make(3)
    bench.promote()
    pauses: list[float] = []

    def pass_time(seconds: float) -> None:
        pauses.append(seconds)
        bench.clock.now += seconds

    monkeypatch.setattr(scoring.time, "sleep", pass_time)
    with bench.parts.database.write() as connection:
        reviews.note_asked(connection, 1, bench.clock())
    assert bench.score() == 3
    assert sum(pauses) >= scoring.QUIET_S


def test_images_that_cannot_be_had_now_are_tried_later(make: Any) -> None:
    bench = make(3)
    bench.promote()
    bench.suggester.is_server_down = True
    assert bench.score() == 0
    assert "score" not in due(bench)
    bench.suggester.is_server_down = False
    bench.clock.now += scoring.RETRY_S + 1
    assert "score" in due(bench)
    assert bench.score() == 3


def test_an_image_that_is_broken_is_left_out(make: Any) -> None:
    bench = make(3)
    bench.suggester.broken = {2}
    bench.promote()
    assert bench.score() == 2
    assert "score" not in due(bench)
    assert bench.bench.status()["pool"] == {"tasks": 3, "scored": 2, "stale": 0}
