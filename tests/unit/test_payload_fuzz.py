"""Whatever is posted: no crash, no hang, and always an answer below 500 in the one error form."""

from __future__ import annotations

import random
import time

import pytest
from damaged_payloads import post_many

LIMIT_S = 0.006
"""Of this process, for each payload: others may need the cores too."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "n_payloads", [1_000, pytest.param(10_000, marks=[pytest.mark.thorough, pytest.mark.slow(about_s=40)])]
)
def test_thousands_of_mutated_payloads_get_a_typed_answer(client, recorded, n_payloads):
    started = time.process_time()
    statuses, slowest = post_many(client, recorded, n_payloads, random.Random(20261122))
    assert time.process_time() - started < LIMIT_S * n_payloads
    assert slowest < 60  # a hang, not a busy machine
    assert min(statuses.values()) > n_payloads / 500, f"the mutations are too tame or too wild: {statuses}"
