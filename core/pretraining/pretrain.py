"""Make base weights: what a project's first round starts from, learnt from drawn images alone.

::

    python -m core.pretraining.pretrain FOLDER [--steps 3200] [--seed 0] [--threads 1]

The network learns to tell things from what is around them, whatever both look like, and to see the line
where things meet. No photograph is involved: neither anybody's data nor a benchmark's.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from core.network.base_weights import CARD_FILE, OBJECT_ROWS, WEIGHTS_FILE
from core.network.device import choose_compute
from core.network.outputs import Weights
from core.network.unet import build_architecture, build_network, copy_weights, initial_weights
from core.pretraining.looks import Image, draw_scene
from core.threads import torch_threads
from core.training.outlines import rims_of

SIZE_PX = 128
BATCH = 12
PEAK_RATE = 2e-3
RAMP_STEPS = 200
EMA = 0.998
OUTLINE_SHARE = 0.5
"""Weight of the second task, the outlines, against the first."""


@dataclass(frozen=True)
class Pretrained:
    """Smoothed weights of a network with `OBJECT_ROWS` classes, and the loss per 100 steps."""

    weights: Weights
    losses: tuple[float, ...]


def pretrain(
    seed: int, n_steps: int, on_losses: Callable[[int, float], object] = lambda step, loss: None
) -> Pretrained:
    """Train for `n_steps`; the same seed on the same machine gives the same weights."""
    architecture = build_architecture(3, OBJECT_ROWS)
    network = build_network(architecture)
    network.load_state_dict(initial_weights(architecture, np.random.default_rng(seed)))
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=1e-4, fused=True)
    smoothed = copy_weights(network.state_dict())
    losses: list[float] = []
    scenes = batches(np.random.default_rng(seed + 1))
    for step, (images, things, outlines) in zip(range(n_steps), scenes, strict=False):
        fall = (1 + math.cos(math.pi * step / n_steps)) / 2
        for group in optimizer.param_groups:
            group["lr"] = PEAK_RATE * min(1.0, (step + 1) / RAMP_STEPS) * fall
        with choose_compute().autocast():
            logits = network(images)
        loss = loss_of(logits.float(), things, outlines)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
        decay = min(EMA, (1 + len(losses)) / (10 + len(losses)))
        for name, tensor in network.state_dict().items():
            smoothed[name].lerp_(tensor.detach(), 1 - decay)
        if len(losses) % 100 == 0:
            on_losses(len(losses), float(np.mean(losses[-100:])))
    means = tuple(round(float(np.mean(losses[i : i + 100])), 4) for i in range(0, len(losses), 100))
    return Pretrained(smoothed, means)


def batches(rng: np.random.Generator, size: int = BATCH) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Endless batches: images `(N, 3, s, s)`, things `(N, s, s)` int64, outlines `(N, s, s)` float."""
    while True:
        scenes = [draw_scene(rng, SIZE_PX) for _ in range(size)]
        images = np.stack([standardise_scene(scene.image, rng) for scene in scenes]).transpose(0, 3, 1, 2)
        things = np.stack([scene.instances > 0 for scene in scenes]).astype(np.int64)
        outlines = np.stack([rims_of(scene.instances) for scene in scenes]).astype(np.float32)
        yield (
            torch.from_numpy(images).contiguous(memory_format=torch.channels_last),
            torch.from_numpy(things),
            torch.from_numpy(outlines),
        )


def standardise_scene(image: Image, rng: np.random.Generator) -> Image:
    """Mean 0 and deviation 1, then as far off as one image of a project is from the project's own."""
    # One deviation for all colours, as `core.network.pixels.measure_pixels` has it.
    spread = image.std((0, 1)).max() + 0.02
    values = (image - image.mean((0, 1))) / spread * np.exp(rng.normal(0, 0.3)) + rng.normal(0, 0.25, 3)
    return np.asarray(values, np.float32)


def loss_of(logits: Tensor, things: Tensor, outlines: Tensor) -> Tensor:
    """Cross-entropy of the things plus a share of the outlines' own."""
    objects = F.cross_entropy(logits[:, :OBJECT_ROWS], things)
    outline = F.binary_cross_entropy_with_logits(logits[:, OBJECT_ROWS], outlines)
    return objects + OUTLINE_SHARE * outline


def main() -> None:
    """Pretrain and write the folder that `core.network.base_weights` reads."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=3200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    with torch_threads(options.threads):
        made = pretrain(
            options.seed,
            options.steps,
            lambda step, loss: sys.stderr.write(f"{step} {loss:.4f}\n"),
        )
    options.folder.mkdir(parents=True, exist_ok=True)
    save_file(made.weights, options.folder / WEIGHTS_FILE)
    card = {
        **build_architecture(3, OBJECT_ROWS),
        "made_from": "images drawn by core.pretraining.looks; no photographs",
        "command": f"python -m core.pretraining.pretrain FOLDER --steps {options.steps} --seed {options.seed}"
        f" --threads {options.threads}",
        "batch": BATCH,
        "patch_px": SIZE_PX,
        "loss_per_100_steps": made.losses,
    }
    (options.folder / CARD_FILE).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
