"""How fast a folder of images is predicted and written, beside the same network called plainly in torch."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import cv2
import numpy as np
import psutil
import torch
from PIL import Image

from bench import BenchmarkResult, Goal, Options
from core.network.batch import to_batch
from core.network.checkpoint import Checkpoint, save_checkpoint
from core.network.inference import infer_logits, load_network
from core.network.pixels import PixelStatistics
from core.network.predict import FLIPS, sample_logits
from core.network.unet import build_architecture, initial_weights, stride_of
from core.schema import LabelSchema
from core.synthetic import make_image
from core.threads import torch_threads
from ml_backend.command.found_files import find_files
from ml_backend.command.predict_folder import Looker, Wanted, Work, name_results
from ml_backend.label_studio.image_frame import ImageLimits

TAKES_ARGUMENTS = True

N_DRAWN = 8
"""Images that are different; the folder holds copies of them."""

WANTED_SHARE = 0.8
MOST_GROWTH_MB = 100.0
SETTLED = 0.1
"""Share of the images after which memory should grow no more."""


@dataclass(frozen=True)
class Run:
    """One way through all images."""

    name: str
    images_per_s: float
    images_per_cpu_s: float
    growth_mb: float


@click.command()
@click.option("--images", type=click.IntRange(10), default=2000, show_default=True)
@click.option("--size", type=click.IntRange(64), default=512, show_default=True, help="Side in pixels.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
def arguments(**given: int) -> dict[str, int]:
    """Read this benchmark's own options."""
    return given


def run(options: Options) -> BenchmarkResult:
    given = arguments.main(list(options.arguments), prog_name="predict_folder", standalone_mode=False)
    if not isinstance(given, dict):
        raise SystemExit(0)
    with TemporaryDirectory() as place:
        folder, model = Path(place) / "images", make_model(Path(place))
        draw_folder(folder, given["images"], given["size"])
        plain = measure(
            "network alone, 4 looks", _ask_plainly(model, folder, given["threads"]), given["images"]
        )
        runs = [plain]
        for overlays in (False, True):
            out = Path(place) / f"out{overlays}"
            name = f"brushloop predict, {'with' if overlays else 'without'} overlays"
            work = Work(
                folder, out, model, Wanted(overlays=overlays), ImageLimits(10**8, 10**8),
                engine="torch", n_threads=given["threads"],
            )  # fmt: skip
            runs.append(measure(name, _predict(work), given["images"]))
            shutil.rmtree(out)
    return report(runs, given)


def make_model(folder: Path) -> Path:
    """The shipped network's size; what is bright is a nucleus, so there are objects to measure."""
    architecture = build_architecture(1, 2)
    weights = initial_weights(architecture, np.random.default_rng(0))
    for name in ("unfold.weight", "unfold.bias", "detail.weight"):
        weights[name] = torch.zeros_like(weights[name])
    weights["detail.weight"][0, 0, 1, 1] = 1
    weights["head.weight"][1, 0], weights["head.bias"][1] = 10, -5
    schema = LabelSchema.of("Background", "Nucleus")
    checkpoint = Checkpoint(schema, architecture, weights, PixelStatistics((60.0,), (50.0,)))
    return save_checkpoint(checkpoint, folder / "r0001-0a1b2c3d")


def draw_folder(folder: Path, n_images: int, side_px: int) -> None:
    folder.mkdir()
    for number in range(n_images):
        path = folder / f"{number:05d}.png"
        if number < N_DRAWN:
            image, _ = make_image("fluorescence", np.random.default_rng(number), (side_px, side_px))
            cv2.imwrite(str(path), image)
        else:
            shutil.copyfile(folder / f"{number % N_DRAWN:05d}.png", path)


def _ask_plainly(model: Path, folder: Path, n_threads: int) -> Iterator[None]:
    """Nothing but the network's passes: no tiles, no reading, no objects, no files."""
    from core.network.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(model)
    network, stride = load_network(checkpoint), stride_of(checkpoint.architecture)
    batches = [
        to_batch(np.asarray(Image.open(path))[..., None], checkpoint.statistics, stride)
        for path in sorted(folder.iterdir())[:N_DRAWN]
    ]
    n_images = len(list(folder.iterdir()))
    with torch_threads(n_threads):
        for number in range(n_images):
            sample_logits(lambda batch: infer_logits(network, batch), batches[number % N_DRAWN], len(FLIPS))
            yield


def _predict(work: Work) -> Iterator[None]:
    looker = Looker(work)
    for path, name in name_results(find_files(work.folder), work.folder):
        outcome = looker.look(path, name)
        if outcome.problem is not None:
            raise RuntimeError(f"{path.name}: {outcome.problem}")
        yield


def measure(name: str, steps: Iterator[None], n_images: int) -> Run:
    """Go through all images; the first one, which loads and compiles, is not timed."""
    process = psutil.Process()
    next(steps)
    began, began_cpu = time.perf_counter(), time.process_time()
    settled = highest = 0
    for number, _ in enumerate(steps, 2):
        resident = process.memory_info().rss
        highest = max(highest, resident)
        if number <= max(SETTLED * n_images, 2):
            settled = highest
    wall_s, cpu_s = time.perf_counter() - began, time.process_time() - began_cpu
    return Run(name, (n_images - 1) / wall_s, (n_images - 1) / cpu_s, (highest - settled) / 1e6)


def report(runs: list[Run], given: dict[str, int]) -> BenchmarkResult:
    plain, files, _ = runs
    share = files.images_per_cpu_s / plain.images_per_cpu_s
    growth = max(run.growth_mb for run in runs)
    return BenchmarkResult(
        f"{given['images']} images of {given['size']} px, one process of {given['threads']} threads",
        ("way", "images/s", "images per CPU second", "share of the network alone", "memory growth [MB]"),
        tuple(
            (
                run.name,
                run.images_per_s,
                run.images_per_cpu_s,
                run.images_per_cpu_s / plain.images_per_cpu_s,
                run.growth_mb,
            )
            for run in runs
        ),
        {"arguments": given, "runs": [vars(run) for run in runs]},
        (
            Goal(
                f"share of the network alone, files written >= {WANTED_SHARE}: {share:.2f}",
                share >= WANTED_SHARE,
            ),
            Goal(f"memory grows by < {MOST_GROWTH_MB:.0f} MB: {growth:.0f}", growth < MOST_GROWTH_MB),
        ),
        ("CPU seconds count, so that other programs on the machine matter little.",),
    )
