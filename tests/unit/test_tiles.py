"""Tiles cover an image exactly once and see enough around themselves."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from core.tiles import cut_tiles


@given(
    st.integers(1, 90), st.integers(1, 90), st.integers(0, 20), st.sampled_from([1, 4, 8]), st.integers(8, 40)
)
def test_cores_cover_every_pixel_once_and_reads_reach_the_margin_on_the_grid(
    height: int, width: int, margin: int, stride: int, tile_px: int
) -> None:
    covered = np.zeros((height, width), int)
    for tile in cut_tiles((height, width), margin, stride, tile_px):
        covered[tile.core] += 1
        for core, read, length in zip(tile.core, tile.read, (height, width), strict=True):
            assert read.start % stride == 0
            assert read.start <= max(core.start - margin, 0)
            assert read.stop >= min(core.stop + margin, length)
            assert read.stop - read.start <= tile_px + 2 * (margin + stride)
        rows, columns = tile.core_in_read
        assert np.arange(height)[tile.read[0]][rows][0] == tile.core[0].start
        assert np.arange(width)[tile.read[1]][columns][-1] == tile.core[1].stop - 1
    assert (covered == 1).all()
