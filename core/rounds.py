"""What goes into a training round and what comes out, as plain values.

A round never holds the whole project: it reads short summaries of all annotated images, and opens
only the ones that its sampler draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ExampleSummary:
    """What the sampler must know of one annotated image without opening it.

    `class_pixels` and `held_out_pixels` count annotated pixels per class index of the schema, for
    training and for the hold-out; `class_objects` counts the painted objects that may be trained on.
    `is_new` is true when its truth changed since the round that made the starting weights.
    """

    key: str
    shape: tuple[int, int]
    class_pixels: tuple[int, ...]
    held_out_pixels: tuple[int, ...]
    class_objects: tuple[int, ...]
    held_out_objects: tuple[int, ...]
    is_new: bool


@dataclass(frozen=True)
class Example:
    """One annotated image, opened. Arrays may be memory maps: slice before computing.

    `image` is `(H, W, C)` uint8 or uint16; `train_map` and `held_out_map` are `(H, W)` uint8 label
    maps with `IGNORE_INDEX` where they say nothing, and they never say something next to each other.
    """

    key: str
    image: NDArray[Any]
    train_map: NDArray[np.uint8]
    held_out_map: NDArray[np.uint8]


class ExampleSource(Protocol):
    """The annotated images of one project."""

    def summaries(self) -> Sequence[ExampleSummary]:
        """One entry per annotated image, in a stable order."""
        ...

    def open(self, key: str) -> Example:
        """Open one image; raises `ImageError` when it cannot be read."""
        ...


@dataclass(frozen=True)
class RoundSettings:
    """How long and how a round trains.

    Attributes
    ----------
    budget_s : wall time of a round that starts over or meets a class for the first time, its checks included
    warm_budget_s : the same for other rounds, which go on from the current model; never above `budget_s`
    max_steps : when set, the number of steps ends the round instead of time, which makes it repeatable
    encoder : name of a timm encoder for a network that starts over; empty for `core.network.unet`
    base : folder of base weights to start over from and to keep a share of, or None for the shipped ones
    learners : those that are trained and may count: `network`, `head` and `forest`, and `tuned` where an
        encoder learns too. Without the network a round takes seconds, and what the network knew stays as it
        was for the next one
    device : where to compute, as `core.network.device.choose_compute` reads it
    engine : what computes the encoder's maps, the same way
    """

    budget_s: float = 20.0
    warm_budget_s: float = 8.0
    max_steps: int | None = None
    n_threads: int | None = None
    seed: int = 0
    device: str = "cpu"
    engine: str = "auto"
    encoder: str = ""
    base: Path | None = None
    learners: tuple[str, ...] = ("network", "head", "forest")
