"""The hold-out is the same at every call, whatever lies in memory and whoever computes beside it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from painted import make_picture
from scipy.ndimage import distance_transform_edt

from core.distances import distance_inside
from core.schema import LabelSchema
from core.truth.holdout import split


def test_distances_are_exact() -> None:
    mask = make_picture(1)[1] == 0
    assert np.array_equal(distance_inside(mask), distance_transform_edt(mask).astype(np.float32))


def test_a_hold_out_is_the_same_beside_other_threads() -> None:
    label_map = (make_picture(1)[1] > 0).astype(np.uint8)
    schema = LabelSchema.of("Background", "Nucleus")
    with ThreadPoolExecutor(4) as threads:
        splits = list(threads.map(lambda _: split(label_map, schema, "1"), range(400)))
    for train_map, held_out_map in splits:
        assert np.array_equal(train_map, splits[0][0])
        assert np.array_equal(held_out_map, splits[0][1])
