"""A project that is painted on between its rounds, as the service lives it: truth grows, models follow."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.annotator import PaintedImage
from bench.learner_settings import LearnerSettings
from bench.painted_source import PaintedSource
from bench.peers import N_LOOKS, N_THREADS, PLAIN
from core.network.checkpoint import Checkpoint
from core.network.predict import Predictor
from core.schema import LabelSchema
from core.training.round_report import RoundReport
from core.training.trainer import train_round


class GrowingProject:
    """All that was painted so far, and the current model.

    What was painted since the current model began to train is new; a round whose model is not promoted
    leaves it new.
    """

    def __init__(self, settings: LearnerSettings, seed: int) -> None:
        self._settings, self._seed = settings, seed
        self._painted: dict[str, PaintedImage] = {}
        self._new: set[str] = set()
        self._n_rounds = 0
        self.current: Checkpoint | None = None

    def learn(self, schema: LabelSchema, painted: Sequence[PaintedImage]) -> RoundReport:
        """Add what was painted, and run one round."""
        self._painted.update((p.name, p) for p in painted)
        self._new.update(p.name for p in painted)
        self._n_rounds += 1
        result = train_round(
            PaintedSource(list(self._painted.values()), schema, self._new),
            schema,
            self.current,
            self._settings.round_settings(1000 * self._seed + self._n_rounds),
            now=time.perf_counter,
        )
        if result.promoted:
            self.current, self._new = result.checkpoint, set()
        return result.report

    def answer(self, images: Sequence[NDArray[Any]]) -> list[NDArray[np.uint8]]:
        """Label maps of the current model."""
        if self.current is None:
            raise ValueError("no round has been run")
        predictor = Predictor(self.current, N_THREADS)
        return [predictor.predict(image, n_augmentations=N_LOOKS[PLAIN]).label_map for image in images]
