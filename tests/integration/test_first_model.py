"""A first model, from a handful of painted objects to unseen images: real ones where a folder is named.

`BRUSHLOOP_TEST_DATA` names a folder with `nuclei/<set>/{pool,test}`; without it the generator draws images.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from bench.annotator import SCHEMA, load_sets, paint
from bench.painted_source import PaintedSource
from bench.scores import object_dice
from core.network.predict import Predictor
from core.rounds import RoundSettings
from core.training.trainer import train_round

FOLDER = os.environ.get("BRUSHLOOP_TEST_DATA")
SETS = load_sets(Path(FOLDER) / "nuclei" if FOLDER else None)

STEPS = 60
N_OBJECTS = 12
USEFUL_DICE = 0.6
"""What one would rather correct than paint anew."""


@pytest.mark.integration
@pytest.mark.slow(about_s=30)
@pytest.mark.parametrize("name", sorted(SETS))
def test_a_dozen_painted_objects_make_a_useful_first_model(name: str) -> None:
    painted = paint(SETS[name]["pool"], N_OBJECTS, np.random.default_rng(0))
    settings = RoundSettings(max_steps=STEPS, n_threads=2)
    result = train_round(PaintedSource(painted), SCHEMA, None, settings, now=time.perf_counter)
    assert result.report.origin == "base"
    predictor = Predictor(result.checkpoint, n_threads=2)
    unseen = SETS[name]["pool"][-4:]
    answers = [predictor.predict(labelled.image, n_augmentations=1).label_map for labelled in unseen]
    assert object_dice(answers, unseen)[0] > USEFUL_DICE
