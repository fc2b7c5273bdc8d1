"""What Label Studio is told after a promotion: the same end, wherever the process is killed on the way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loop_fakes import Killed
from review_fakes import ReviewBench, score_of

from ml_backend.ports import HeldPrediction
from ml_backend.review import label_studio_order
from ml_backend.review.label_studio_order import TAB_TITLE
from ml_backend.storage import predictions
from ml_backend.suggestions import push
from ml_backend.suggestions.differences import find_difference

OURS = {"v1", "v2"}
THEIRS = {"result": [], "score": 0.01, "model_version": "theirs"}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[ReviewBench]:
    bench = ReviewBench(tmp_path, 6)
    yield bench
    bench.close()


def state(bench: ReviewBench) -> Any:
    """All that a person sees of us in Label Studio."""
    return bench.server.model_version, bench.server.backends, bench.server.tabs, bench.placed()


def test_the_project_follows_a_promotion(bench: ReviewBench) -> None:
    version = bench.promote()
    assert {"score", "sync"} <= bench.due()
    bench.review()
    assert bench.server.model_version == version
    assert bench.server.backends[0]["title"] == version
    assert bench.placed() == {i: [(version, score_of(i, version))] for i in range(1, 7)}
    (tab,) = [tab for tab in bench.server.tabs if tab["title"] == TAB_TITLE]
    assert tab["ordering"] == ["tasks:predictions_score"]
    assert tab["filters"]["items"][0]["value"] == version
    assert bench.due() == set()


def test_older_predictions_of_ours_give_way_and_others_stay(bench: ReviewBench) -> None:
    first = bench.promote()
    bench.server.place(3, THEIRS)
    bench.review()
    ids = {task_id: number for number, (task_id, p) in bench.server.predictions.items() if p != THEIRS}
    second = bench.promote()
    bench.review()
    for task_id in range(1, 7):
        expected = [(second, score_of(task_id, second))]
        assert bench.placed()[task_id] == sorted(expected + [("theirs", 0.01)] * (task_id == 3))
    assert first not in {p["model_version"] for _, p in bench.server.predictions.values()}
    kept = {task_id: number for number, (task_id, p) in bench.server.predictions.items() if p != THEIRS}
    assert kept == ids, "an open task can be submitted still: its prediction has the same id"


def test_doubles_that_label_studio_made_are_removed(bench: ReviewBench) -> None:
    version = bench.promote()
    bench.review()
    for _ in range(2):
        bench.server.place(2, {"result": [], "score": 0.5, "model_version": version})
    with bench.parts.database.write() as connection:
        predictions.enqueue_pushes(connection, 1, [2], bench.clock() + 600, is_open=False)
    assert bench.push() == 0
    bench.promote()
    bench.review()
    assert len(bench.placed()[2]) == 1


def test_what_label_studio_stores_during_a_push_is_seen(bench: ReviewBench) -> None:
    version = bench.promote()
    bench.score()
    bench.server.during_push = lambda: (
        bench.server.place(4, {"result": [], "score": 0.5, "model_version": version}) and None
    )
    bench.push()
    assert bench.placed()[4] == [(version, score_of(4, version))]


def test_going_back_to_an_earlier_model_is_followed_too(bench: ReviewBench) -> None:
    first = bench.promote()
    bench.review()
    bench.promote()
    bench.review()
    bench.go_back(first)
    bench.clock.now += 10
    bench.review()
    assert bench.server.model_version == first
    assert {v for rows in bench.placed().values() for v, _ in rows} == {first}


@pytest.mark.parametrize("round_number", [1, 2])
def test_a_kill_after_any_call_changes_nothing_in_the_end(tmp_path: Path, round_number: int) -> None:
    def prepare(name: str) -> ReviewBench:
        bench = ReviewBench(tmp_path / name, 6)
        bench.server.place(3, THEIRS)
        for _ in range(round_number - 1):
            bench.promote()
            bench.review()
        # Somebody opened tasks meanwhile, and Label Studio stored what it got, twice.
        if round_number > 1:
            for task_id in (2, 2, 5):
                bench.server.place(task_id, {"result": [], "score": 0.5, "model_version": bench.version})
        bench.promote()
        bench.server.n_calls = 0
        return bench

    smooth = prepare("smooth")
    smooth.review()
    expected, n_calls = state(smooth), smooth.server.n_calls
    smooth.close()
    assert n_calls > 5
    for call in range(1, n_calls + 1):
        bench = prepare(f"killed-{call}")
        bench.server.kill_after = call
        with pytest.raises(Killed):
            bench.review()
        # Nobody can tell that the other one is gone, so its leases have to run out.
        bench.clock.now += max(push.LEASE_S, label_studio_order.LEASE_S) + 1
        for _ in range(3):
            bench.review()
        assert state(bench) == expected, f"killed after call {call}"
        assert bench.due() == set()
        bench.close()


def test_without_a_backend_row_predictions_name_the_version(bench: ReviewBench) -> None:
    bench.server.backends, bench.server.model_version = [], None
    version = bench.promote()
    assert not bench.sync_project_order(), "no prediction has the version yet"
    assert "sync" not in bench.due()
    bench.score()
    bench.push()
    bench.clock.now += label_studio_order.FIRST_PAUSE_S + 1
    assert "sync" in bench.due()
    assert bench.sync_project_order()
    assert bench.server.model_version == version


def test_a_server_that_is_away_is_asked_again_ever_more_slowly(bench: ReviewBench) -> None:
    bench.promote()
    bench.server.is_down = True
    for n in range(3):
        assert not bench.sync_project_order()
        bench.clock.now += label_studio_order.FIRST_PAUSE_S * 2**n - 1
        assert "sync" not in bench.due()
        bench.clock.now += 2
        assert "sync" in bench.due()
    bench.server.is_down = False
    bench.review()
    assert bench.server.model_version == bench.version


def test_tasks_that_are_gone_need_nothing(bench: ReviewBench) -> None:
    bench.promote()
    bench.score()
    del bench.server.tasks[4]
    bench.push()
    assert sorted(bench.placed()) == [1, 2, 3, 5, 6]
    assert "push" not in bench.due()


PLACED = st.lists(
    st.builds(
        HeldPrediction,
        st.integers(1, 50),
        st.sampled_from(["v1", "v2", "theirs"]),
        st.sampled_from([None, 0.25, 0.5]),
    ),
    unique_by=lambda p: p.prediction_id,
    max_size=6,
)
WANTED = st.sampled_from([None, {"model_version": "v2", "score": 0.5, "result": []}])


@given(WANTED, PLACED)
def test_one_of_ours_is_left_and_others_are_never_touched(wanted: Any, placed: list[HeldPrediction]) -> None:
    need = find_difference(wanted, placed, OURS)
    ours = {p.prediction_id for p in placed if p.model_version in OURS}
    assert set(need.delete) <= ours
    assert need.overwrite is None or need.overwrite in ours - set(need.delete)
    left = len(ours) - len(need.delete) + need.create
    assert left == (1 if ours or wanted else 0)


@given(WANTED, PLACED)
def test_nothing_is_left_to_do_after_it_was_done(wanted: Any, placed: list[HeldPrediction]) -> None:
    need = find_difference(wanted, placed, OURS)
    after = {p.prediction_id: p for p in placed if p.prediction_id not in need.delete}
    number = 99 if need.create else need.overwrite
    if number is not None:
        after[number] = HeldPrediction(number, wanted["model_version"], wanted["score"])
    again = find_difference(wanted, list(after.values()), OURS)
    assert (again.create, again.overwrite, again.delete) == (False, None, ())
