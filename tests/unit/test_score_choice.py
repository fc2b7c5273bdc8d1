"""Which tasks a model looks at: each once, within the budget, every reason with its share."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ml_backend.review.score_choice import SHARES, Reason, choose_tasks_to_score

LISTS = st.lists(st.integers(1, 60), unique=True, max_size=40)
CANDIDATES = st.fixed_dictionaries(dict.fromkeys(SHARES, LISTS))


@given(CANDIDATES, st.integers(0, 80))
def test_a_budget_is_used_up_and_never_passed(candidates: dict[Reason, list[int]], budget: int) -> None:
    chosen = choose_tasks_to_score(candidates, budget)
    everything = {task_id for tasks in candidates.values() for task_id in tasks}
    assert len(set(chosen)) == len(chosen) == min(budget, len(everything))
    assert set(chosen) <= everything


@given(CANDIDATES, st.integers(0, 80))
def test_of_each_reason_the_most_urgent_come_first(candidates: dict[Reason, list[int]], budget: int) -> None:
    chosen = choose_tasks_to_score(candidates, budget)
    for tasks in candidates.values():
        only_here = [
            task_id
            for task_id in tasks
            if not any(task_id in o for o in candidates.values() if o is not tasks)
        ]
        taken = [task_id in chosen for task_id in only_here]
        assert taken == sorted(taken, reverse=True)


@given(st.integers(1, 60), st.integers(1, 60))
def test_every_reason_has_its_share_of_every_beginning(budget: int, cut: int) -> None:
    names = list(SHARES)
    candidates = {reason: list(range(1000 * i, 1000 * i + 100)) for i, reason in enumerate(names)}
    chosen = choose_tasks_to_score(candidates, budget)[:cut]
    for i, reason in enumerate(names):
        n = sum(1000 * i <= task_id < 1000 * i + 100 for task_id in chosen)
        assert abs(n - SHARES[reason] * len(chosen)) <= 1


def test_shares_add_up_to_the_budget() -> None:
    assert abs(sum(SHARES.values()) - 1) < 1e-9


def test_what_one_reason_does_not_use_the_others_get() -> None:
    assert choose_tasks_to_score({"never": [1], "unsure": [2, 3, 4]}, 4) == [1, 2, 3, 4]
