"""The bench of the editor's speed shows the same pixels both ways, and compares steps by their medians."""

from __future__ import annotations

import numpy as np
import pytest

from bench.editor_speed import SIDE_PX, Times, draw, report


@pytest.mark.parametrize("n_objects", [1, 50, 500])
def test_both_ways_show_the_same_pixels(n_objects: int) -> None:
    shown = {}
    for kind in ("objects", "class"):
        masks = draw(n_objects, kind)
        assert len(masks) == (n_objects if kind == "objects" else 1)
        canvas = np.zeros((SIDE_PX, SIDE_PX), int)
        for mask in masks:
            canvas[mask.box.slices] += mask.mask
        assert canvas.max() == 1, "objects lie apart and inside the image"
        shown[kind] = canvas
    np.testing.assert_array_equal(shown["objects"], shown["class"])


def test_the_report_takes_medians_and_judges_seconds_of_the_processor() -> None:
    def seconds(used: float) -> Times:
        return Times((9.0, 8.0), (1.0, used), (1.0, used))

    slow = [(50, "objects", seconds(used)) for used in (1.0, 2.0, 30.0)]
    quick = [(50, "class", seconds(0.1))] * 3
    found = report([*slow, *quick])
    assert found.rows[0][3] == "1.00 / 2.00"
    assert [goal.met for goal in found.goals] == [False]
    assert [goal.met for goal in report([*quick, (50, "objects", seconds(0.4))]).goals] == [True]
