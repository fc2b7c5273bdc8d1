"""What the samples of one tile say, computed on their device and written into the maps of the image."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.network import uncertainty
from core.network.mixture import sharpen
from core.prediction import Prediction
from core.tiles import Slices


def write_tile(maps: Prediction, core: Slices, samples: Tensor, weights: Tensor, temperature: float) -> None:
    """Write what the samples `(S, n_classes, h, w)` of one tile say into the maps of the image."""
    mean = sharpen(uncertainty.mean_of(samples, weights), temperature)
    together = mean[None]
    best = mean.topk(min(2, mean.shape[0]), dim=0)
    _write(maps.label_map, core, best.indices[0])
    _write(maps.runner_up, core, best.indices[-1])  # the class itself where there is only one
    _write(maps.confidence, core, best.values[0])
    predictive = uncertainty.predictive_entropy(together)
    _write(maps.predictive_entropy, core, predictive)
    if maps.margin.flags.writeable:
        # One sample cannot disagree with itself. Among several it is their disagreement that
        # counts, however sure they should be together.
        apart = uncertainty.mutual_information(samples, weights) if len(samples) > 1 else 0 * predictive
        apart = torch.minimum(apart, predictive)
        _write(maps.margin, core, uncertainty.margin(together))
        _write(maps.expected_entropy, core, predictive - apart)
        _write(maps.mutual_information, core, apart)
    if maps.probabilities is not None:
        maps.probabilities[:, core[0], core[1]] = mean.cpu().numpy()


def write_outline(outline: NDArray[np.float16], core: Slices, logits: Tensor) -> None:
    """Write how probable rims are, the mean over `(S, n_classes + 1, h, w)` logits."""
    _write(outline, core, torch.sigmoid(logits[:, -1]).mean(0))


_NARROW = {np.dtype(np.uint8): torch.uint8, np.dtype(np.float16): torch.float16}


def _write(whole: NDArray[Any], core: Slices, part: Tensor) -> None:
    """Made narrow where it was computed: a GPU sends one or two bytes a pixel instead of four or eight."""
    if part.device.type != "cpu":
        part = part.to(_NARROW[whole.dtype]).cpu()
    whole[core] = part.numpy()
