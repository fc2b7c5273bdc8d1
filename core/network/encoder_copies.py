"""One encoder where it is needed: on each device, and as a compiled graph; made when first asked for."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from threading import Lock
from typing import Any

import torch

from core.network.encoder import IN_CHANNELS, Encoder, encoder_digest, load_encoder
from core.network.graphs import Graph, compile_followed, follow


class EncoderCopies:
    """Copies of one encoder.

    Parameters
    ----------
    load : callable
        Gives the encoder, on the processor.
    name : callable
        Gives what tells its maps from those of other weights, for stores that keep them.
    """

    def __init__(self, load: Callable[[], Encoder], name: Callable[[], str]) -> None:
        self._load, self.name = load, name
        self._on: dict[torch.device, Encoder] = {}
        self._graphs: dict[int | None, Graph] = {}
        self._followed: Any = None
        self._making = Lock()

    def on(self, device: torch.device) -> Encoder:
        """A copy for each device: the one on the processor may be shared, and stays there."""
        with self._making:
            if device not in self._on:
                encoder = self._load()
                self._on[device] = encoder if device.type == "cpu" else deepcopy(encoder).to(device)
            return self._on[device]

    def follow(self) -> Any:
        """OpenVINO's model of it, not compiled; raises `DeviceError`."""
        with self._making:
            if self._followed is None:
                self._followed = follow(self._load(), IN_CHANNELS)
            return self._followed

    def compile(self, n_threads: int | None) -> Graph:
        """It as a compiled graph for so many threads; raises `DeviceError`."""
        followed = self.follow()
        with self._making:
            if n_threads not in self._graphs:
                self._graphs[n_threads] = compile_followed(followed, n_threads)
            return self._graphs[n_threads]


SHIPPED = EncoderCopies(load_encoder, encoder_digest)
"""The pretrained encoder, for the whole process."""
