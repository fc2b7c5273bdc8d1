"""How long a round trains: its budget in seconds, divided among the learners, or a number of steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from core.network.mixture import NETWORK

OPTIMISATION_SHARE = 0.93
"""Share of a round's budget after which optimisation ends; checking the model needs the rest."""

MIXED_SHARE = 0.85
"""The same where several learners are checked."""

QUICK_SHARE, ONLY_QUICK_SHARE = 0.4, 0.9
"""Share of a round's budget for forest, encoder and head, with and without the network after them."""

QUICK_S = (1.0, 8.0)
"""They get no less and need no more."""

FEWEST_STEPS = 50
"""A round makes at least so many steps, on a slow or busy machine too: ten of them teach no new class."""

FEWEST_STEPS_EVER, LONGEST_FACTOR = 10, 3.0
"""It takes at most this many times its budget for them, and never makes fewer than the first."""

HEAD_STEPS_PER_STEP = 5
"""Of the network's: one of the head's costs a twentieth."""

ALMOST_DONE = 0.95


@dataclass(frozen=True)
class Clock:
    """Turns steps or seconds into the share of the optimisation that is done."""

    now: Callable[[], float]
    began: float
    budget_s: float
    max_steps: int | None
    learners: tuple[str, ...] = (NETWORK,)

    def quick_pace(self) -> Callable[[], float]:
        """The share of the quick learners' time that is spent, from now on; 0 where steps count instead."""
        if self.max_steps is not None:
            return lambda: 0.0
        began = self.now()
        share = QUICK_SHARE * self.budget_s
        if NETWORK not in self.learners:
            share = ONLY_QUICK_SHARE * self.budget_s - (began - self.began)  # images were opened meanwhile
        seconds = min(max(share, QUICK_S[0]), QUICK_S[1])
        return lambda: (self.now() - began) / seconds

    def head_steps(self, usual: int) -> int:
        """Steps of the head: fewer than usual in a round of very few steps."""
        return usual if self.max_steps is None else min(usual, HEAD_STEPS_PER_STEP * max(self.max_steps, 1))

    def progress(self, steps: int) -> float:
        """The share, 0..1 or more, when the network has made so many steps."""
        if self.max_steps is not None:
            return steps / max(self.max_steps, 1)
        share = OPTIMISATION_SHARE if self.learners == (NETWORK,) else MIXED_SHARE
        spent = (self.now() - self.began) / (self.budget_s * share)
        if steps >= FEWEST_STEPS or (steps >= FEWEST_STEPS_EVER and spent >= LONGEST_FACTOR):
            return spent
        return min(spent, ALMOST_DONE)

    def eta_s(self, done: float) -> float:
        """Seconds that are left when this share is done."""
        elapsed = self.now() - self.began
        if self.max_steps is None:
            return max(self.budget_s - elapsed, 0.0)
        return elapsed * (1 - done) / max(done, 1e-6)
