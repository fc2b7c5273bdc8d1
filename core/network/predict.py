"""Ask a checkpoint about an image of any size, tile by tile, with how sure it is of every pixel."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.errors import DeviceError, ImageError, RoundCancelledError
from core.network.batch import to_batch
from core.network.checkpoint import Checkpoint
from core.network.device import OPENVINO, TORCH, Compute, choose_compute
from core.network.embedding import EmbeddingMean
from core.network.encoder import STRIDE
from core.network.feature_maps import SEEN_BYTES, FeatureMaps
from core.network.graphs import Graph, WholeNetwork, compile_graph
from core.network.inference import infer_with_features, load_network
from core.network.map_stores import KeepsNothing, MapStore
from core.network.mixture import FOREST, HEAD, calibrated
from core.network.quick import QuickLearners
from core.network.tile_answers import write_outline, write_tile
from core.network.timm_network import KIND as TIMM
from core.network.unet import receptive_margin_px, stride_of
from core.prediction import Prediction, empty_prediction
from core.threads import torch_threads
from core.tiles import TILE_PX, Slices, Tile, cut_tiles

FLIPS: tuple[tuple[int, ...], ...] = ((), (3,), (2,), (2, 3))
"""Axes of (N, C, H, W) that the samples of test-time augmentation are mirrored along."""


def sample_logits(
    logits_of: Callable[[Tensor], Tensor], batch: Tensor, n_augmentations: int, first: Tensor | None = None
) -> Tensor:
    """Logits `(S, n_classes + 1, H, W)` of one image `(1, C_in, H, W)`, one sample per mirroring.

    `first` are those of the image as it is, where they are known.

    Raises
    ------
    ValueError
        Not 1 to 4 augmentations asked for.
    """
    if not 1 <= n_augmentations <= len(FLIPS):
        raise ValueError(f"1 to {len(FLIPS)} augmentations can be had, not {n_augmentations}")
    first = logits_of(batch) if first is None else first
    if n_augmentations == 1:
        return first
    mirrored = [
        logits_of(batch.flip(axes))[0].flip([axis - 1 for axis in axes]) for axes in FLIPS[1:n_augmentations]
    ]
    return torch.stack([first[0], *mirrored])


GPU_TILE_PX = 1024
"""Side of a tile on a GPU, which waits most of the time with smaller ones."""

COMPILE_FROM_PX = 2_000_000
"""Pixels times samples after which a model is compiled: fewer do not win back the second that it takes."""


class Predictor:
    """Holds a network in memory and answers for one image after another.

    Parameters
    ----------
    checkpoint : Checkpoint
    n_threads : int, optional
        For torch, while a prediction runs; None leaves them as they are.
    compute : Compute, optional
        The device and its precision; by default the processor, with bfloat16 where it is fast with that.
        Probabilities then differ in the third digit.
    tile_px : int, optional
        Side of a tile; memory grows with it, the maps of the whole image apart. Larger by default on a GPU.
    store : MapStore, optional
        Where the encoder's maps are kept, for models with a learner that reads them.
    on_fallback : callable, optional
        Told why torch goes on answering where compiled graphs were wanted.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        n_threads: int | None = None,
        *,
        compute: Compute | None = None,
        tile_px: int | None = None,
        store: MapStore | None = None,
        on_fallback: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self.checkpoint = checkpoint
        self.n_threads = n_threads
        self.compute = compute or choose_compute()
        self.tile_px = tile_px or (TILE_PX if self.compute.device.type == "cpu" else GPU_TILE_PX)
        self._network = load_network(checkpoint, self.compute) if _runs_network(checkpoint) else None
        self._on_fallback = on_fallback
        self._graph: Graph | None = None
        self._looked_px, self._is_compiled, self._compiling = 0, False, threading.Lock()
        self._maps = FeatureMaps(
            checkpoint.statistics, store or KeepsNothing(), self.compute.device, seen_bytes=SEEN_BYTES
        )
        weight = checkpoint.shares[FOREST].weight if FOREST in checkpoint.shares else 0.0
        self._quick = QuickLearners(checkpoint.counting, self._maps, n_threads, weight)

    def predict(
        self,
        image: NDArray[Any],
        *,
        n_augmentations: int = 4,
        keep_details: bool = True,
        keep_probabilities: bool = False,
        kept_as: type[np.floating[Any]] = np.float16,
        should_stop: Callable[[], bool] | None = None,
    ) -> Prediction:
        """Segment one image.

        Parameters
        ----------
        image : (H, W, C) uint8 or uint16, or a memory map of that
            Any number of channels; see `core.network.pixels.conform_channels`.
        n_augmentations : 1 to 4
            Mirrored samples, averaged. With 1 there is no disagreement: mutual information is 0.
        keep_details : bool
            False leaves expected entropy, mutual information and margin out: they are NaN everywhere, and
            take no memory, instead of 600 MB in an image of 10,000 x 10,000 pixels.
        keep_probabilities : bool
            Keep all of `(C, H, W)`, which is large for many classes.
        kept_as : type of float
            Of these probabilities; float16 has three digits.
        should_stop : callable, optional
            Asked before every tile.

        Raises
        ------
        ImageError
            The image is not `(H, W, C)` or is empty.
        RoundCancelledError
            `should_stop` said so.
        """
        if image.ndim != 3 or 0 in image.shape:
            raise ImageError(f"an image is (H, W, C) and not empty, got {image.shape}")
        shape = (image.shape[0], image.shape[1])
        maps = empty_prediction(
            shape,
            keep_details,
            np.empty((len(self.checkpoint.schema), *shape), kept_as) if keep_probabilities else None,
            self._network is not None,
        )
        self._compile_when_it_pays(shape[0] * shape[1] * n_augmentations)
        seen = EmbeddingMean()
        with self._remembering(image), torch_threads(self.n_threads), torch.inference_mode():
            for tile in self._cut(shape):
                if should_stop is not None and should_stop():
                    raise RoundCancelledError("the prediction was asked to stop")
                logits = self._ask_network(image, tile, n_augmentations, seen)
                samples, weights = self._mix(image, tile, logits)
                write_tile(maps, tile.core, samples, weights, self.checkpoint.mixture_temperature)
                if maps.outline is not None and logits is not None:
                    write_outline(maps.outline, tile.core, logits)
        return replace(maps, embedding=seen.embedding())

    def iter_tiles(
        self, image: NDArray[Any], *, n_augmentations: int = 4
    ) -> Iterator[tuple[Slices, Prediction]]:
        """Give each tile's rows and columns, and what `predict` says there; no image is too large.

        `image` has `shape`, `dtype` and parts, as an array; its channels are those of the network.
        """
        shape = (image.shape[0], image.shape[1])
        self._compile_when_it_pays(shape[0] * shape[1] * n_augmentations)
        with self._remembering(image):
            for tile in self._cut(shape):
                height, width = (part.stop - part.start for part in tile.core)
                maps = empty_prediction((height, width), False, None, False)
                with torch_threads(self.n_threads), torch.inference_mode():
                    logits = self._ask_network(image, tile, n_augmentations, EmbeddingMean())
                    samples, weights = self._mix(image, tile, logits)
                    temperature = self.checkpoint.mixture_temperature
                    write_tile(maps, (slice(None), slice(None)), samples, weights, temperature)
                yield tile.core, maps

    @contextmanager
    def _remembering(self, image: NDArray[Any]) -> Iterator[None]:
        """Maps of the image's tiles wait for its next windows until its answer is whole, or given up."""
        try:
            yield
        finally:
            self._quick.forget(image)

    def _cut(self, shape: tuple[int, int]) -> Iterator[Tile]:
        architecture = self.checkpoint.architecture
        return cut_tiles(shape, receptive_margin_px(architecture), stride_of(architecture), self.tile_px)

    def _ask_network(
        self, image: NDArray[Any], tile: Tile, n_augmentations: int, seen: EmbeddingMean
    ) -> Tensor | None:
        """The network's logits `(S, n_classes + 1, h, w)`, or None where it is not run; `seen` grows."""
        stride = stride_of(self.checkpoint.architecture)
        if self._network is None:
            self._see_with_encoder(image, tile, seen)
            return None
        batch = to_batch(image[tile.read], self.checkpoint.statistics, stride, self.compute.device)
        rows, columns = tile.core_in_read
        first, deepest = self._look(batch)
        seen.add(deepest, (rows, columns), batch.shape[-1])
        # Needed for its outlines alone: one sample is enough, without mirrored copies.
        n_looks = n_augmentations if self.checkpoint.network_weight else 1
        return sample_logits(self._logits, batch, n_looks, first)[:, :, rows, columns]

    def _see_with_encoder(self, image: NDArray[Any], tile: Tile, seen: EmbeddingMean) -> None:
        rows, columns = (slice(part.start // STRIDE * STRIDE, part.stop) for part in tile.core)
        deepest = self._maps.window(image, (rows, columns))[-1]
        height, width = (size * STRIDE for size in deepest.shape[1:])
        seen.add(deepest[None].float(), (slice(0, height), slice(0, width)), width)

    def _mix(self, image: NDArray[Any], tile: Tile, logits: Tensor | None) -> tuple[Tensor, Tensor]:
        """Probabilities `(S, n_classes, h, w)` of a core, and what each sample counts; on the device."""
        checkpoint, samples, weights = self.checkpoint, [], []
        if logits is not None and checkpoint.network_weight:
            samples.append(torch.softmax(logits[:, :-1] / checkpoint.temperature, dim=1))
            weights += [checkpoint.network_weight / len(logits)] * len(logits)
        for name, share in checkpoint.shares.items():
            if share.weight:
                own = self._quick.logits(name, image, tile.core)
                samples.append(calibrated(own, share.temperature, axis=0)[None])
                weights.append(share.weight)
        return torch.cat(samples), torch.tensor(weights).to(self.compute.device)

    @property
    def engine(self) -> str:
        """What answers now: a GPU's or the processor's torch, or compiled graphs."""
        return TORCH if self._graph is None else OPENVINO

    def _compile_when_it_pays(self, coming_px: int) -> None:
        """Go over to compiled graphs once enough pixels were asked for to win back what compiling takes."""
        self._looked_px += coming_px
        if not self.compute.graphs or self._looked_px < COMPILE_FROM_PX:
            return
        with self._compiling:
            if self._is_compiled or not self.compute.graphs:
                return
            self._is_compiled = True
            try:
                self._quick.compile_encoders()
                # In some of timm's networks the size of the example would be fixed.
                if self._network is not None and self.checkpoint.architecture["kind"] != TIMM:
                    whole = WholeNetwork(load_network(self.checkpoint))  # in float32
                    n_channels = self.checkpoint.statistics.n_channels
                    self._graph = compile_graph(whole, n_channels, self.n_threads)
            except DeviceError as error:
                self._on_fallback(str(error))
                self.compute = replace(self.compute, graphs=False)

    def _look(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """The network's logits and its deepest features."""
        if self._graph is not None:
            logits, deepest = self._graph(batch)
            return logits, deepest
        assert self._network is not None, "only asked where it is run"  # noqa: S101
        return infer_with_features(self._network, batch, self.compute)

    def _logits(self, batch: Tensor) -> Tensor:
        return self._look(batch)[0]


def _runs_network(checkpoint: Checkpoint) -> bool:
    """Whether the network is run: its outlines keep objects apart even where it counts nothing."""
    if checkpoint.network_weight or HEAD not in checkpoint.learners:
        return True
    return bool(checkpoint.taught) and checkpoint.schema.background_index is not None
