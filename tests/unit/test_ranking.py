"""Once a version has scored its tasks, Label Studio is told scores in which the order is diverse."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from loop_fakes import Killed
from painted import LABEL_CONFIG
from review_fakes import ReviewBench

from core.asking.diversity import HELD_BACK
from ml_backend.storage import predictions, reviews, tables, task_data, tasks
from ml_backend.storage.projects import get_project, set_label_config
from ml_backend.suggestions import push

SAME, OTHER, THIRD = (np.eye(3, dtype=np.float16)[i] for i in range(3))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[ReviewBench]:
    """Tasks 1 to 3 show the same and are unsure, 4 and 5 show something else and are surer."""
    bench = ReviewBench(tmp_path, 5)
    bench.suggester.scores = {1: 0.25, 2: 0.3, 3: 0.35, 4: 0.5, 5: 0.6}
    bench.suggester.scenes = {1: SAME, 2: SAME, 3: SAME, 4: OTHER, 5: THIRD}
    bench.promote()
    yield bench
    bench.close()


def told(bench: ReviewBench) -> dict[int, float]:
    """What Label Studio has, which is one prediction of the current version for each task."""
    placed = bench.placed()
    assert {version for rows in placed.values() for version, _ in rows} == {bench.version}
    return {task_id: score for task_id, ((_, score),) in placed.items()}


def test_what_looks_different_comes_before_the_second_of_what_looks_the_same(bench: ReviewBench) -> None:
    bench.review()
    scores = told(bench)
    assert sorted(scores, key=lambda i: scores[i]) == [1, 4, 5, 2, 3] == bench.ranked()
    assert (scores[1], scores[4], scores[5]) == (0.25, 0.5, 0.6)
    assert scores[2] == pytest.approx(1 - HELD_BACK * 0.7)
    assert scores[3] == pytest.approx(1 - HELD_BACK**2 * 0.65)
    assert bench.due() == set()


def test_it_is_done_once_and_only_when_all_was_scored_and_sent(bench: ReviewBench) -> None:
    assert "rank" not in bench.due()
    assert bench.rank() == 0
    bench.score()
    assert "rank" not in bench.due(), "what was scored is not sent yet"
    bench.push()
    assert "rank" in bench.due()
    assert bench.rank() == 2
    assert "rank" not in bench.due()
    assert bench.rank() == 0
    assert "push" in bench.due()
    assert bench.push() == 2


def test_the_project_is_settled_only_when_the_order_was_sent(bench: ReviewBench) -> None:
    def settled() -> bool:
        return bool(bench.bench.status()["in_order"])

    bench.score()
    bench.push()
    bench.sync_project_order()
    assert not settled()
    bench.rank()
    bench.sync_project_order()
    assert not settled()
    bench.push()
    assert "sync" in bench.due()
    bench.sync_project_order()
    assert settled()


def test_whoever_asks_for_a_task_is_told_the_score_of_its_place(bench: ReviewBench) -> None:
    bench.review()
    with bench.parts.database.read() as connection:
        answer = predictions.find_prediction(connection, 1, 2, bench.version, "f")
    assert answer is not None
    assert answer["score"] == told(bench)[2]


def test_what_is_scored_next_does_not_depend_on_the_order(bench: ReviewBench) -> None:
    bench.review()
    with bench.parts.database.read() as connection:
        rows = connection.execute(tables.tasks.select().order_by(tables.tasks.c.task_id)).all()
    assert [row.score for row in rows] == list(bench.suggester.scores.values())


def test_ranking_again_from_what_the_model_found_gives_the_same(bench: ReviewBench) -> None:
    bench.review()
    before = told(bench)
    with bench.parts.database.write() as connection:
        reviews.update_review(connection, 1, ranked_version=None)
    assert bench.rank() == 0
    assert told(bench) == before


def test_the_next_version_starts_from_its_own_scores(bench: ReviewBench) -> None:
    bench.review()
    bench.suggester.scenes = {}
    bench.promote()
    bench.review()
    assert told(bench) == bench.suggester.scores


def test_a_version_that_is_gone_back_to_is_ranked_again(bench: ReviewBench) -> None:
    first = bench.version
    bench.review()
    before = told(bench)
    bench.promote()
    bench.clock.now += 10
    bench.score()
    bench.go_back(first)
    bench.review()
    assert told(bench) == before


def test_images_with_a_rare_class_come_forward_and_painted_ones_take_part(bench: ReviewBench) -> None:
    setup = LABEL_CONFIG.replace(
        '<Label value="Nucleus"/>', '<Label value="Nucleus"/><Label value="Mitosis"/>'
    )
    bench.server.label_config = setup
    bench.suggester.scenes = {}
    bench.suggester.classes = dict.fromkeys(range(1, 5), ("Nucleus",)) | {5: ("Mitosis", "Nucleus")}
    with bench.parts.database.write() as connection:
        for task_id in range(6, 10):
            task_data.remember_tasks(connection, 1, [(task_id, {"image": "x.png"})], bench.clock())
            bench.suggester.scores[task_id] = 0.1 + task_id / 100
            bench.server.add_task(task_id)
        set_label_config(connection, get_project(connection, 1), setup, bench.clock())
        task = tasks.find_task(connection, 1, 5)
        tasks.save_truth(connection, 1, task, {}, [(900, 9), (900, 40), (20, 1)], [])
    bench.score()
    bench.push()
    assert bench.ranked().index(5) == 8
    assert bench.rank() == 1
    assert bench.ranked().index(5) == 4


def test_without_embeddings_the_scores_stay(bench: ReviewBench) -> None:
    bench.suggester.scenes = {}
    bench.review()
    assert told(bench) == bench.suggester.scores


def test_killed_after_any_call_it_ends_in_the_same_order(tmp_path: Path) -> None:
    def prepare(name: str) -> ReviewBench:
        bench = ReviewBench(tmp_path / name, 4)
        bench.suggester.scenes = dict.fromkeys(range(1, 4), SAME) | {4: OTHER}
        bench.promote()
        bench.server.n_calls = 0
        return bench

    smooth = prepare("smooth")
    smooth.review()
    expected, n_calls = smooth.placed(), smooth.server.n_calls
    smooth.close()
    for call in range(1, n_calls + 1):
        bench = prepare(f"killed-{call}")
        bench.server.kill_after = call
        with pytest.raises(Killed):
            bench.review()
        bench.clock.now += push.LEASE_S + 1
        for _ in range(2):
            bench.review()
        assert bench.placed() == expected, f"killed after call {call}"
        bench.close()
