"""One round's training, as an order that can be carried out in any process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from core.errors import ImageError
from core.rounds import Example, ExampleSummary, RoundSettings
from core.schema import LabelSchema
from ml_backend.ports import ImageSource

OnProgress = Callable[[float, "float | None"], None]
"""Called with the share that is done, 0..1, and the seconds that are left, if known."""


@dataclass(frozen=True)
class StoredExample:
    """One annotated image: its summary, where its label maps are, and how to find its pixels."""

    summary: ExampleSummary
    maps: Path
    project_id: int
    task_id: int
    data: Mapping[str, Any]


@dataclass(frozen=True)
class TrainingOrder:
    """All that a training process must be told. `start` is the folder of the current model, if any."""

    schema: LabelSchema
    examples: tuple[StoredExample, ...]
    start: Path | None
    output: Path
    settings: RoundSettings
    now: float


@dataclass(frozen=True)
class TrainedRound:
    """What came out; the new weights are in the order's `output` when they were `promoted`.

    `fingerprint` is the hexadecimal sha256 of the weights.
    """

    promoted: bool
    fingerprint: str
    report: dict[str, Any]


class Trainer(Protocol):
    """Carries out an order; raises `TrainingError`, and `RoundCancelledError` when it was asked to stop."""

    def __call__(
        self, order: TrainingOrder, on_progress: OnProgress, should_stop: Callable[[], bool]
    ) -> TrainedRound: ...


class StoredExamples:
    """The annotated images of an order, opened one at a time; implements `core.rounds.ExampleSource`."""

    def __init__(self, examples: Sequence[StoredExample], images: ImageSource) -> None:
        self._examples = {example.summary.key: example for example in examples}
        self._images = images

    def summaries(self) -> Sequence[ExampleSummary]:
        return [example.summary for example in self._examples.values()]

    def open(self, key: str) -> Example:
        example = self._examples[key]
        image = self._images.open(example.project_id, example.task_id, example.data)
        maps = np.load(example.maps, mmap_mode="r")
        if image.shape[:2] != maps.shape[1:]:
            raise ImageError(f"the image is now {image.shape[:2]} pixels, it was painted at {maps.shape[1:]}")
        return Example(key, image, train_map=maps[1], held_out_map=maps[2])
