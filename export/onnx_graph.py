"""A whole model as one ONNX graph: raw pixels in, probabilities out, with every learner that counts.

Brushloop does not answer from this graph; it is for programs that use a model without Brushloop. It gives
what `Predictor.predict` gives, but

- images are read whole, so memory grows with them: with a forest by 600 bytes a pixel and channel. Cut larger
  ones into tiles that begin at multiples of 32, with 128 pixels around them.
- the encoder reads images beyond 1024 pixels in pieces elsewhere, which differ a little near their seams.
- where a pixel's feature meets the threshold of a tree but for rounding, that tree may vote otherwise.

Outlines, which keep touching objects apart, and the steps after probabilities are not part of the graph.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from core.learners.forest import Forest
from core.learners.forest_map import COUNTS_LITTLE, STEP
from core.learners.tensor_features import features_of_pixels
from core.learners.tensor_forest import between_neighbours
from core.network.batch import fill_up
from core.network.checkpoint import Checkpoint
from core.network.encoder import STRIDE, Encoder, colours_of, load_encoder
from core.network.feature_maps import LARGEST_FLOAT16
from core.network.head import Head
from core.network.inference import load_network
from core.network.mixture import FOREST, HEAD, NETWORK, TUNED, calibrated, sharpen
from core.network.predict import sample_logits
from core.network.quick import forest_logits
from core.network.timm_network import KIND as TIMM
from core.network.tuned import Tuned
from core.network.unet import stride_of
from export.errors import ExportError, import_extra

IMAGE, PROBABILITIES = "image", "probabilities"
"""Names of the graph's input and output."""

OPSET = 17
EXAMPLE_PX = (72, 88)
"""Height and width of the image that the graph is followed on; it then takes any."""


class WholeModel(nn.Module):
    """`(1, C, H, W)` float32 pixel values as they are in the file to `(1, n_classes, H, W)` probabilities.

    Parameters
    ----------
    checkpoint : Checkpoint
        `C` is `checkpoint.statistics.n_channels`, and the classes are in the order of its schema.
    kind : str
        numpy's name of the number type of the images: each has a standard of its own.
    n_looks : 1 to 4
        Mirrored samples of the network, averaged; `brushloop predict` and the service take 4.
    """

    mean: Tensor
    std: Tensor
    colours: Tensor

    def __init__(self, checkpoint: Checkpoint, kind: str = "uint8", n_looks: int = 1) -> None:
        super().__init__()
        own = checkpoint.statistics.of(np.dtype(kind))
        self.register_buffer("mean", torch.tensor(own.mean)[None, :, None, None])
        self.register_buffer("std", torch.tensor(own.std)[None, :, None, None])
        self.stride = stride_of(checkpoint.architecture)
        self.temperature = checkpoint.temperature
        self.mixture_temperature = checkpoint.mixture_temperature
        self.n_looks = n_looks
        self.weights = weights_of(checkpoint)
        self.shares = checkpoint.shares
        if NETWORK in self.weights:
            self.network = load_network(checkpoint)
        self.register_buffer("colours", torch.from_numpy(colours_of(own.n_channels)))
        if HEAD in self.weights:
            self.encoder = load_encoder()
            self.head = Head.from_tensors(checkpoint.learners[HEAD])
        if TUNED in self.weights:
            tuned = Tuned.from_tensors(checkpoint.learners[TUNED])
            self.tuned_encoder, self.tuned_head = tuned.build_encoder(), tuned.head
        if FOREST in self.weights:
            self.forest = Forest.from_tensors(checkpoint.learners[FOREST])
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor) -> Tensor:
        values = (image - self.mean) / self.std
        own = [weight * self._ask(name, values) for name, weight in self.weights.items()]
        return sharpen(torch.stack(own).sum(0), self.mixture_temperature)[None]

    def _ask(self, name: str, values: Tensor) -> Tensor:
        """`(n_classes, H, W)` calibrated probabilities of one learner."""
        if name == NETWORK:
            return torch.softmax(self._ask_network(values) / self.temperature, dim=1).mean(0)
        if name == HEAD:
            logits = self._ask_head(values, self.encoder, self.head)
        elif name == TUNED:
            logits = self._ask_head(values, self.tuned_encoder, self.tuned_head)
        else:
            logits = self._ask_forest(values)
        return calibrated(logits, self.shares[name].temperature, axis=0)

    def _ask_network(self, values: Tensor) -> Tensor:
        logits = sample_logits(self.network, fill_up(values, self.stride), self.n_looks)
        return logits[:, :-1, : values.shape[2], : values.shape[3]]

    def _ask_head(self, values: Tensor, encoder: Encoder, head: Head) -> Tensor:
        seen = torch.einsum("nchw,kc->nkhw", fill_up(values, STRIDE), self.colours)
        # Elsewhere the maps are kept with half the digits.
        largest = LARGEST_FLOAT16
        maps = [found[0].clamp(-largest, largest).half().float() for found in encoder(seen)]
        return head.logits_of_maps(maps)[:, : values.shape[2], : values.shape[3]]

    def _ask_forest(self, values: Tensor) -> Tensor:
        features, shape = features_of_pixels(values), values.shape[2:]
        if self.shares[FOREST].weight <= COUNTS_LITTLE:
            return forest_logits(between_neighbours(self._vote(features[:, ::STEP, ::STEP]), shape)[0])
        everywhere = self._vote(features)
        mean, settled = between_neighbours(everywhere[:, ::STEP, ::STEP], shape)
        return forest_logits(torch.where(settled, mean, everywhere))

    def _vote(self, features: Tensor) -> Tensor:
        votes: Tensor = _Votes.apply(features.flatten(1).T, self.forest)  # type: ignore[no-untyped-call]
        return votes.T.reshape(self.forest.n_classes, *features.shape[1:])


def weights_of(checkpoint: Checkpoint) -> dict[str, float]:
    """The learners that count in an answer, and how much; the weights sum to 1."""
    weights = {NETWORK: checkpoint.network_weight}
    weights |= {name: share.weight for name, share in checkpoint.shares.items()}
    return {name: weight for name, weight in weights.items() if weight}


def write_onnx(checkpoint: Checkpoint, path: Path, kind: str = "uint8", n_looks: int = 1) -> None:
    """Write the graph of a model, as `WholeModel` describes it.

    Input `IMAGE` is `(1, C, height, width)` float32, output `PROBABILITIES` `(1, n_classes, height, width)`
    float32; height and width may be any. The file needs the operators of `ai.onnx` and, for a forest, of
    `ai.onnx.ml`.

    Raises
    ------
    ExportError
        The package `onnx` is not installed, or the network is one of timm's.
    """
    import_extra("onnx", "export")
    if checkpoint.architecture["kind"] == TIMM and checkpoint.network_weight:
        raise ExportError("networks of timm cannot be written as ONNX: some of them fix the size of images")
    example = torch.zeros(1, checkpoint.statistics.n_channels, *EXAMPLE_PX)
    sizes = {2: "height", 3: "width"}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch advises its newer way, which cannot hold the trees
        torch.onnx.export(
            WholeModel(checkpoint, kind, n_looks),
            (example,),
            path,
            dynamo=False,
            opset_version=OPSET,
            input_names=[IMAGE],
            output_names=[PROBABILITIES],
            dynamic_axes={IMAGE: sizes, PROBABILITIES: sizes},
        )


class _Votes(torch.autograd.Function):
    """What a forest says of rows of features: compiled loops here, a `TreeEnsembleRegressor` in a graph."""

    @staticmethod
    def forward(_context: Any, rows: Tensor, forest: Forest) -> Tensor:
        return torch.from_numpy(forest.probabilities(np.ascontiguousarray(rows.numpy())))

    @staticmethod
    def symbolic(graph: Any, rows: Any, forest: Forest) -> Any:
        sums = graph.op("ai.onnx.ml::TreeEnsembleRegressor", rows, **describe_trees(forest))
        n_trees = graph.op("Constant", value_t=torch.tensor(float(len(forest.roots))))
        votes = graph.op("Div", sums, n_trees)
        return votes.setType(rows.type().with_sizes([None, forest.n_classes]))


def describe_trees(forest: Forest) -> Mapping[str, Any]:
    """The attributes of a `TreeEnsembleRegressor` that gives the sums of the trees' class shares."""
    n = len(forest.child)
    own = np.arange(n)
    is_leaf = forest.child == own
    tree = np.searchsorted(forest.roots, own, side="right") - 1
    number = own - forest.roots[tree]
    left = np.where(is_leaf, 0, forest.child - forest.roots[tree])
    leaves = np.flatnonzero(is_leaf)
    classes = np.arange(forest.n_classes)
    return {
        "n_targets_i": forest.n_classes,
        "nodes_treeids_i": tree.tolist(),
        "nodes_nodeids_i": number.tolist(),
        "nodes_featureids_i": forest.feature.tolist(),
        "nodes_values_f": np.where(is_leaf, 0, forest.threshold).tolist(),
        "nodes_modes_s": ["LEAF" if leaf else "BRANCH_LEQ" for leaf in is_leaf],
        "nodes_truenodeids_i": left.tolist(),
        "nodes_falsenodeids_i": np.where(is_leaf, 0, left + 1).tolist(),
        "target_treeids_i": np.repeat(tree[leaves], len(classes)).tolist(),
        "target_nodeids_i": np.repeat(number[leaves], len(classes)).tolist(),
        "target_ids_i": np.tile(classes, len(leaves)).tolist(),
        "target_weights_f": forest.shares[forest.leaf[leaves]].ravel().tolist(),
    }
