"""The knobs of a round's optimisation."""

from __future__ import annotations

from dataclasses import dataclass, field

from core.network.unet import DEFAULT_WIDTHS
from core.training.augmentation import Augmentation
from core.training.sampling import Shares


@dataclass(frozen=True)
class Recipe:
    """The knobs of optimisation; the defaults are the ones that measured best.

    Attributes
    ----------
    widths : channels per level of a network that starts from fresh weights
    patch_px, batch_size : what one step sees
    peak_rate, base_rate, warm_rate : largest learning rate of AdamW from fresh weights, from base weights,
        and from a trained model whose classes stayed; with a new class it lies between base and warm
    ramp_share : share of the round in which the rate rises; it then falls along a cosine
    ema : decay of the smoothed weights, reached gradually
    outline_share : weight of the outlines' loss against that of the classes
    base_share : of the base weights that a result goes back to, while few objects are painted
    head_steps : of the head on the encoder's maps
    """

    widths: tuple[int, ...] = DEFAULT_WIDTHS
    patch_px: int = 96
    batch_size: int = 8
    peak_rate: float = 3e-3
    base_rate: float = 1e-3
    warm_rate: float = 5e-4
    weight_decay: float = 1e-2
    ramp_share: float = 0.15
    largest_gradient: float = 5.0
    ema: float = 0.98
    outline_share: float = 0.5
    base_share: float = 0.3
    head_steps: int = 150
    shares: Shares = field(default_factory=Shares)
    augmentation: Augmentation = field(default_factory=Augmentation)
