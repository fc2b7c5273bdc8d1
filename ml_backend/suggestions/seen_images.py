"""What was seen in the images that people click in, kept while memory allows: colours and predictions."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from core.network.checkpoint import Checkpoint
from core.objects.measure import ObjectLimits
from core.objects.of_prediction import numbered_objects
from core.prediction import Prediction
from core.prompts.lab_colours import Colours
from core.prompts.prompt import Known
from core.schema import LabelSchema

KEPT_BYTES = 400_000_000
"""What one process keeps for clicks: some twenty images of 1,024 x 1,024."""

UNLIKELY = 0.02
"""Probability of the classes that a pixel has neither first nor second; the model's own maps do not say."""

T = TypeVar("T")


@dataclass(frozen=True)
class ModelLook:
    """What a model sees in a part of an image; `objects` are numbered, `classes` says what each one is."""

    schema: LabelSchema
    limits: Sequence[ObjectLimits]
    taught: tuple[str, ...]
    prediction: Prediction
    objects: NDArray[np.int32]
    classes: tuple[int, ...]


@dataclass(frozen=True)
class Look:
    """One part of an image; `model` is None where there is none."""

    colours: Colours
    model: ModelLook | None

    @property
    def n_bytes(self) -> int:
        if self.model is None:
            return self.colours.nbytes
        seen = self.model.prediction
        maps = (seen.label_map, seen.runner_up, seen.confidence, self.model.objects)
        return self.colours.nbytes + sum(values.nbytes for values in maps)


def look_of_model(checkpoint: Checkpoint, prediction: Prediction) -> ModelLook:
    """Find the objects of a prediction, touching ones apart."""
    objects, classes = numbered_objects(prediction, checkpoint.schema, checkpoint.limits)
    taught = checkpoint.schema.names if checkpoint.taught is None else tuple(checkpoint.taught)
    return ModelLook(checkpoint.schema, checkpoint.limits, tuple(taught), prediction, objects, classes)


def known_of(look: Look, class_name: str, taken: NDArray[np.bool_]) -> Known:
    """What a look says about one class; for Background, `objects` are those of all others."""
    model = look.model
    index = None if model is None else model.schema.index_of(class_name)
    if model is None or index is None or class_name not in model.taught:
        return Known(taken=taken)
    is_ground = index == model.schema.background_index
    numbers = [n for n, found in enumerate(model.classes, start=1) if is_ground or found == index]
    objects = np.where(np.isin(model.objects, numbers), model.objects, 0).astype(np.int32)
    diameter_px = model.limits[index].typical_diameter_px if index < len(model.limits) else None
    return Known(probability_of(model.prediction, index), objects, taken, diameter_px)


def probability_of(prediction: Prediction, class_index: int) -> NDArray[np.float16]:
    """`(H, W)`: exact for the first class of a pixel, and for both of two; an upper bound for the second."""
    second = np.where(prediction.runner_up == class_index, 1 - prediction.confidence, np.float16(UNLIKELY))
    return np.where(prediction.label_map == class_index, prediction.confidence, second).astype(np.float16)


class Kept(Generic[T]):
    """Values by key, of so many bytes at most; what was asked for least recently goes first."""

    def __init__(self, size_of: Callable[[T], int], limit_bytes: int = KEPT_BYTES) -> None:
        self._size_of, self._limit = size_of, limit_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, T] = OrderedDict()
        self._bytes = 0

    def get(self, key: Hashable) -> T | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def keep(self, key: Hashable, value: T) -> None:
        with self._lock:
            before = self._kept.pop(key, None)
            self._bytes += self._size_of(value) - (0 if before is None else self._size_of(before))
            self._kept[key] = value
            # The newest stays, however large: its next click comes at once.
            while self._bytes > self._limit and len(self._kept) > 1:
                self._bytes -= self._size_of(self._kept.popitem(last=False)[1])
