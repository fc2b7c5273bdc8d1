"""From a piece of an image to logits: the one forward pass that prediction and held-out checks share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.network.batch import to_batch
from core.network.checkpoint import Checkpoint
from core.network.device import EXACT, Compute
from core.network.outputs import Network
from core.network.unet import build_network, stride_of


def load_network(checkpoint: Checkpoint, compute: Compute = EXACT) -> Network:
    """Build the network of a checkpoint on its device and in its precision, ready to answer."""
    network = build_network(checkpoint.architecture)
    network.load_state_dict(checkpoint.weights)
    return network.to(compute.device, compute.half or torch.float32).requires_grad_(False).eval()


def infer_logits(network: Network, batch: Tensor, compute: Compute = EXACT) -> Tensor:
    """`(N, C, H, W)` standardised float32 to `(N, n_classes + 1, H, W)` float32 logits, without a graph.

    The network is as `load_network` made it for `compute`; the logits are on the processor.
    """
    return infer_with_features(network, batch, compute)[0].cpu()


def infer_with_features(network: Network, batch: Tensor, compute: Compute = EXACT) -> tuple[Tensor, Tensor]:
    """The same, and what the encoder's deepest level has of the batch: `(N, D, h, w)`; both on the device."""
    with torch.inference_mode():
        features, deepest = network.encode(compute.place(batch).to(compute.half or batch.dtype))
        return network.read(features).float(), deepest


def infer_image(
    checkpoint: Checkpoint, network: Network, image: NDArray[Any], compute: Compute = EXACT
) -> NDArray[np.float32]:
    """`(H, W, C)` image, small enough for memory, to `(n_classes, H, W)` logits."""
    batch = to_batch(image, checkpoint.statistics, stride_of(checkpoint.architecture), compute.device)
    logits = infer_logits(network, batch, compute)[0, :-1, : image.shape[0], : image.shape[1]]
    return np.asarray(logits.numpy())
