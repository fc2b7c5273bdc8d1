"""A model as one plain record: weights and everything needed to use them, in a folder of two files.

`weights.safetensors` holds the tensors, `checkpoint.json` the rest with the weights' sha256. No pickle:
loading a file somebody else wrote can run nothing.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from core.errors import BrushloopError, CheckpointError
from core.network.mixture import Share, network_weight
from core.network.outputs import Weights
from core.network.pixels import NumberRange, PixelStatistics
from core.network.quick import check_learners
from core.network.regular_files import OF_THE_PROCESS, read_regular
from core.network.unet import PLAIN, build_network, copy_weights
from core.objects.measure import ObjectLimits
from core.schema import LabelSchema

WEIGHTS_FILE, RECORD_FILE = "weights.safetensors", "checkpoint.json"

FORMAT = 5
"""Raised when an older reader could not understand a newer record."""

OF_PLAIN_NETWORK, WITHOUT_LEARNERS, WITHOUT_JUDGED, WITHOUT_TUNED = 1, 2, 3, 4
"""Formats of before: with a network that answers and is trained no more; without learners beside it; with one
copy of them, which never saw the hold-out; without an encoder that learnt."""

LEARNER, JUDGED = "learner", "judged"
"""Name prefixes of tensors of learners beside the network: `learner.NAME.TENSOR`, `judged.NAME.TENSOR`."""


@dataclass(frozen=True)
class Checkpoint:
    """Weights and what is needed to use them.

    Attributes
    ----------
    architecture : what `core.network.unet.build_network` builds, as plain JSON values
    temperature : divisor of the network's logits, from the hold-out
    learners : tensors of the quick learners, by name
    judged : tensors of the copies of learners that never saw the hold-out, for those that did see it
    shares : what the quick learners count; the rest is the network's
    mixture_temperature : divisor of the logarithms of what all say together
    limits : object sizes per class, in the order of the schema
    is_draft : made from too little truth for a hold-out; nothing checked it
    taught : names of the classes of which pixels were seen, by this model or those it goes back to; None in
        records that do not say so, which stands for all of the schema
    parent : fingerprint of the weights that training started from, or None
    seed : of the round that made it
    """

    schema: LabelSchema
    architecture: Mapping[str, Any]
    weights: Weights
    statistics: PixelStatistics
    temperature: float = 1.0
    limits: tuple[ObjectLimits, ...] = ()
    is_draft: bool = False
    parent: str | None = None
    seed: int = 0
    taught: tuple[str, ...] | None = None
    learners: Mapping[str, Weights] = field(default_factory=dict)
    shares: Mapping[str, Share] = field(default_factory=dict)
    mixture_temperature: float = 1.0
    judged: Mapping[str, Weights] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.architecture["n_classes"] != len(self.schema):
            raise ValueError(f"{self.architecture['n_classes']} outputs for {len(self.schema)} classes")
        if self.architecture["in_channels"] != self.statistics.n_channels:
            raise ValueError(f"{self.architecture['in_channels']} inputs, statistics of {self.statistics}")
        if not self.limits:
            object.__setattr__(self, "limits", (ObjectLimits(),) * len(self.schema))
        if len(self.limits) != len(self.schema):
            raise ValueError(f"{len(self.limits)} object limits for {len(self.schema)} classes")
        if set(self.shares) != set(self.learners):
            raise ValueError(f"shares of {sorted(self.shares)} for the learners {sorted(self.learners)}")
        if not set(self.judged) <= set(self.learners):
            raise ValueError(f"copies of {sorted(self.judged)} for the learners {sorted(self.learners)}")

    @property
    def fingerprint(self) -> str:
        """Hexadecimal sha256 of the weights; its first digits name the model version."""
        return hashlib.sha256(_weight_bytes(self)).hexdigest()

    @property
    def network_weight(self) -> float:
        """What the network counts in an answer, 0..1."""
        return network_weight(self.shares)

    @property
    def as_judged(self) -> Checkpoint:
        """The same model with the learners that never saw the hold-out."""
        return replace(self, learners={**self.learners, **self.judged}, judged={}) if self.judged else self

    @property
    def counting(self) -> dict[str, Weights]:
        """The learners beside the network that count in an answer."""
        return {name: own for name, own in self.learners.items() if self.shares[name].weight}


def save_checkpoint(checkpoint: Checkpoint, folder: Path) -> Path:
    """Write a checkpoint; the folder appears with everything in it or not at all.

    Raises
    ------
    CheckpointError
        The folder holds other weights already: a published version never changes.
    """
    if folder.exists():
        if load_checkpoint(folder).fingerprint != checkpoint.fingerprint:
            raise CheckpointError(f"{folder.name} holds other weights already; versions never change")
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        weights = _weight_bytes(checkpoint)
        record = {**_to_record(checkpoint), "weights_sha256": hashlib.sha256(weights).hexdigest()}
        (unfinished / WEIGHTS_FILE).write_bytes(weights)
        (unfinished / RECORD_FILE).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        unfinished.chmod(0o755)  # mkdtemp hides its folder from other users; web and worker may be two
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read what `save_checkpoint` wrote.

    Raises
    ------
    CheckpointError
        A file is missing or damaged, or weights and record do not fit each other.
    OSError
        This process can open no file at all just now.
    """
    try:
        record = json.loads(read_regular(folder / RECORD_FILE).decode())
        raw = read_regular(folder / WEIGHTS_FILE)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in OF_THE_PROCESS:
            raise
        raise CheckpointError(f"cannot read the checkpoint {folder.name}: {error}") from error
    _check_format(record, folder.name)
    if hashlib.sha256(raw).hexdigest() != record.get("weights_sha256"):
        raise CheckpointError(f"the weights of {folder.name} are not the ones of its record")
    try:
        checkpoint = _from_record(record, load(raw))
        build_network(checkpoint.architecture).load_state_dict(checkpoint.weights)
        for learners in (checkpoint.learners, checkpoint.judged):
            check_learners(learners, len(checkpoint.schema))
    except (BrushloopError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"the checkpoint {folder.name} does not fit together: {error}") from error
    return checkpoint


def _check_format(record: Any, name: str) -> None:
    found = record.get("format") if isinstance(record, dict) else None
    if isinstance(found, int) and found > FORMAT:
        raise CheckpointError(
            f"{name} is of format {found}, which a newer Brushloop writes: install that one"
        )
    if found not in (OF_PLAIN_NETWORK, WITHOUT_LEARNERS, WITHOUT_JUDGED, WITHOUT_TUNED, FORMAT):
        raise CheckpointError(f"the record of {name} is not of format {FORMAT}")


def _read_architecture(record: Mapping[str, Any]) -> Mapping[str, Any]:
    architecture: Mapping[str, Any] = record["architecture"]
    return {**architecture, "kind": PLAIN} if record["format"] == OF_PLAIN_NETWORK else architecture


def _weight_bytes(checkpoint: Checkpoint) -> bytes:
    """The safetensors file of a checkpoint; the same weights always give the same bytes."""
    tensors = dict(checkpoint.weights)
    for prefix, learners in ((LEARNER, checkpoint.learners), (JUDGED, checkpoint.judged)):
        for learner, own in learners.items():
            tensors |= {f"{prefix}.{learner}.{name}": tensor for name, tensor in own.items()}
    return bytes(save(copy_weights(dict(sorted(tensors.items())))))


def _split_learners(
    tensors: Mapping[str, torch.Tensor],
) -> tuple[Weights, dict[str, Weights], dict[str, Weights]]:
    """The network's weights, and the tensors of each learner beside it and of each judged copy."""
    weights: Weights = {}
    learners: dict[str, dict[str, Weights]] = {LEARNER: {}, JUDGED: {}}
    for path, tensor in tensors.items():
        prefix, _, rest = path.partition(".")
        if prefix in learners:
            learner, name = rest.split(".", 1)
            learners[prefix].setdefault(learner, {})[name] = tensor
        else:
            weights[path] = tensor
    return weights, learners[LEARNER], learners[JUDGED]


def _to_record(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "schema": checkpoint.schema.to_records(),
        "architecture": dict(checkpoint.architecture),
        "statistics": asdict(checkpoint.statistics),
        "temperature": checkpoint.temperature,
        "limits": [limit.to_record() for limit in checkpoint.limits],
        "is_draft": checkpoint.is_draft,
        "parent": checkpoint.parent,
        "seed": checkpoint.seed,
        "taught": None if checkpoint.taught is None else list(checkpoint.taught),
        "mixture_temperature": checkpoint.mixture_temperature,
        "shares": {name: share.to_record() for name, share in checkpoint.shares.items()},
    }


def _from_record(record: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> Checkpoint:
    taught = record.get("taught")
    weights, learners, judged = _split_learners(tensors)
    return Checkpoint(
        schema=LabelSchema.from_records(record["schema"]),
        architecture=_read_architecture(record),
        weights=weights,
        statistics=_read_statistics(record["statistics"]),
        temperature=float(record["temperature"]),
        limits=tuple(ObjectLimits.from_record(limit) for limit in record["limits"]),
        is_draft=bool(record["is_draft"]),
        parent=record["parent"],
        seed=int(record["seed"]),
        taught=None if taught is None else tuple(taught),
        learners=learners,
        judged=judged,
        mixture_temperature=float(record.get("mixture_temperature", 1.0)),
        shares={name: Share(**share) for name, share in record.get("shares", {}).items()},
    )


def _read_statistics(record: Mapping[str, Any]) -> PixelStatistics:
    """Records from before ranges were kept have none."""
    ranges = (NumberRange(r["kind"], tuple(r["low"]), tuple(r["span"])) for r in record.get("ranges", ()))
    return PixelStatistics(tuple(record["mean"]), tuple(record["std"]), tuple(ranges))
