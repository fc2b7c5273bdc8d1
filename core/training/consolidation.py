"""Training that goes on while nobody paints: ever longer rounds over the same truth, until they gain nothing.

A short round publishes fast, and is over long before its truth is learnt. So what follows is planned by what
it gave: each continuation is longer than the one before, up to a limit on their sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from core.network.mixture import HEAD, NETWORK, TUNED

BUDGETS_S = (40.0, 80.0, 160.0)
"""Seconds of the first, second and every further continuation: the later, the less a short one adds."""

SHORTEST_S, SHORTEST_SHARE = 10.0, 0.5
"""What is left of the limit is not worth a continuation below this, nor below this share of the one before:
quick learners start from nothing each time, so a shorter training gives away what a longer one gained."""

LEAST_GAIN = 0.002
"""Mean held-out Dice: two continuations in a row that gain less have reached the plateau."""

PATIENCE = 2


@dataclass(frozen=True)
class Continued:
    """One continuation that ended.

    Attributes
    ----------
    seconds : what it took
    gain : change of the mean held-out Dice, or None where nothing is held out
    promoted : whether its model became the current one
    draft : whether there was no hold-out to judge it
    """

    seconds: float
    gain: float | None
    promoted: bool
    draft: bool = False


def plan_budget(done: Sequence[Continued], limit_s: float) -> float | None:
    """Seconds of the next continuation over this truth, or None when there is nothing more to gain.

    A draft has no hold-out that could show a plateau, so it is continued once.

    >>> plan_budget([], 300.0)
    40.0
    >>> plan_budget([Continued(40.0, 0.02, True)], 300.0)
    80.0
    >>> plan_budget([Continued(40.0, 0.0, False), Continued(80.0, 0.001, True)], 300.0) is None
    True
    """
    if done and done[-1].draft:
        return None
    latest = done[-PATIENCE:]
    if len(latest) == PATIENCE and all(not has_gained(one) for one in latest):
        return None
    left = limit_s - sum(one.seconds for one in done)
    if left < max(SHORTEST_S, SHORTEST_SHARE * done[-1].seconds if done else 0.0):
        return None
    return min(BUDGETS_S[min(len(done), len(BUDGETS_S) - 1)], left)


def learners_of_continuation(learners: tuple[str, ...]) -> tuple[str, ...]:
    """Those of a round, and the encoder where there is time for it to learn.

    >>> learners_of_continuation(("network", "head"))
    ('network', 'head', 'tuned')
    """
    return (*learners, TUNED) if {NETWORK, HEAD} <= set(learners) else learners


def has_gained(one: Continued) -> bool:
    """Whether a continuation made the current model noticeably better."""
    return one.promoted and one.gain is not None and one.gain >= LEAST_GAIN
