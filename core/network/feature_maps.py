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
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.errors import DeviceError
from core.network.batch import to_batch
from core.network.encoder import IN_CHANNELS, STRIDE, STRIDES, colours_of
from core.network.encoder_copies import SHIPPED, EncoderCopies
from core.network.graphs import Graph
from core.network.map_stores import KeepsNothing, KeptInMemory, MapStore
from core.network.pixels import PixelStatistics
from core.tiles import Slices, Tile, cut_tiles

TILE_PX = 1024
"""Side of what is read in one pass: most images whole; a pass takes less than 400 MB."""

MARGIN_PX = 128
"""What a pass sees around its tile. The encoder reaches farther, but a pixel's weight in an answer falls
off fast with its distance (Luo et al. 2016, https://arxiv.org/abs/1701.04128)."""

BYTES_PER_PX = 15
"""What the maps of a pixel take, about."""

LARGEST_FLOAT16 = 65504.0


SEEN_BYTES = 256_000_000
"""What may wait for the next windows of an image: the maps of two rows of tiles of one of 8,000 px."""


_TileKey = tuple[int, int, int]
"""The identity of an image, and the first row and column of a tile."""


def _key(image: NDArray[Any], tile: Tile) -> _TileKey:
    return id(image), tile.core[0].start, tile.core[1].start


class _SeenTiles:
    """The maps of the tiles that were asked for last: neighbouring windows ask for them again.

    By identity of the image: comparing pixels would cost as much as naming them.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        # With the image: while it lives, nothing else has its identity.
        self._kept: OrderedDict[_TileKey, tuple[NDArray[Any], Sequence[Tensor]]] = OrderedDict()
        self._changing = Lock()

    def get(self, image: NDArray[Any], tile: Tile) -> Sequence[Tensor] | None:
        key = _key(image, tile)
        with self._changing:
            found = self._kept.get(key)
            if found is None:
                return None
            self._kept.move_to_end(key)
            return found[1]

    def put(self, image: NDArray[Any], tile: Tile, maps: Sequence[Tensor]) -> None:
        with self._changing:
            self._kept[_key(image, tile)] = image, maps
            while len(self._kept) > 1 and sum(map(_size, self._kept.values())) > self._limit:
                self._kept.popitem(last=False)

    def forget(self, image: NDArray[Any]) -> None:
        with self._changing:
            for key in [key for key in self._kept if key[0] == id(image)]:
                del self._kept[key]


def _size(kept: tuple[NDArray[Any], Sequence[Tensor]]) -> int:
    return sum(found.nbytes for found in kept[1])


class FeatureMaps:
    """Cuts windows out of the maps of images that are standardised alike.

    Parameters
    ----------
    statistics : PixelStatistics
        Of the model that asks; the encoder sees standardised values.
    store : MapStore, optional
        Where maps are kept; without one, those of a few images in memory.
    device : torch.device, optional
        Where the encoder computes, and where windows are.
    seen_bytes : int
        Of the maps that wait for the next windows of their image until it is forgotten. The last tile always
        does, which is enough for whoever asks for one window of an image.
    compiles_for : int, optional
        Compile the encoder for so many threads when the first image comes that the store does not know. Torch
        goes on where that cannot be done: whoever answers with the model says so.
    encoder : EncoderCopies
        The shipped one by default.
    """

    def __init__(
        self,
        statistics: PixelStatistics,
        store: MapStore | None = None,
        device: torch.device | None = None,
        compiles_for: int | None = None,
        seen_bytes: int = 0,
        encoder: EncoderCopies = SHIPPED,
    ) -> None:
        self.statistics, self._encoder = statistics, encoder
        self._store = store or KeptInMemory()
        self.device = device or torch.device("cpu")
        self._graph: Graph | None = None
        self._compiles_for, self._compiling = compiles_for, Lock()
        self._colours = torch.from_numpy(colours_of(statistics.n_channels)).to(self.device)
        self._seen = _SeenTiles(seen_bytes)

    def compile_encoder(self, n_threads: int | None = None) -> None:
        """Run the encoder as a compiled graph from now on; raises `DeviceError`."""
        self._graph = self._encoder.compile(n_threads)

    def window(self, image: NDArray[Any], window: Slices) -> list[Tensor]:
        """The maps of a part of an image `(H, W, C)`; the part begins on multiples of the stride.

        Returns
        -------
        list of (width, h, w) float16 tensors on `device`, not to be written to
            Each covers the window, whose end is rounded up to the stride.
        """
        parts = [tile for tile in _tiles_of(image) if all(map(_overlap, tile.core, window))]
        if len(parts) == 1:
            return _cut(self._maps_of(image, parts[0]), parts[0], window)
        assembled: list[Tensor] | None = None
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

    def _maps_of(self, image: NDArray[Any], tile: Tile) -> Sequence[Tensor]:
        """The maps of the core of a tile: from memory, the store, or the encoder."""
        seen = self._seen.get(image, tile)
        if seen is not None:
            return seen
        pixels = np.ascontiguousarray(image[tile.read])
        maps = self._find(pixels, tile)
        self._seen.put(image, tile, maps)
        return maps

    def forget(self, image: NDArray[Any]) -> None:
        """Nobody asks for this image any more: let it and its maps go."""
        self._seen.forget(image)

    def _find(self, pixels: NDArray[Any], tile: Tile) -> Sequence[Tensor]:
        """From the store, or made anew and kept; what keeps nothing costs no name and no way to memory."""
        if isinstance(self._store, KeepsNothing):
            return self._compute(pixels, tile)
        name = self._name(pixels, tile)
        kept = self._store.load(name)
        if kept is not None:
            return [torch.from_numpy(found).to(self.device) for found in kept]
        maps = self._compute(pixels, tile)
        self._store.save(name, [found.cpu().numpy() for found in maps])
        return maps

    def _compute(self, pixels: NDArray[Any], tile: Tile) -> list[Tensor]:
        self._compile_once()
        encoder = self._graph or self._encoder.on(self.device)
        batch = to_batch(pixels, self.statistics, STRIDE, self.device)
        with torch.inference_mode():
            maps = encoder(_show(batch, self._colours))
            cores = [
                _part(whole[0], tile.core_in_read, stride)
                for whole, stride in zip(maps, STRIDES, strict=True)
            ]
            # Beyond it float16 is infinite, and one infinity spoils every sum that reads it.
            largest = LARGEST_FLOAT16
            return [core.clamp(-largest, largest).half().contiguous() for core in cores]

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
            self._encoder.name(),
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


def _tiles_of(image: NDArray[Any]) -> list[Tile]:
    return list(cut_tiles((image.shape[0], image.shape[1]), MARGIN_PX, STRIDE, TILE_PX))


def _overlap(one: slice, other: slice) -> bool:
    return bool(one.start < other.stop and other.start < one.stop)


def _intersection(one: Slices, other: Slices) -> Slices:
    rows, columns = (
        slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(one, other, strict=True)
    )
    return rows, columns


def _part(found: Tensor, part: Slices, stride: int) -> Tensor:
    """What a map has of a part of the image."""
    rows, columns = _scaled(part, stride)
    return found[:, rows, columns]


def _scaled(part: Slices, stride: int) -> Slices:
    """Rows and columns of a map that cover a part, whose end is rounded up to cells of the deepest map."""
    rows, columns = (slice(p.start // stride, math.ceil(p.stop / STRIDE) * STRIDE // stride) for p in part)
    return rows, columns


def _cut(maps: Sequence[Tensor], tile: Tile, window: Slices) -> list[Tensor]:
    """What the maps of a tile's core have of a window that lies in it."""
    rows, columns = (
        slice(w.start - core.start, min(w.stop, core.stop) - core.start)
        for w, core in zip(window, tile.core, strict=True)
    )
    return [_part(found, (rows, columns), stride) for found, stride in zip(maps, STRIDES, strict=True)]


def _empty(piece: Tensor, stride: int, window: Slices) -> Tensor:
    height, width = (math.ceil((w.stop - w.start) / STRIDE) * STRIDE // stride for w in window)
    return piece.new_zeros((piece.shape[0], height, width))
