"""Which tasks a new model scores after a promotion: a fixed budget, whatever the size of the project."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

Reason = Literal["never", "stale", "unsure", "random"]

SHARES: Mapping[Reason, float] = {"never": 0.4, "stale": 0.2, "unsure": 0.25, "random": 0.15}
"""Of a round's budget. Tasks that no model saw get most, because nothing can rank them. The random share
finds what the model is wrongly sure of. What one kind of task does not use, the others get."""


def choose_tasks_to_score(
    candidates: Mapping[Reason, Sequence[int]], budget: int, shares: Mapping[Reason, float] = SHARES
) -> list[int]:
    """Choose at most `budget` tasks, each once, in the order in which they are to be scored.

    `candidates` are task ids per reason, the most urgent first; a task may be listed for several reasons.
    The reasons take turns in proportion to their shares, so that a round that is cut short kept them too.
    As many tasks are chosen as there are, up to the budget.

    Examples
    --------
    >>> choose_tasks_to_score({"never": [1, 2, 3, 4], "stale": [7, 8], "random": [2, 9]}, 4)
    [1, 7, 2, 3]
    """
    chosen: dict[int, None] = {}
    waiting = {reason: iter(candidates.get(reason, ())) for reason in shares if shares[reason] > 0}
    taken = dict.fromkeys(waiting, 0)
    while waiting and len(chosen) < budget:
        reason = min(waiting, key=lambda name: (taken[name] + 0.5) / shares[name])
        task_id = _next_new(waiting[reason], chosen)
        if task_id is None:
            del waiting[reason]
        else:
            chosen[task_id] = None
            taken[reason] += 1
    return list(chosen)


def _next_new(tasks: Iterator[int], chosen: Mapping[int, None]) -> int | None:
    return next((task_id for task_id in tasks if task_id not in chosen), None)
