"""The learners of a model beside its network, ready to answer for any part of an image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.learners.forest import Forest
from core.learners.forest_map import forest_map
from core.learners.pixel_features import describe_window, widen
from core.learners.tensor_features import features_of_pixels
from core.learners.tensor_forest import TensorForest, map_forest
from core.network.batch import standardise_on
from core.network.encoder import STRIDE
from core.network.feature_maps import SEEN_BYTES, FeatureMaps
from core.network.head import Head
from core.network.map_stores import KeepsNothing
from core.network.mixture import FOREST, HEAD, TUNED
from core.network.outputs import Weights
from core.network.pixels import PixelStatistics, conform_channels, standardise
from core.network.tuned import Tuned
from core.tiles import Slices

FOREST_TILE_PX = 512
"""Most rows that a forest answers for at once: their planes take 100 bytes a pixel and channel."""

WORTH_SENDING_PX = 256 * 256
"""Parts of an image from which on a forest answers on the GPU: in a thousand steps, whatever the size."""

LEAST_SHARE = 0.01
"""Added to a forest's probability of each class: a leaf of a few pixels is never certain."""


class QuickLearners:
    """A head, a forest, a tuned encoder with its head: what there is answers with logits `(n_classes, h, w)`.

    Parameters
    ----------
    tensors : by learner name, as their `to_tensors` gave them
    maps : FeatureMaps
        For the head; standardised as the model is.
    forest_weight : float
        What the forest counts: one that counts little is asked at fewer pixels.

    Raises
    ------
    ValueError, KeyError
        The tensors are not those of such learners.
    """

    def __init__(
        self,
        tensors: Mapping[str, Weights],
        maps: FeatureMaps,
        n_threads: int | None = None,
        forest_weight: float = 1.0,
    ) -> None:
        self.maps, self.forest_weight = maps, forest_weight
        self.n_threads = n_threads or torch.get_num_threads()
        self.head = Head.from_tensors(tensors[HEAD]).to(maps.device) if HEAD in tensors else None
        self.forest = Forest.from_tensors(tensors[FOREST]) if FOREST in tensors else None
        self._tuned: tuple[Head, FeatureMaps] | None = None
        if TUNED in tensors:
            tuned = Tuned.from_tensors(tensors[TUNED])
            own = FeatureMaps(
                maps.statistics, KeepsNothing(), maps.device, seen_bytes=SEEN_BYTES, encoder=tuned.copies()
            )
            self._tuned = tuned.head.to(maps.device), own
        self._tensor_forest: TensorForest | None = None
        if self.forest is not None and maps.device.type != "cpu":
            self._tensor_forest = TensorForest(self.forest, maps.device)

    def logits(self, name: str, image: NDArray[Any], window: Slices) -> Tensor:
        """What the learner `name` says of a part of an image `(H, W, C)`, on the device of the maps."""
        if name == HEAD and self.head is not None:
            return _ask_head(self.head, self.maps, image, window)
        if name == TUNED and self._tuned is not None:
            return _ask_head(*self._tuned, image, window)
        if name == FOREST and self.forest is not None:
            return self._ask_forest(self.forest, image, window)
        raise ValueError(f"this model has no learner {name!r}")

    def _ask_forest(self, forest: Forest, image: NDArray[Any], window: Slices) -> Tensor:
        statistics, device = self.maps.statistics, self.maps.device
        height, width = (part.stop - part.start for part in window)
        if self._tensor_forest is not None and height * width >= WORTH_SENDING_PX:
            trees = self._tensor_forest
            return ask_on_device(trees, statistics, image, window, device, self.forest_weight)
        said = _ask_forest(forest, statistics, image, window, self.n_threads, self.forest_weight)
        return said.to(device)

    def compile_encoders(self) -> None:
        """Run the encoders that are asked as compiled graphs from now on; raises `DeviceError`."""
        if self.head is not None:
            self.maps.compile_encoder(self.n_threads)
        if self._tuned is not None:
            self._tuned[1].compile_encoder(self.n_threads)

    def forget(self, image: NDArray[Any]) -> None:
        """Nobody asks for this image any more: let it and its maps go."""
        self.maps.forget(image)
        if self._tuned is not None:
            self._tuned[1].forget(image)


def _ask_head(head: Head, maps: FeatureMaps, image: NDArray[Any], window: Slices) -> Tensor:
    """The head sees a cell of the deepest map more on each side, so that no seam shows."""
    rows, columns = (
        slice(max(part.start // STRIDE - 1, 0) * STRIDE, min(part.stop + STRIDE, length))
        for part, length in zip(window, image.shape[:2], strict=True)
    )
    with torch.inference_mode():
        logits = head.logits_of_maps(maps.window(image, (rows, columns)))
    inner_rows, inner_columns = (
        slice(part.start - read.start, part.stop - read.start)
        for part, read in zip(window, (rows, columns), strict=True)
    )
    return logits[:, inner_rows, inner_columns]


def _ask_forest(
    forest: Forest,
    statistics: PixelStatistics,
    image: NDArray[Any],
    window: Slices,
    n_threads: int,
    weight: float,
) -> Tensor:
    image = conform_channels(image, statistics.n_channels)
    height, width = (part.stop - part.start for part in window)
    answer = np.empty((forest.n_classes, height, width), np.float32)

    def ask(band: slice) -> None:
        rows = slice(window[0].start + band.start, window[0].start + band.stop)
        describe = describe_window(image, (rows, window[1]), lambda piece: standardise(piece, statistics))
        beyond = rows.stop < image.shape[0], window[1].stop < image.shape[1]
        said = forest_map(forest, describe, (band.stop - band.start, width), beyond, weight)
        answer[:, band] = np.moveaxis(said, 2, 0)

    n_bands = max(n_threads, math.ceil(height / FOREST_TILE_PX))
    step = math.ceil(height / n_bands / 2) * 2
    bands = [slice(top, min(top + step, height)) for top in range(0, height, step)]
    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(ask, bands))
    return forest_logits(torch.from_numpy(answer))


def ask_on_device(
    forest: TensorForest,
    statistics: PixelStatistics,
    image: NDArray[Any],
    window: Slices,
    device: torch.device,
    weight: float = 1.0,
) -> Tensor:
    """What `_ask_forest` says, computed where the forest is, some rows at a time."""
    bands = []
    for top in range(window[0].start, window[0].stop, FOREST_TILE_PX):
        part = slice(top, min(top + FOREST_TILE_PX, window[0].stop)), window[1]
        tile = widen(part, image.shape[:2])
        planes = features_of_pixels(standardise_on(device, image[tile.read], statistics))
        rows, columns = tile.core_in_read
        beyond = part[0].stop < image.shape[0], part[1].stop < image.shape[1]
        shape = rows.stop - rows.start, columns.stop - columns.start
        inner = planes[:, rows.start :, columns.start :]
        bands.append(map_forest(forest, inner, shape, beyond, weight))
    return forest_logits(torch.cat(bands, dim=1))


def forest_logits(probabilities: Tensor) -> Tensor:
    """Logarithms of what a forest says, kept finite."""
    return (probabilities + LEAST_SHARE).log()


def check_learners(tensors: Mapping[str, Weights], n_classes: int) -> None:
    """Raise ValueError, KeyError or RuntimeError where tensors, perhaps a stranger's, are no learners."""
    for name, own in tensors.items():
        if name == HEAD:
            n_answered = len(Head.from_tensors(own).out_bias)
        elif name == FOREST:
            n_answered = Forest.from_tensors(own).n_classes
        elif name == TUNED:
            tuned = Tuned.from_tensors(own)
            tuned.build_encoder()
            n_answered = len(tuned.head.out_bias)
        else:
            raise ValueError(f"there is no learner called {name!r}")
        if n_answered != n_classes:
            raise ValueError(f"the {name} answers {n_answered} classes, not {n_classes}")
