"""Hours of a project, with a random fault every few minutes: nothing is lost, doubled or stuck.

`FAULT_HOURS=24 make faults` lives a whole day; the clock runs fast.
"""

from __future__ import annotations

import json
import logging
import os
import random
from typing import Any

import pytest
import torch
from loop_fakes import Bench
from stack import ROOT
from troubled_day import Day

HOURS = float(os.environ.get("FAULT_HOURS", "3"))
LONGEST_S = 3000 + 600 * HOURS
"""Simulated hours take half a minute each on a quiet core; so long on one that is shared by many."""
SEED = int(os.environ.get("FAULT_SEED", "0"))

pytestmark = [pytest.mark.integration, pytest.mark.timeout(LONGEST_S)]

TO_FIND_ALL = 60
"""Ticks until Label Studio was asked what webhooks did not tell: an edit that nobody told is not lost."""
LEVEL = 1.25
"""The second half may need so much more of the disk than the first, in which all tasks were painted."""


@pytest.mark.thorough
@pytest.mark.slow(about_s=60)
def test_hours_of_random_faults_leave_nothing_lost_doubled_or_stuck(
    service_backend: Any, caplog: pytest.LogCaptureFixture
) -> None:
    torch.set_num_threads(1)
    caplog.set_level(logging.INFO)
    settings = service_backend.settings(
        min_pixels_per_class=100, draft_s=0.0, consolidate_s=0.0, learners="network"
    )
    bench = Bench(settings)
    bench.submit(1, 2, 3)
    day = Day(bench, random.Random(SEED))
    day.heal("start")
    # Told as it goes: who stops a day half way knows what half of it showed.
    day.live(HOURS, lambda: write_figures(day, service_backend.name, len(caplog.records)))
    day.wait(TO_FIND_ALL)
    day.heal("end")
    lost, doubled, twice = day.count_lost_and_doubled()
    half = len(day.disk) // 2
    bench.close()
    assert (lost, doubled, twice, day.stuck, day.unexpected) == ([], [], [], [], [])
    scratch = [path for path in service_backend.data_dir.rglob("scratch/*") if path.is_file()]
    assert scratch == []
    if HOURS >= 12:  # all tasks are painted by then
        assert max(day.disk[half:]) <= LEVEL * max(day.disk[:half])


def write_figures(day: Day, backend: str, n_log_lines: int) -> None:
    """What happened so far, beside the reports of other tests."""
    lost, doubled, twice = day.count_lost_and_doubled()
    half = len(day.disk) // 2
    figures = {
        "backend": backend,
        "hours": round(day.lived_s / 3600, 1),
        "faults": sum(day.faults.values()),
        "rounds": day.bench.status()["round"],
        "annotations": len(day.bench.server.annotations),
        "not_trained_yet": len(lost),
        "doubled": len(doubled) + len(twice),
        "stuck": len(day.stuck),
        "unexpected": len(day.unexpected),
        "healed_s": [sorted(day.healed_s)[len(day.healed_s) // 2], max(day.healed_s)],
        "disk_mb": [max(day.disk[: half + 1]) / 1e6, max(day.disk[half:]) / 1e6],
        "memory_mb": [day.memory[(len(day.memory) - 1) * quarter // 4] / 1e6 for quarter in range(1, 5)],
        "log_lines_per_hour": n_log_lines / (day.lived_s / 3600),
        "by_fault": day.faults,
    }
    folder = ROOT / "test-artifacts"
    folder.mkdir(exist_ok=True)
    (folder / f"troubled-day-{backend}.json").write_text(json.dumps(figures, indent=1))
