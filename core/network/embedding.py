"""What an image looks like to the network: one short vector, taken on the way to a prediction.

It is the mean over the image of the features at the encoder's deepest level. Weighting them by how unsure the
model is was tried: two takes of one scene then have less similar vectors, because few pixels decide.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

MAX_LENGTH = 128
"""Numbers in a vector. Brushloop's own encoder has as many channels; those of a wider one are added up in
turn, which keeps most of what is alike alike."""


class EmbeddingMean:
    """Adds up one image's features, tile by tile.

    Examples
    --------
    >>> seen = EmbeddingMean()
    >>> seen.add(torch.tensor([[[[3.0, 9.0]], [[4.0, 9.0]]]]), (slice(0, 8), slice(0, 8)), 16)
    >>> [round(float(number), 2) for number in seen.embedding()]
    [0.6, 0.8]
    """

    def __init__(self) -> None:
        self._total: Tensor | None = None

    def add(self, deepest: Tensor, core: tuple[slice, slice], width_px: int) -> None:
        """Add one tile.

        Parameters
        ----------
        deepest : (1, D, h, w) tensor
            Of a batch that is `width_px` wide.
        core : slices
            Rows and columns of the batch that the tile answers for; the rest belongs to its neighbours.
        """
        step = width_px // deepest.shape[-1]
        rows, columns = (slice(part.start // step, -(-part.stop // step)) for part in core)
        total = deepest[0, :, rows, columns].sum(dim=(1, 2), dtype=torch.float32).cpu()
        self._total = total if self._total is None else self._total + total

    def embedding(self) -> NDArray[np.float16]:
        """Return the vector `(D,)`, at most `MAX_LENGTH` long and of length 1; zeros if nothing was seen."""
        if self._total is None:
            raise ValueError("no tile was added")
        length = min(len(self._total), MAX_LENGTH)
        # The sum has the direction of the mean.
        folded = F.pad(self._total, (0, -len(self._total) % length)).reshape(-1, length).sum(0)
        unit = F.normalize(torch.nan_to_num(folded, posinf=0.0, neginf=0.0), dim=0)
        return np.asarray(unit.numpy(), np.float16)
