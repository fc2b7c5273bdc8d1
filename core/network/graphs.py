"""Networks as compiled graphs for the processor, where OpenVINO is installed: the same numbers in less time.

A graph fuses layers that are bound by memory one by one: the encoder takes less than half of torch's time.
What needs no gradients comes from graphs: answers, and the encoder's maps, also of images to learn from.
`openvino.convert_model` would do the same, but it counts its uses on a server.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from core.errors import DeviceError
from core.network.outputs import Network

EXAMPLE_PX = 64
"""Side of the image that a network is followed on; it then takes any multiples of its stride."""


class Graph:
    """A compiled network: `(1, C, H, W)` float32 to its outputs, for any number of threads at once."""

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._idle: list[Any] = []

    def __call__(self, batch: Tensor) -> list[Tensor]:
        """Raises RuntimeError where the batch is not of the network's channels and stride."""
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        try:
            request.infer([batch.contiguous().numpy()])
            outputs = [request.get_output_tensor(i).data for i in range(len(self._compiled.outputs))]
            return [torch.from_numpy(output.copy()) for output in outputs]  # the next request writes there
        finally:
            self._idle.append(request)


def compile_graph(module: nn.Module, in_channels: int, n_threads: int | None = None) -> Graph:
    """Compile a network that answers with a tensor or several, in float32 on the processor.

    `n_threads` is for all requests together; None leaves the choice to OpenVINO.

    Raises
    ------
    DeviceError
        OpenVINO is not there, or cannot compile this network.
    """
    return compile_followed(follow(module, in_channels), n_threads)


def follow(module: nn.Module, in_channels: int) -> Any:
    """A network as OpenVINO's model, not compiled yet: plain data, which processes that are forked share.

    Raises
    ------
    DeviceError
        OpenVINO is not there, or does not know a layer of this network.
    """
    try:
        return _follow(module, in_channels)
    except (ImportError, RuntimeError, TypeError, ValueError) as error:
        raise DeviceError(f"OpenVINO cannot read the network: {error}") from error


def compile_followed(model: Any, n_threads: int | None) -> Graph:
    """Compile what `follow` gave.

    Raises
    ------
    DeviceError
        OpenVINO cannot compile this network.
    """
    try:
        return _compile(model, n_threads)
    except (ImportError, RuntimeError, TypeError, ValueError) as error:
        raise DeviceError(f"OpenVINO cannot compile the network: {error}") from error


def _openvino() -> Any:
    """The package, without telling its makers that it was imported: that is sent from a thread of its own."""
    # Its stub stands in for what cannot be imported. Without threads a process can also be forked.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def _follow(module: nn.Module, in_channels: int) -> Any:
    openvino = _openvino()
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    example = torch.zeros(1, in_channels, EXAMPLE_PX, EXAMPLE_PX)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch advises another way, which needs a C++ compiler at run time
        traced = torch.jit.trace(module.eval(), example, check_trace=False)  # type: ignore[no-untyped-call]
        frontend = FrontEndManager().load_by_framework("pytorch")
        decoder = TorchScriptPythonDecoder(traced)  # nothing else holds it while it is read
        model = frontend.convert(frontend.load(decoder))
    model.reshape({model.inputs[0]: openvino.PartialShape([1, in_channels, -1, -1])})
    return model


def _compile(model: Any, n_threads: int | None) -> Graph:
    # Without the first one bfloat16 is used where the processor has it: the third digit differs.
    options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    if n_threads is not None:
        options["INFERENCE_NUM_THREADS"] = n_threads
    return Graph(_core().compile_model(model, "CPU", options))


class WholeNetwork(nn.Module):
    """A network with both of its answers: logits, and what its deepest level has."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Sequence[Tensor]:
        features, deepest = self.network.encode(x)
        return self.network.read(features), deepest


@lru_cache(maxsize=1)
def _core() -> Any:
    return _openvino().Core()
