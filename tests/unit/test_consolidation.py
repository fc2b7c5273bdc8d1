"""How long training goes on over the same truth."""

from __future__ import annotations

import pytest

from core.training.consolidation import LEAST_GAIN, Continued, plan_budget

GAINED, FLAT, REFUSED = (
    Continued(40, 0.01, True),
    Continued(40, LEAST_GAIN / 2, True),
    Continued(40, 0.3, False),
)


def test_budgets_grow_while_the_model_gains() -> None:
    budgets, done = [], []
    while (budget_s := plan_budget(done, 1000)) is not None and len(done) < 4:
        budgets.append(budget_s)
        done.append(Continued(budget_s, 0.01, True))
    assert budgets == [40, 80, 160, 160]


def test_the_limit_holds_for_all_continuations_together() -> None:
    assert plan_budget([Continued(40, 0.01, True), Continued(80, 0.01, True)], 170) == 50
    assert plan_budget([], 9) is None


def test_what_is_left_is_not_spent_on_one_of_less_than_half_the_length() -> None:
    assert plan_budget([Continued(40, 0.01, True), Continued(80, 0.01, True)], 159) is None
    # One that gave way was short; the next one need not be.
    assert plan_budget([Continued(12, 0.01, True)], 20) is None
    assert plan_budget([Continued(12, 0.01, True)], 25) == 13


def test_a_limit_of_nothing_switches_continuations_off() -> None:
    assert plan_budget([], 0) is None


@pytest.mark.parametrize("second", [FLAT, REFUSED])
def test_two_continuations_without_a_gain_are_the_plateau(second: Continued) -> None:
    assert plan_budget([GAINED, FLAT], 1000) is not None
    assert plan_budget([GAINED, FLAT, second], 1000) is None


def test_one_continuation_without_a_gain_may_be_chance() -> None:
    assert plan_budget([FLAT], 1000) == 80


def test_a_draft_is_continued_once_because_nothing_shows_its_plateau() -> None:
    assert plan_budget([Continued(40, None, True, draft=True)], 1000) is None
