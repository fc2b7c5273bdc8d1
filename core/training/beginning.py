"""What a round starts from: the current model where that is right, else the base weights or fresh ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core.errors import CheckpointError
from core.network.base_weights import base_for, fits_base
from core.network.checkpoint import Checkpoint
from core.network.outputs import Weights
from core.network.pixels import NumberRange, PixelStatistics, measure_pixels, measure_ranges
from core.network.pixels import conform_channels as conform_image
from core.network.timm_network import KIND, build_timm_architecture
from core.network.unet import (
    DEFAULT_WIDTHS,
    PLAIN,
    build_architecture,
    conform_channels,
    conform_classes,
    initial_weights,
    widen_channels,
)
from core.schema import LabelSchema
from core.training.round_report import Origin
from core.training.sampling import OpenExample


@dataclass(frozen=True)
class Beginning:
    """The state that optimisation starts from; `base` are the base weights behind it, if there are any."""

    origin: Origin
    architecture: dict[str, Any]
    weights: Weights
    statistics: PixelStatistics
    parent: str | None
    base: Weights | None = None


def choose_start(current: Checkpoint | None, is_draft: bool) -> Checkpoint | None:
    """Return the model to go on from, or None to start over.

    A draft learnt from everything, also from what is now held out. The first round with a hold-out must
    not start from it, or the hold-out would check a model that has seen it. A model whose network was
    never taught has nothing to go on from either: its other learners start from nothing in every round. One
    of the first format has a network that is not trained any more.
    """
    if current is not None and (current.taught == () or current.architecture["kind"] == PLAIN):
        return None
    if current is not None and current.is_draft and not is_draft:
        return None
    return current


def begin(
    start: Checkpoint | None,
    schema: LabelSchema,
    examples: Sequence[OpenExample],
    rng: np.random.Generator,
    widths: Sequence[int] = DEFAULT_WIDTHS,
    encoder: str = "",
    base: Path | None = None,
) -> Beginning:
    """Prepare the weights for the classes and channels of this round.

    `widths` or an `encoder` of timm's are for a network that starts over; one that goes on stays what it is.
    The folder `base` holds other base weights than the shipped ones, for both.
    """
    n_channels = max(opened.example.image.shape[2] for opened in examples)
    if start is None:
        if encoder:
            architecture = build_timm_architecture(encoder, n_channels, len(schema))
        else:
            architecture = build_architecture(n_channels, len(schema), widths)
        statistics = measure(examples, n_channels)
        weights = _find_base(architecture, schema, base)
        if weights is not None:
            return Beginning("base", architecture, weights, statistics, None, weights)
        return Beginning("fresh", architecture, initial_weights(architecture, rng), statistics, None)
    # An image that brings more channels widens the input: no image loses one.
    in_channels = max(start.architecture["in_channels"], n_channels)
    architecture = {**start.architecture, "in_channels": in_channels, "n_classes": len(schema)}
    # Matched by name: a class that moved in the labeling setup keeps what was learnt of it.
    weights = conform_classes(start.weights, start.schema.names, schema.names)
    weights = widen_channels(weights, in_channels)
    statistics = meet(start.statistics, examples, in_channels)
    try:
        behind = _find_base(architecture, schema, base)
    except CheckpointError:
        behind = None  # a round that goes on needs no base weights, so damaged ones do not stop it
    return Beginning("warm", architecture, weights, statistics, start.fingerprint, behind)


def _find_base(architecture: dict[str, Any], schema: LabelSchema, folder: Path | None) -> Weights | None:
    """The base weights for a network, those in `folder` first; None where no base was made for such a one."""
    if folder is not None and not fits_base(architecture, folder):
        folder = None  # made for another network, before an update perhaps
    if not fits_base(architecture, folder):
        return None
    return conform_channels(base_for(schema, folder), architecture["in_channels"])


FEW_OBJECTS = 15
"""Up to so many painted objects the largest share of the base weights is kept."""


def keep_of_base(beginning: Beginning, weights: Weights, n_objects: int, largest_share: float) -> Weights:
    """Go a part of the way back to the base weights that a project started from.

    A few painted objects represent the unpainted images badly; the base weights generalise better. Weights
    between both answer unseen images better than either, and the more objects there are the
    less of the base is needed. Later rounds do the same: questions lead to places that are unlike the rest,
    and what is painted there must not drown it. Weights without a base behind them stay as they are.

    Parameters
    ----------
    beginning : Beginning
    weights : Weights
        After optimisation.
    n_objects : int
        Painted objects that were trained on.
    largest_share : float
        Of the base, in 0..1, up to `FEW_OBJECTS` objects; it falls with the root of their number.

    References: Wortsman et al. 2022, "Robust fine-tuning of zero-shot models",
    https://arxiv.org/abs/2109.01903
    """
    base = beginning.base
    if base is None or not largest_share:
        return weights
    if beginning.architecture["kind"] == KIND:
        return weights  # only its encoder has learnt anything before
    share = largest_share * math.sqrt(FEW_OBJECTS / max(n_objects, FEW_OBJECTS))
    return {name: torch.lerp(tensor, base[name], share) for name, tensor in weights.items()}


def measure(
    examples: Sequence[OpenExample], n_channels: int, ranges: tuple[NumberRange, ...] | None = None
) -> PixelStatistics:
    """Statistics of the annotated pixels of the opened images, from their candidate positions.

    `ranges` are those of the images where they are not known already.
    """
    samples = []
    for opened in examples:
        for positions in opened.by_class.values():
            pixels = opened.example.image[positions[:, 0], positions[:, 1]]  # (n, C)
            samples.append(conform_image(pixels[:, None], n_channels)[:, 0])
    if ranges is None:
        ranges = measure_ranges((opened.example.image for opened in examples), n_channels)
    return measure_pixels(samples, n_channels, ranges)


def meet(statistics: PixelStatistics, examples: Sequence[OpenExample], n_channels: int) -> PixelStatistics:
    """The statistics of a model that goes on: number types and channels that are new to it are measured.

    What it knows stays, or its weights would no longer fit. Those of a grey model are repeated for colour.
    """
    statistics = _add_types(statistics, examples)
    if statistics.n_channels == n_channels:
        return statistics
    if statistics.n_channels == 1:
        ranges = tuple(
            NumberRange(r.kind, r.low * n_channels, r.span * n_channels) for r in statistics.ranges
        )
        return PixelStatistics(statistics.mean * n_channels, statistics.std * n_channels, ranges)
    wide = measure_ranges((opened.example.image for opened in examples), n_channels)
    ranges = tuple(_extend(r, wide) for r in statistics.ranges)
    added, n_known = measure(examples, n_channels, ranges), statistics.n_channels
    return PixelStatistics(
        statistics.mean + added.mean[n_known:], statistics.std + added.std[n_known:], ranges
    )


def _add_types(statistics: PixelStatistics, examples: Sequence[OpenExample]) -> PixelStatistics:
    seen = measure_ranges((opened.example.image for opened in examples), statistics.n_channels)
    if not statistics.ranges:
        # Models from before ranges were kept have seen all types in one unit: the largest numbers made it.
        seen = tuple(sorted(seen, key=lambda r: -max(r.span)))
    known = {r.kind for r in statistics.ranges}
    return replace(statistics, ranges=statistics.ranges + tuple(r for r in seen if r.kind not in known))


def _extend(narrow: NumberRange, wide: Sequence[NumberRange]) -> NumberRange:
    """Add the channels that `wide` has; a type without an image in this round repeats its last one."""
    n_known, n_channels = len(narrow.low), len(wide[0].low) if wide else len(narrow.low)
    more = n_channels - n_known
    widened = next((r for r in wide if r.kind == narrow.kind), None)
    if widened is None:
        return NumberRange(
            narrow.kind, narrow.low + narrow.low[-1:] * more, narrow.span + narrow.span[-1:] * more
        )
    return NumberRange(narrow.kind, narrow.low + widened.low[n_known:], narrow.span + widened.span[n_known:])
