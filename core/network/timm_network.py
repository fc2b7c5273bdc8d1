"""The other network: an encoder of timm's with a small decoder, for people with a network and a GPU.

timm is an extra, `pip install 'brushloop[timm]'`, and imported when such a network is built. Its encoders
have hundreds of pixels of receptive field, so a tile never sees all that decides its edge: see `MARGIN_PX`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.errors import EncoderError
from core.network.outputs import DETAIL_WIDTH, Network

KIND = "timm"

MARGIN_PX = 64
"""What a tile sees around itself, at least. Less than these networks can reach, but a pixel's weight in an
answer falls off fast with its distance (Luo et al. 2016, https://arxiv.org/abs/1701.04128)."""

COARSEST_PX = 16
"""Stages with fewer features than one per so many pixels are left out: an object of a few dozen pixels is
nothing to them, and each costs half of all weights."""

DECODER_WIDTH = 64
ENCODER_CHANNELS = 3
"""Encoders are made for colours, and pretrained ones know no other number."""


def build_timm_architecture(encoder: str, in_channels: int, n_classes: int) -> dict[str, Any]:
    """Describe a network around a timm encoder as plain JSON values.

    Raises
    ------
    EncoderError
        timm is not installed, does not know the encoder, or that has no feature maps of any image size.
    """
    info = create_encoder(encoder, None).feature_info
    reductions, channels = info.reduction(), info.channels()
    stages = [i for i, reduction in enumerate(reductions) if reduction <= COARSEST_PX]
    if not stages:
        raise EncoderError(f"{encoder!r} has no features finer than one per {COARSEST_PX} pixels")
    architecture = {
        "kind": KIND,
        "in_channels": in_channels,
        "n_classes": n_classes,
        "encoder": encoder,
        "stages": stages,
        "channels": [channels[i] for i in stages],
        "reductions": [reductions[i] for i in stages],
        # Stages that are left out may still be computed on the way, and need sides that they divide.
        "stride": max(reductions),
    }
    _check(architecture)
    return architecture


def stride_of_timm(architecture: Mapping[str, Any]) -> int:
    """Pixels of the image per pixel of the encoder's deepest stage."""
    return int(architecture["stride"])


def margin_of_timm(architecture: Mapping[str, Any]) -> int:
    """`MARGIN_PX`, rounded up to the stride."""
    stride = stride_of_timm(architecture)
    return math.ceil(MARGIN_PX / stride) * stride


def create_encoder(
    name: str, stages: Sequence[int] | None, *, seed: int = 0, is_pretrained: bool = False
) -> Any:
    """Ask timm for an encoder that returns its feature maps, finest first.

    Parameters
    ----------
    name : str
        As `timm.list_models()` has it.
    stages : indices of the feature maps that are wanted, or None for all
    seed : of the first weights, which are timm's own
    is_pretrained : bool
        Whether timm shall load its published weights, which it downloads at first.

    Raises
    ------
    EncoderError
        timm is not installed, or does not have the encoder with feature maps.
    """
    try:
        import timm  # an extra, and a second to import
    except ImportError as error:
        raise EncoderError("encoders of timm need the extra: pip install 'brushloop[timm]'") from error
    selection = {} if stages is None else {"out_indices": tuple(stages)}
    try:
        with _own_chance(seed):
            return timm.create_model(name, pretrained=is_pretrained, features_only=True, **selection)
    except (RuntimeError, AttributeError, AssertionError, TypeError, ValueError) as error:
        raise EncoderError(f"timm cannot give the encoder {name!r} with feature maps: {error}") from error


def _check(architecture: Mapping[str, Any]) -> None:
    """Try an encoder once: transformers want a fixed size, and some put the channels last."""
    name, stride = architecture["encoder"], architecture["stride"]
    encoder = create_encoder(name, architecture["stages"]).eval()
    height, width = 2 * stride, 3 * stride
    try:
        with torch.no_grad():
            maps = encoder(torch.zeros(1, ENCODER_CHANNELS, height, width))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise EncoderError(f"{name!r} does not take images of any size: {error}") from error
    sizes = zip(architecture["channels"], architecture["reductions"], strict=True)
    if [tuple(found.shape) for found in maps] != [(1, c, height // r, width // r) for c, r in sizes]:
        raise EncoderError(f"{name!r} gives features of other shapes than it declares")


class TimmNetwork(Network):
    """A timm encoder, whose stages are added up from coarse to fine, and a layer at full resolution.

    The encoder always works as in evaluation: the statistics of its normalisation layers stay, because
    small batches of patches would spoil them, and nothing in it is dropped at random.

    References: Lin et al. 2017 for the sum of stages, https://arxiv.org/abs/1612.03144
    """

    initialised = ("entry", "encoder")

    def __init__(self, architecture: Mapping[str, Any], seed: int) -> None:
        super().__init__()
        in_channels = architecture["in_channels"]
        self.entry = _as_colours(in_channels)
        self.encoder = create_encoder(architecture["encoder"], architecture["stages"], seed=seed)
        self.lateral = nn.ModuleList(nn.Conv2d(c, DECODER_WIDTH, 1) for c in architecture["channels"])
        self.smooth = nn.ModuleList(
            nn.Conv2d(DECODER_WIDTH, DECODER_WIDTH, 3, padding=1) for _ in architecture["channels"]
        )
        self.unfold = nn.Conv2d(DECODER_WIDTH, DETAIL_WIDTH, 1)
        self.detail = nn.Conv2d(in_channels, DETAIL_WIDTH, 3, padding=1)
        self.add_outputs(architecture["n_classes"])

    def train(self, mode: bool = True) -> TimmNetwork:
        super().train(mode)
        self.encoder.eval()
        return self

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`(N, DETAIL_WIDTH, H, W)`, what the outputs read, and `(N, D, h, w)`, the deepest stage."""
        stages = self.encoder(self.entry(x))
        coarser: Tensor | None = None
        for stage, lateral, smooth in list(zip(stages, self.lateral, self.smooth, strict=True))[::-1]:
            here = lateral(stage)
            if coarser is not None:
                here = here + _enlarge(coarser, here)
            coarser = F.relu(smooth(here))
        assert coarser is not None, "an architecture has at least one stage"  # noqa: S101
        return F.relu(_enlarge(self.unfold(coarser), x) + self.detail(x), inplace=True), stages[-1]


def build_timm_network(architecture: Mapping[str, Any], seed: int) -> TimmNetwork:
    """Build the network that `build_timm_architecture` described; `seed` is for the encoder's weights."""
    with _own_chance(seed):
        return TimmNetwork(architecture, seed)


@contextmanager
def _own_chance(seed: int) -> Iterator[None]:
    """Layers draw first weights from torch's global generator; inside the block it is ours, for `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def _as_colours(in_channels: int) -> nn.Conv2d:
    """Colours pass as they are, grey is repeated, and the mean of other numbers of channels is."""
    entry = nn.Conv2d(in_channels, ENCODER_CHANNELS, 1)
    with torch.no_grad():
        matrix = torch.full((ENCODER_CHANNELS, in_channels), 1 / in_channels)
        if in_channels == ENCODER_CHANNELS:
            matrix = torch.eye(ENCODER_CHANNELS)
        entry.weight.copy_(matrix[:, :, None, None])
        nn.init.zeros_(entry.bias)  # type: ignore[arg-type]
    return entry


def _enlarge(values: Tensor, like: Tensor) -> Tensor:
    size = like.shape[-2:]
    return F.interpolate(values, size=size, mode="bilinear", align_corners=False)
