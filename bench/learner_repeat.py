"""The same seed gives the same weights, in any process of the same machine."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench import Figures, Goal
from bench.annotator import LabelledImage, paint
from bench.fresh_process import run_fresh
from bench.learner_settings import Bench, PartResult
from bench.painted_source import PaintedSource
from bench.peers import N_THREADS, train_network
from core.rounds import RoundSettings
from core.synthetic import make_image

STEPS = 40
N_IMAGES = 8
SEEDS = (0, 0, 1)
"""The last one shows that the seed matters at all."""


def measure_repeat(bench: Bench) -> PartResult:
    steps = bench.settings.max_steps or STEPS
    found = bench.measure_ours(
        {"part": "repeat", "steps": steps},
        0,
        lambda: {"fingerprints": [run_fresh(_fingerprint, seed, steps)["fingerprint"] for seed in SEEDS]},
    )
    one, again, other = found["fingerprints"]
    rows = tuple(
        (seed, fingerprint[:16]) for seed, fingerprint in zip(SEEDS, found["fingerprints"], strict=True)
    )
    goals = (
        Goal(f"same seed, same weights: {one[:8]} and {again[:8]}", one == again),
        Goal(f"another seed, other weights: {one[:8]} and {other[:8]}", one != other),
    )
    title = f"Rounds of {steps} steps, each in a new process"
    return PartResult((Figures(title, ("seed", "weights"), rows),), goals, found)


def _fingerprint(seed: int, n_steps: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    images = [LabelledImage(f"{i}", *make_image("tissue", rng, (192, 192))) for i in range(N_IMAGES)]
    source = PaintedSource(paint(images, 3 * N_IMAGES, rng))
    settings = RoundSettings(max_steps=n_steps, n_threads=N_THREADS, seed=seed)
    return {"fingerprint": train_network(source, settings)[0].fingerprint}
