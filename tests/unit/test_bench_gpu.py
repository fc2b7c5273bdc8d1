"""`python -m bench gpu`, on a machine without a GPU and in seconds."""

from __future__ import annotations

import numpy as np
import pytest

from bench import Options, gpu


def test_without_a_gpu_the_processor_is_measured_and_the_table_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gpu, "BUDGET_S", 1.0)
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: False)
    result = gpu.run(Options(arguments=("--sets", "drawn_areas", "--side", "128")))
    assert result.goals == ()
    assert "no GPU" in result.notes[0]
    assert [row[1] for row in result.rows] == ["cpu"]
    assert all(row[-1] > 0 for row in result.further[0].rows)


def test_goals_are_those_of_the_slowest_and_the_worst() -> None:
    rounds = [
        {"set": "a", "device": "cuda", "steps": 1600, "dice": 0.7},
        {"set": "a", "device": "cpu", "steps": 100, "dice": 0.72},
    ]
    answers = [{"device": "cuda", "looks": n, "s_per_mpx": s} for n, s in ((1, 0.01), (1, 0.019), (4, 0.05))]
    assert [goal.met for goal in gpu.goals_of(rounds, answers)] == [True, True, False]


def test_a_large_image_is_put_together_of_small_ones() -> None:
    images = [np.full((30 + i, 40, 3), i, np.uint8) for i in range(3)]
    assert gpu.tile_up(images, 100).shape == (100, 100, 3)
