"""Lower the priority of background work, so that what people wait for gets processors and memory first."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

LOWER_PRIORITY, LOWEST_PRIORITY = 10, 19
"""Nice values of trainings and scoring, and of what nobody waits for: the web answers first on a machine that
computes on all cores."""

FIRST_TO_KILL = "500"
"""Where memory runs out, the kernel takes the training and not the service (0 is usual, 1000 the most)."""


def step_back_process(priority: int = LOWER_PRIORITY) -> None:
    """Leave the processor, and the memory where it runs out, to the processes that answer people."""
    os.nice(priority)
    # A container may forbid it; then the kernel chooses as it always does.
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(FIRST_TO_KILL)


def step_back_thread() -> None:
    """Lower the priority of this thread, and of those that torch starts for it; Linux counts by thread."""
    with suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWER_PRIORITY)
