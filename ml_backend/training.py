"""One round's training, as a specification that can be carried out in any process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from core.errors import ImageError
from core.rounds import Example, ExampleSummary, RoundSettings
from core.schema import IGNORE_INDEX, LabelSchema
from core.truth.holdout import has_enough_held_out
from ml_backend.ports import ImageSource
from ml_backend.storage.label_map_files import read_map, read_shape

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
class TrainingSpec:
    """All that a training process must be told. `start` is the folder of the current model, if any.

    In the folder `maps`, if any, the encoder's maps are kept from round to round.

    Threads and patches at once are halved so often: memory ran out before. With `is_patient` nobody waits for
    what comes out, and everything else on the machine goes first. Without `holds_out` all truth teaches, and
    what comes out is a draft.
    """

    schema: LabelSchema
    examples: tuple[StoredExample, ...]
    start: Path | None
    output: Path
    settings: RoundSettings
    now: float
    halvings: int = 0
    maps: Path | None = None
    is_patient: bool = False
    holds_out: bool = True


@dataclass(frozen=True)
class TrainedRound:
    """What came out; the new weights are in the spec's `output` when they were `promoted`.

    `fingerprint` is the hexadecimal sha256 of the weights.
    """

    promoted: bool
    fingerprint: str
    report: dict[str, Any]


class Trainer(Protocol):
    """Carries out a specification; raises `TrainingError` (also when stopped) or `MachineError`.

    Asked to finish, it makes no further step, and comes out with what was learnt.
    """

    def __call__(
        self,
        spec: TrainingSpec,
        on_progress: OnProgress,
        should_stop: Callable[[], bool],
        should_finish: Callable[[], bool] = lambda: False,
    ) -> TrainedRound: ...


class StoredExamples:
    """The annotated images of a specification, opened one at a time; implements `core.rounds.ExampleSource`.

    Without `holds_out`, and while too little is held out to check a model, nothing is: a draft learns from
    everything.
    """

    def __init__(
        self,
        examples: Sequence[StoredExample],
        schema: LabelSchema,
        images: ImageSource,
        *,
        holds_out: bool = True,
    ) -> None:
        self._examples = {example.summary.key: example for example in examples}
        self._images = images
        summaries = [example.summary for example in examples]
        self._is_draft = not (holds_out and has_enough_held_out(summaries, schema))

    def summaries(self) -> Sequence[ExampleSummary]:
        stored = [example.summary for example in self._examples.values()]
        return [_with_everything(summary) for summary in stored] if self._is_draft else stored

    def open(self, key: str) -> Example:
        example = self._examples[key]
        image = self._images.open(example.project_id, example.task_id, example.data)
        shape = read_shape(example.maps)
        if image.shape[:2] != shape:
            raise ImageError(f"the image is now {image.shape[:2]} pixels, it was painted at {shape}")
        if self._is_draft:
            nothing = np.broadcast_to(np.uint8(IGNORE_INDEX), shape)
            everything = read_map(example.maps, "all", is_lasting=True)
            return Example(key, image, train_map=everything, held_out_map=nothing)
        train_map = read_map(example.maps, "train", is_lasting=True)
        held_out_map = read_map(example.maps, "held_out", is_lasting=True)
        return Example(key, image, train_map=train_map, held_out_map=held_out_map)


def _with_everything(summary: ExampleSummary) -> ExampleSummary:
    """Count what is held out among what may be trained on."""
    nothing = (0,) * len(summary.class_pixels)
    return replace(
        summary,
        class_pixels=_add(summary.class_pixels, summary.held_out_pixels),
        held_out_pixels=nothing,
        class_objects=_add(summary.class_objects, summary.held_out_objects),
        held_out_objects=nothing,
    )


def _add(first: Sequence[int], second: Sequence[int]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip(first, second, strict=True))
