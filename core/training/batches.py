"""What a step of the network sees: patches that are drawn in order, and cut while it learns from others."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.network.pixels import PixelStatistics, standardise
from core.schema import IGNORE_INDEX, LabelSchema
from core.training.augmentation import Light, change_light, cut_patch, draw_light, random_affine
from core.training.loss import border_weights
from core.training.outlines import outline_targets
from core.training.recipe import Recipe
from core.training.sampling import OpenExample, draw_centres

CUTTERS = 8
"""Threads that cut patches for a GPU, whose step takes less time than cutting its patches."""

READY = 2
"""Batches ahead per thread."""


class Batch(NamedTuple):
    """`N` patches: images `(N, C, p, p)`, and `(N, p, p)` label maps, pixel weights and outline targets."""

    images: Tensor
    label_maps: Tensor
    weights: Tensor
    outlines: Tensor


@dataclass(frozen=True)
class Drawing:
    """What patches are drawn from, and how; `class_weight` has a number per class of the schema."""

    examples: Sequence[OpenExample]
    schema: LabelSchema
    statistics: PixelStatistics
    class_weight: NDArray[np.float32]
    recipe: Recipe


@dataclass(frozen=True)
class PlannedPatch:
    """All that is random about one patch: where it lies in its image, and in which light it is shown."""

    opened: OpenExample
    affine: NDArray[np.float64]
    light: Light


class Batches:
    """Batches in an order that the generator alone decides, however many threads cut them.

    Parameters
    ----------
    device : torch.device
        Where steps are made: the processor has no cores left for more than one thread.
    """

    def __init__(self, drawing: Drawing, rng: np.random.Generator, device: torch.device) -> None:
        self._drawing, self._rng = drawing, rng
        n_threads = 1 if device.type == "cpu" else min(CUTTERS, torch.get_num_threads())
        self._n_ahead = 1 if n_threads == 1 else READY * n_threads
        self._pool = ThreadPoolExecutor(n_threads)
        self._coming: deque[Future[Batch]] = deque()

    def __enter__(self) -> Batches:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def draw(self) -> Batch:
        """The next batch; those after it are begun."""
        while len(self._coming) <= self._n_ahead:
            plan = plan_patches(self._drawing, self._rng)
            self._coming.append(self._pool.submit(cut_batch, self._drawing, plan))
        return self._coming.popleft().result()


def plan_patches(drawing: Drawing, rng: np.random.Generator) -> list[PlannedPatch]:
    """Draw all that is random about the patches of a batch."""
    recipe, n_channels = drawing.recipe, drawing.statistics.n_channels
    plan = []
    for opened, row, column in draw_centres(drawing.examples, rng, recipe.batch_size, recipe.shares):
        affine = random_affine(rng, (row, column), recipe.patch_px, recipe.augmentation)
        plan.append(PlannedPatch(opened, affine, draw_light(rng, n_channels, recipe.augmentation)))
    return plan


def cut_batch(drawing: Drawing, plan: Sequence[PlannedPatch]) -> Batch:
    """Cut patches out of their images, change and standardise them, and say what they teach."""
    patches, label_maps = [], []
    for planned in plan:
        example = planned.opened.example
        patch, label_map = cut_patch(
            example.image, example.train_map, planned.affine, drawing.recipe.patch_px
        )
        own = drawing.statistics.of(example.image.dtype)  # the patch is of floating point numbers already
        patches.append(change_light(standardise(patch, own), planned.light))
        label_maps.append(label_map)
    background = drawing.schema.background_index
    weights = [border_weights(each) * _weight_of(each, drawing.class_weight) for each in label_maps]
    outlines = [outline_targets(each, background) for each in label_maps]
    images = torch.from_numpy(np.stack(patches)).permute(0, 3, 1, 2)
    return Batch(
        images.contiguous(memory_format=torch.channels_last),
        torch.from_numpy(np.stack(label_maps)),
        torch.from_numpy(np.stack(weights)),
        torch.from_numpy(np.stack(outlines)),
    )


def _weight_of(label_map: NDArray[np.uint8], class_weight: NDArray[np.float32]) -> NDArray[np.float32]:
    by_value = np.zeros(IGNORE_INDEX + 1, np.float32)
    by_value[: len(class_weight)] = class_weight
    return by_value[label_map]
