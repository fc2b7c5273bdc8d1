"""What base weights say of painted pixels before any round has taught them: they never saw one of these.

Of few strokes nothing is held out, what is held out lies in images that the network saw the rest of, and no
fold has the time to train one. Where its base weights find what was painted by themselves, the network that a
round makes of them knows it at least as well, and in a draft, which has no time to teach a network, they
answer beside the quick learners as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from core.network.batch import to_batch
from core.network.device import EXACT
from core.network.inference import infer_logits
from core.network.unet import build_network, stride_of
from core.tiles import Slices
from core.training.beginning import Beginning
from core.training.folds import HeldBack
from core.training.painted_pixels import Painted
from core.training.sampling import OpenExample

TILE_PX, CONTEXT_PX = 128, 32
"""Side of the parts of an image that are asked, and what they see around themselves."""

MOST_TILES = 16
"""Parts that are asked: .08 s on two cores."""


def ask_base(
    beginning: Beginning, examples: Sequence[OpenExample], held_back: HeldBack | None, *, is_taught: bool
) -> NDArray[np.float32] | None:
    """Logits `(n, C)` of the base weights at the pixels that were held back from the quick learners.

    NaN where there are too many parts to ask. None where a round has no base weights behind it, nothing was
    held back, or a network that is not taught now (`is_taught`) is not the base any more.
    """
    if beginning.base is None or held_back is None or not (is_taught or beginning.origin == "base"):
        return None
    painted = held_back.painted
    network = build_network(beginning.architecture)
    network.load_state_dict(beginning.base)
    network.requires_grad_(False).eval()
    stride, n_classes = stride_of(beginning.architecture), beginning.architecture["n_classes"]
    logits = np.full((len(painted), n_classes), np.nan, np.float32)
    for n_asked, (index, own, window) in enumerate(_cut(painted, examples)):
        if n_asked == MOST_TILES:
            break
        batch = to_batch(examples[index].example.image[window], beginning.statistics, stride)
        said = infer_logits(network, batch, EXACT)[0, :-1].numpy()
        rows, columns = (painted.at[own] - [part.start for part in window]).T
        logits[own] = said[:, rows, columns].T
    return logits


def _cut(painted: Painted, examples: Sequence[OpenExample]) -> Iterator[tuple[int, NDArray[np.intp], Slices]]:
    """An image, the pixels of one of its tiles, and the window around that; first one tile of each image."""
    tiles = np.column_stack([painted.image, painted.at // TILE_PX])
    found, of_pixel = np.unique(tiles, axis=0, return_inverse=True)
    turn = np.arange(len(found)) - np.searchsorted(found[:, 0], found[:, 0])  # among those of its image
    for number in np.argsort(turn, kind="stable"):
        index, row, column = (int(value) for value in found[number])
        height, width = examples[index].example.image.shape[:2]
        window = (_around(row, height), _around(column, width))
        yield index, np.flatnonzero(of_pixel.ravel() == number), window


def _around(tile: int, length: int) -> slice:
    first, last = tile * TILE_PX - CONTEXT_PX, (tile + 1) * TILE_PX + CONTEXT_PX
    return slice(max(first, 0), min(last, length))
