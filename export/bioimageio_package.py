"""A model as a BioImage.IO package: one ZIP of graph, description, card, and an example with its answer.

Fiji (deepImageJ), ilastik, QuPath, napari and bioimageio.core run such packages. The description follows
version 0.5 of https://github.com/bioimage-io/spec-bioimage-io, which `bioimageio.spec` validates.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.network.checkpoint import Checkpoint
from core.schema import LabelSchema
from export.atomic_files import written_whole
from export.colours import colour_of
from export.onnx_check import Agreement, draw_images, export_onnx, first_kind, open_onnx
from export.onnx_graph import IMAGE, OPSET, PROBABILITIES

FORMAT_VERSION = "0.5.4"

GRAPH, CARD, DESCRIPTION, COVER = "model.onnx", "README.md", "rdf.yaml", "cover.png"
TEST_INPUT, TEST_OUTPUT = "test_input.npy", "test_output.npy"

HALO_PX = 64
"""What programs that cut an image into tiles leave out of each one's edge; what is farther hardly counts."""
SMALLEST_PX = 2 * HALO_PX + 32
EXAMPLE_PX = (192, 224)

CITED = (
    {"text": "Ronneberger et al. 2015, U-Net", "doi": "10.1007/978-3-319-24574-4_28"},
    {"text": "Geurts et al. 2006, Extremely randomized trees", "doi": "10.1007/s10994-006-6226-1"},
    {"text": "Tan & Le 2019, EfficientNet", "url": "https://arxiv.org/abs/1905.11946"},
)
"""What the learners are."""


@dataclass(frozen=True)
class About:
    """What people say of a model.

    Attributes
    ----------
    name : 5 to 128 letters, digits, spaces and `_+-()`
    authors : at least one name
    licence : SPDX identifier, or None
    card : Markdown
    """

    name: str
    authors: tuple[str, ...]
    licence: str | None
    card: str


def write_package(
    checkpoint: Checkpoint, path: Path, about: About, kind: str | None = None, n_looks: int = 1
) -> tuple[Agreement, ...]:
    """Write the package; arguments, answer and errors are those of `export.onnx_check.export_onnx`."""
    kind = kind or first_kind(checkpoint.statistics)
    with TemporaryDirectory() as folder, written_whole(path) as scratch:
        graph = Path(folder) / GRAPH
        agreements = export_onnx(checkpoint, graph, kind, n_looks)
        files = {GRAPH: graph.read_bytes(), CARD: about.card.encode()}
        [example] = draw_images(checkpoint.statistics, kind, [EXAMPLE_PX])
        answer = open_onnx(graph)(example)
        files[TEST_INPUT] = _to_npy(example.transpose(2, 0, 1)[None])
        files[TEST_OUTPUT] = _to_npy(answer[None])
        files[COVER] = _draw_cover(example, answer)
        files[DESCRIPTION] = json.dumps(describe(checkpoint.schema, example, about, files), indent=1).encode()
        with zipfile.ZipFile(scratch, "w", zipfile.ZIP_DEFLATED) as package:
            for name, content in files.items():
                package.writestr(name, content)
    return agreements


def describe(
    schema: LabelSchema, example: NDArray[Any], about: About, files: Mapping[str, bytes]
) -> dict[str, Any]:
    """The description of the package; JSON is YAML too."""
    sizes = {"y": {"min": SMALLEST_PX, "step": 1}, "x": {"min": SMALLEST_PX, "step": 1}}
    channels = [f"channel{number}" for number in range(example.shape[2])]
    space = [{"type": "space", "id": axis, "size": size} for axis, size in sizes.items()]
    same = [
        {"type": "space", "id": axis, "size": {"tensor_id": IMAGE, "axis_id": axis}, "halo": HALO_PX}
        for axis in sizes
    ]
    return {
        "type": "model",
        "format_version": FORMAT_VERSION,
        "name": about.name,
        "description": f"Classes of pixels: {', '.join(schema.names)}. Trained from partial labels.",
        "timestamp": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "authors": [{"name": name} for name in about.authors],
        "cite": list(CITED),
        "tags": ["segmentation", "semantic-segmentation", "active-learning", "brushloop"],
        "documentation": {"source": CARD, "sha256": _sha256(files[CARD])},
        "covers": [COVER],
        **({"license": about.licence} if about.licence else {}),
        "inputs": [
            {
                "id": IMAGE,
                "description": "pixel values as the file has them; standardisation is part of the graph",
                "axes": [_BATCH, {"type": "channel", "channel_names": channels}, *space],
                "data": {"type": example.dtype.name},
                "preprocessing": [{"id": "ensure_dtype", "kwargs": {"dtype": "float32"}}],
                "test_tensor": {"source": TEST_INPUT, "sha256": _sha256(files[TEST_INPUT])},
            }
        ],
        "outputs": [
            {
                "id": PROBABILITIES,
                "description": "calibrated probabilities of the classes",
                "axes": [_BATCH, {"type": "channel", "channel_names": _identifiers(schema.names)}, *same],
                "data": {"type": "float32", "range": [0, 1]},
                "test_tensor": {"source": TEST_OUTPUT, "sha256": _sha256(files[TEST_OUTPUT])},
            }
        ],
        "weights": {"onnx": {"source": GRAPH, "sha256": _sha256(files[GRAPH]), "opset_version": OPSET}},
    }


_BATCH = {"type": "batch", "size": 1}


def _identifiers(names: Sequence[str]) -> list[str]:
    """The specification wants names of channels that could be Python's: others become `class_NUMBER`."""
    plain = [name if name.isidentifier() and name.isascii() else f"class_{i}" for i, name in enumerate(names)]
    return plain if len(set(plain)) == len(plain) else [f"class_{i}" for i in range(len(names))]


def _to_npy(array: NDArray[Any]) -> bytes:
    np.save(buffer := io.BytesIO(), np.ascontiguousarray(array))
    return buffer.getvalue()


def _draw_cover(example: NDArray[Any], answer: NDArray[np.float32]) -> bytes:
    """The example beside its classes, both as pictures."""
    grey = example.mean(2)
    grey = 255 * (grey - grey.min()) / max(float(np.ptp(grey)), 1.0)
    colours = np.array([colour_of(index) for index in range(len(answer))], np.uint8)
    both = np.concatenate([np.repeat(grey[..., None], 3, 2).astype(np.uint8), colours[answer.argmax(0)]], 1)
    Image.fromarray(both).save(buffer := io.BytesIO(), "PNG")
    return buffer.getvalue()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
