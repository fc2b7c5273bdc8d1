"""What the pretrained encoder sees in an image, computed once and kept: five maps, cut where they are needed.

The encoder reads an image in large tiles with a wide margin, so that memory stays bounded and a pixel's
maps do not depend on who asks. Maps are named after the pixels that they were made from: what a store
loses is made again, and an image that changes gets maps of its own.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.errors import DeviceError
from core.network.batch import to_batch
from core.network.encoder import (
    IN_CHANNELS,
    STRIDE,
    STRIDES,
    Encoder,
    colours_of,
    encoder_digest,
    load_encoder,
)
from core.network.graphs import Graph, compile_followed, follow
from core.network.pixels import PixelStatistics
from core.tiles import Slices, Tile, cut_tiles

Map = NDArray[np.float16]
"""`(width, h, w)`, one of the encoder's."""

TILE_PX = 1024
"""Side of what is read in one pass: most images whole; a pass takes less than 400 MB."""

MARGIN_PX = 128
"""What a pass sees around its tile. The encoder reaches farther, but a pixel's weight in an answer falls
off fast with its distance (Luo et al. 2016, https://arxiv.org/abs/1701.04128)."""

BYTES_PER_PX = 15
"""What the maps of a pixel take, about."""

MEMORY_BYTES = 256_000_000
"""What `KeptInMemory` keeps by default: the maps of 17 Mpx."""

LARGEST_FLOAT16 = 65504.0


class MapStore(Protocol):
    """Keeps maps by name; may forget them at any time, but never gives others than it was given."""

    def load(self, name: str) -> Sequence[Map] | None:
        """What was saved under `name`, or None."""
        ...

    def save(self, name: str, maps: Sequence[Map]) -> None:
        """Keep maps; one that cannot, does nothing."""
        ...


class KeptInMemory:
    """A store of at most so many bytes; what was asked for least recently goes first."""

    def __init__(self, limit_bytes: int = MEMORY_BYTES) -> None:
        self._limit = limit_bytes
        self._kept: OrderedDict[str, Sequence[Map]] = OrderedDict()
        self._bytes, self._changing = 0, Lock()

    def load(self, name: str) -> Sequence[Map] | None:
        with self._changing:
            if name in self._kept:
                self._kept.move_to_end(name)
            return self._kept.get(name)

    def save(self, name: str, maps: Sequence[Map]) -> None:
        with self._changing:
            self._bytes += _size(maps) - _size(self._kept.pop(name, ()))
            self._kept[name] = maps
            # The newest stays, however large: its neighbouring windows are asked for next.
            while self._bytes > self._limit and len(self._kept) > 1:
                self._bytes -= _size(self._kept.popitem(last=False)[1])


class KeepsNothing:
    """The store of somebody who sees each image once."""

    def load(self, name: str) -> None:
        return None

    def save(self, name: str, maps: Sequence[Map]) -> None:
        return None


def _size(maps: Sequence[Map]) -> int:
    return sum(found.nbytes for found in maps)


@dataclass(frozen=True)
class _Seen:
    """The tile that was asked for last: neighbouring windows ask for it again."""

    image: NDArray[Any]
    tile: Tile
    maps: Sequence[Map]


class FeatureMaps:
    """Cuts windows out of the maps of images that are standardised alike.

    Parameters
    ----------
    statistics : PixelStatistics
        Of the model that asks; the encoder sees standardised values.
    store : MapStore, optional
        Where maps are kept; without one, those of a few images in memory.
    device : torch.device, optional
        Where the encoder computes.
    compiles_for : int, optional
        Compile the encoder for so many threads when the first image comes that the store does not know. Torch
        goes on where that cannot be done: whoever answers with the model says so.
    """

    def __init__(
        self,
        statistics: PixelStatistics,
        store: MapStore | None = None,
        device: torch.device | None = None,
        compiles_for: int | None = None,
    ) -> None:
        self.statistics = statistics
        self._store = store or KeptInMemory()
        self._device = device or torch.device("cpu")
        self._graph: Graph | None = None
        self._compiles_for, self._compiling = compiles_for, Lock()
        self._colours = torch.from_numpy(colours_of(statistics.n_channels))
        self._seen: _Seen | None = None

    def compile_encoder(self, n_threads: int | None = None) -> None:
        """Run the encoder as a compiled graph from now on; raises `DeviceError`."""
        self._graph = _compile_encoder(n_threads)

    def window(self, image: NDArray[Any], window: Slices) -> list[Map]:
        """The maps of a part of an image `(H, W, C)`; the part begins on multiples of the stride.

        Returns
        -------
        list of (width, h, w) float16
            Each covers the window, whose end is rounded up to the stride.
        """
        parts = [tile for tile in _tiles_of(image) if all(map(_overlap, tile.core, window))]
        if len(parts) == 1:
            return _cut(self._maps_of(image, parts[0]), parts[0], window)
        assembled: list[Map] | None = None
        for tile in parts:
            inside = _intersection(tile.core, window)
            pieces = _cut(self._maps_of(image, tile), tile, inside)
            if assembled is None:
                assembled = [_empty(p, stride, window) for p, stride in zip(pieces, STRIDES, strict=True)]
            for whole, piece, stride in zip(assembled, pieces, STRIDES, strict=True):
                top, left = ((i.start - w.start) // stride for i, w in zip(inside, window, strict=True))
                whole[:, top : top + piece.shape[1], left : left + piece.shape[2]] = piece
        if assembled is None:
            raise ValueError(f"the window {window} is not in an image of {image.shape}")
        return assembled

    def _maps_of(self, image: NDArray[Any], tile: Tile) -> Sequence[Map]:
        """The maps of the core of a tile: from memory, the store, or the encoder."""
        seen = self._seen
        # By identity: comparing pixels would cost as much as naming them.
        if seen is not None and seen.image is image and seen.tile == tile:
            return seen.maps
        pixels = np.ascontiguousarray(image[tile.read])
        name = self._name(pixels, tile)
        maps = self._store.load(name)
        if maps is None:
            maps = self._compute(pixels, tile)
            self._store.save(name, maps)
        self._seen = _Seen(image, tile, maps)
        return maps

    def _compute(self, pixels: NDArray[Any], tile: Tile) -> list[Map]:
        self._compile_once()
        encoder = self._graph or _encoder_on(self._device)
        batch = to_batch(pixels, self.statistics, STRIDE)
        with torch.inference_mode():
            maps = encoder(_show(batch.to(self._device), self._colours.to(self._device)))
            cores = [
                _part(whole[0], tile.core_in_read, stride)
                for whole, stride in zip(maps, STRIDES, strict=True)
            ]
            # Beyond it float16 is infinite, and one infinity spoils every sum that reads it.
            largest = LARGEST_FLOAT16
            return [core.clamp(-largest, largest).half().cpu().contiguous().numpy() for core in cores]

    @property
    def serves_threads(self) -> bool:
        """Whether threads gain by asking at once: a graph serves one while another one reads its maps."""
        return self._graph is not None or self._compiles_for is not None

    def _compile_once(self) -> None:
        with self._compiling:
            if self._compiles_for is None:
                return
            with suppress(DeviceError):
                self.compile_encoder(self._compiles_for)
            self._compiles_for = None

    def _name(self, pixels: NDArray[Any], tile: Tile) -> str:
        """Hexadecimal digest of all that the maps depend on."""
        # By content and not by task: an image that changed at its address gets maps of its own.
        digest = hashlib.blake2b(pixels.tobytes(), digest_size=16)
        facts = (
            encoder_digest(),
            self.statistics.of(pixels.dtype),
            pixels.shape,
            pixels.dtype.str,
            tile.core_in_read,
        )
        digest.update(repr(facts).encode())
        return digest.hexdigest()


def _show(batch: Tensor, colours: Tensor) -> Tensor:
    """`(N, C, H, W)` standardised channels to the three that the encoder reads; colours stay as they are."""
    if batch.shape[1] == IN_CHANNELS:
        return batch
    return torch.einsum("nchw,kc->nkhw", batch, colours).contiguous(memory_format=torch.channels_last)


@lru_cache(maxsize=1)
def follow_encoder() -> Any:
    """The encoder as OpenVINO's model, made once; raises `DeviceError`."""
    return follow(load_encoder(), IN_CHANNELS)


@lru_cache(maxsize=1)
def _compile_encoder(n_threads: int | None) -> Graph:
    return compile_followed(follow_encoder(), n_threads)


def _encoder_on(device: torch.device) -> Encoder:
    encoder = load_encoder()
    if next(encoder.parameters()).device != device:
        encoder.to(device)
    return encoder


def _tiles_of(image: NDArray[Any]) -> list[Tile]:
    return list(cut_tiles((image.shape[0], image.shape[1]), MARGIN_PX, STRIDE, TILE_PX))


def _overlap(one: slice, other: slice) -> bool:
    return bool(one.start < other.stop and other.start < one.stop)


def _intersection(one: Slices, other: Slices) -> Slices:
    rows, columns = (
        slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(one, other, strict=True)
    )
    return rows, columns


def _part(found: Any, part: Slices, stride: int) -> Any:
    """What a map, an array or a tensor, has of a part of the image."""
    rows, columns = _scaled(part, stride)
    return found[:, rows, columns]


def _scaled(part: Slices, stride: int) -> Slices:
    """Rows and columns of a map that cover a part, whose end is rounded up to cells of the deepest map."""
    rows, columns = (slice(p.start // stride, math.ceil(p.stop / STRIDE) * STRIDE // stride) for p in part)
    return rows, columns


def _cut(maps: Sequence[Map], tile: Tile, window: Slices) -> list[Map]:
    """What the maps of a tile's core have of a window that lies in it."""
    rows, columns = (
        slice(w.start - core.start, min(w.stop, core.stop) - core.start)
        for w, core in zip(window, tile.core, strict=True)
    )
    return [_part(found, (rows, columns), stride) for found, stride in zip(maps, STRIDES, strict=True)]


def _empty(piece: Map, stride: int, window: Slices) -> Map:
    height, width = (math.ceil((w.stop - w.start) / STRIDE) * STRIDE // stride for w in window)
    return np.zeros((piece.shape[0], height, width), np.float16)
