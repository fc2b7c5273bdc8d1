"""A head whose encoder has learnt too: slower to teach than the shipped one, and right where that is blind.

Its encoder starts as the shipped one, so what photographs taught it is there; textures that photographs do
not show come with training. A model keeps its own copy, in half precision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from core.network.encoder import Encoder, build_encoder
from core.network.encoder_copies import EncoderCopies
from core.network.head import Head
from core.network.outputs import Weights

ENCODER, HEAD = "encoder.", "head."
"""Name prefixes of its tensors."""


@dataclass(frozen=True)
class Tuned:
    """An encoder, and the head that reads its maps."""

    encoder: Weights
    head: Head

    def to_tensors(self) -> Weights:
        """What safetensors can write; the encoder in float16, 7 MB."""
        encoder = {f"{ENCODER}{name}": tensor.detach().half() for name, tensor in self.encoder.items()}
        return encoder | {f"{HEAD}{name}": tensor for name, tensor in self.head.to_tensors().items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Tuned:
        """Raises `ValueError` or `KeyError` without a head; of the encoder `build_encoder` tells."""
        encoder, head = (
            {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
            for prefix in (ENCODER, HEAD)
        )
        return cls(encoder, Head.from_tensors(head))

    def build_encoder(self) -> Encoder:
        """The encoder on the processor, ready to answer; `RuntimeError` where its tensors are not those."""
        return build_encoder(self.encoder)

    def copies(self) -> EncoderCopies:
        """The encoder for `FeatureMaps`; its maps are in no store, for they live as long as the model."""
        return EncoderCopies(self.build_encoder, _has_no_name)


def _has_no_name() -> str:
    raise ValueError("maps of an encoder that belongs to one model are not kept")
