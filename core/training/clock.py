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

LONG_QUICK_SHARE = 0.25
"""What they may take of a long training: on a busy machine 8 s show them a part of the images, and a model
that saw less than the one before it is refused."""

FEWEST_STEPS = 50
"""A round makes at least so many steps, on a slow or busy machine too: ten of them teach no new class."""

FEWEST_STEPS_EVER, LONGEST_FACTOR = 10, 3.0
"""It takes at most this many times its budget for them, and never makes fewer than the first."""

HEAD_STEPS_PER_STEP = 5
"""Of the network's: one of the head's costs a twentieth."""

SHORTEST_S = 1e-3
"""Stands for no time at all."""


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
        longest = max(QUICK_S[1], LONG_QUICK_SHARE * self.budget_s)
        seconds = min(max(share, QUICK_S[0]), longest)
        return lambda: (self.now() - began) / seconds

    def head_steps(self, usual: int) -> int:
        """Steps of the head: fewer than usual in a round of very few steps."""
        return usual if self.max_steps is None else min(usual, HEAD_STEPS_PER_STEP * max(self.max_steps, 1))

    def network_pace(self, part: float = 1.0) -> Callable[[int], float]:
        """The share of the network's time, from now on, that is spent after so many steps.

        `part` is what it gets of the time that is left; an encoder that learns gets the rest. However late it
        is, its rate goes along the whole curve: what begins in the middle of it is never taught properly.
        """
        if self.max_steps is not None:
            most = max(self.max_steps, 1)
            return lambda steps: steps / most
        share = OPTIMISATION_SHARE if self.learners == (NETWORK,) else MIXED_SHARE
        began, whole_s = self.now(), self.budget_s * share
        seconds = max((self.began + whole_s - began) * part, SHORTEST_S)

        def spent(steps: int) -> float:
            moment = self.now()
            done = (moment - began) / seconds
            is_far_too_late = moment - self.began >= LONGEST_FACTOR * whole_s
            if steps >= FEWEST_STEPS or (steps >= FEWEST_STEPS_EVER and is_far_too_late):
                return done
            return min(done, steps / FEWEST_STEPS)

        return spent

    def tuning_pace(self) -> Callable[[int], float]:
        """The share of the time for tuning an encoder, from now on, that is spent after so many steps."""
        if self.max_steps is not None:
            most = max(self.max_steps, 1)
            return lambda steps: steps / most
        began = self.now()
        seconds = max(self.began + MIXED_SHARE * self.budget_s - began, SHORTEST_S)
        return lambda steps: (self.now() - began) / seconds

    def eta_s(self, done: float) -> float:
        """Seconds that are left when this share is done."""
        elapsed = self.now() - self.began
        if self.max_steps is None:
            return max(self.budget_s - elapsed, 0.0)
        return elapsed * (1 - done) / max(done, 1e-6)
