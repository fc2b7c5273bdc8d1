"""A round can be limited in steps instead of seconds, which makes it repeatable on any machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from loop_fakes import make_bench


@pytest.mark.parametrize("steps", [None, 40])
def test_a_round_is_ordered_with_the_steps_that_the_setting_says(tmp_path: Path, steps: int | None) -> None:
    bench = make_bench(tmp_path, round_steps=steps)
    try:
        bench.submit(1, 2)
        bench.loop.build_truth(1)
        bench.loop.run_round(1)
        assert [spec.settings.max_steps for spec in bench.trainer.specs] == [steps]
    finally:
        bench.close()
