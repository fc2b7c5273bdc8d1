"""Where the network computes and how exactly: one choice, which training and prediction share.

Weights on disk and in reports are always on the processor; a device only ever sees copies.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.util import find_spec

import torch
from torch import Tensor

from core.errors import DeviceError

AUTO = "auto"
TORCH, OPENVINO = "torch", "openvino"
ENGINES = (AUTO, TORCH, OPENVINO)
"""What computes answers: torch, or graphs that OpenVINO compiles; `auto` takes those where it is there."""

FIRST_WITH_BFLOAT16 = (8, 0)
"""CUDA's compute capability from which on bfloat16 is multiplied in hardware; before, it is a slow format."""

FIRST_SCALE = 2.0**10
"""What losses are multiplied by in float16 at first. torch's own 2**16 overflows in the first step of our
networks, and a round is too short to waste steps; the scale goes on adapting."""


@dataclass(frozen=True)
class Compute:
    """A device, and the short numbers that its convolutions may use.

    Attributes
    ----------
    device : torch.device
    half : torch.dtype or None
        What autocast computes in; None is float32 throughout. Weights and losses are float32 either way.
    graphs : bool
        Answers, which need no gradients, come from compiled graphs in float32.
    """

    device: torch.device
    half: torch.dtype | None = None
    graphs: bool = False

    @property
    def exact(self) -> Compute:
        """The same device with float32 throughout."""
        return replace(self, half=None)

    def autocast(self) -> torch.autocast:
        """A context in which the network computes in `half`."""
        dtype = self.half or torch.bfloat16
        return torch.autocast(self.device.type, dtype, enabled=self.half is not None)

    def scaler(self) -> torch.amp.GradScaler:
        """What keeps small gradients from vanishing in float16; it changes nothing for other numbers.

        References: Micikevicius et al. 2018, https://arxiv.org/abs/1710.03740
        """
        return torch.amp.GradScaler(self.device.type, FIRST_SCALE, enabled=self.half is torch.float16)

    def place(self, batch: Tensor) -> Tensor:
        """Bring a tensor to the device; its memory format stays, and on the processor it is not copied."""
        return batch.to(self.device, non_blocking=True)


EXACT = Compute(torch.device("cpu"))
"""float32 on the processor."""


def choose_compute(name: str = "cpu", engine: str = TORCH) -> Compute:
    """Turn the name of a device into what computes there fastest.

    Parameters
    ----------
    name : str
        `auto` (the first GPU that CUDA knows, else the processor), or torch's own: `cpu`, `cuda`, `cuda:1`.
    engine : one of ENGINES
        A GPU answers with torch, whatever is chosen.

    Raises
    ------
    DeviceError
        torch does not know the name, there is no such device, or OpenVINO is chosen and not installed.

    Examples
    --------
    >>> choose_compute("cpu").device
    device(type='cpu')
    """
    if name == AUTO:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"there is no device called {name!r}; use auto, cpu, cuda or cuda:1") from error
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(f"networks run on cpu and cuda, not on {device.type!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(f"torch sees {torch.cuda.device_count()} CUDA devices, so {name!r} cannot be used")
    return Compute(device, half_of(device), _wants_graphs(device, engine))


def _wants_graphs(device: torch.device, engine: str) -> bool:
    if engine not in ENGINES:
        raise DeviceError(f"there is no engine called {engine!r}; use {', '.join(ENGINES)}")
    if device.type != "cpu" or engine == TORCH:
        return False
    if engine == OPENVINO and not can_compile():
        raise DeviceError("OpenVINO is not installed: pip install 'brushloop[fast]'")
    return can_compile()


def can_compile() -> bool:
    """Whether the package that compiles graphs is installed."""
    return find_spec("openvino") is not None


def half_of(device: torch.device) -> torch.dtype | None:
    """Return the short number format that a device is fast with, or None where float32 is as fast."""
    if device.type == "cuda":
        has_bfloat16 = torch.cuda.get_device_capability(device) >= FIRST_WITH_BFLOAT16
        return torch.bfloat16 if has_bfloat16 else torch.float16
    return torch.bfloat16 if has_fast_bfloat16() else None


def has_fast_bfloat16() -> bool:
    """Whether this processor multiplies tiles of bfloat16 (AMX).

    AVX-512's products of bfloat16 alone are slower than float32 in our narrow layers, see decision 49.
    """
    return bool(torch.cpu._is_amx_tile_supported())
