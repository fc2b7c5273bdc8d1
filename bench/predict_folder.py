"""How fast a folder of images is predicted and written, beside the same network called plainly in torch.

Every so many-th image, network and overlays take their turn right after it: what else the machine does, and
how warm it is, then matter to all ways alike.
"""

from __future__ import annotations

import resource
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import cv2
import numpy as np
import psutil
import torch
from PIL import Image

from bench import BenchmarkResult, Figures, Goal, Options
from core.network.batch import to_batch
from core.network.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from core.network.device import TORCH
from core.network.inference import infer_logits, load_network
from core.network.pixels import PixelStatistics
from core.network.predict import FLIPS, sample_logits
from core.network.unet import DEFAULT_WIDTHS, build_architecture, initial_weights, stride_of
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


NETWORK, FILES, OVERLAYS = "network alone, 4 looks", "label maps, instances and table", "and overlays"
QUARTERS = 4


@dataclass
class Way:
    """One way of answering for an image, and what it took; the first image of each is not counted."""

    name: str
    answer: Callable[[int], None]
    images: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0

    def step(self, number: int) -> None:
        began, began_cpu = time.perf_counter(), time.process_time()
        self.answer(number)
        self.wall_s += time.perf_counter() - began
        self.cpu_s += time.process_time() - began_cpu
        self.images += 1

    def forget(self) -> None:
        self.images, self.wall_s, self.cpu_s = 0, 0.0, 0.0

    @property
    def images_per_s(self) -> float:
        return self.images / self.wall_s

    @property
    def images_per_cpu_s(self) -> float:
        return self.images / self.cpu_s


@dataclass(frozen=True)
class Memory:
    """Of the process after so many images: what it holds, and the most that it ever held."""

    images: int
    resident_mb: float
    peak_mb: float


@dataclass
class Course:
    """Memory on the way through all images."""

    n_images: int
    stages: list[Memory] = field(default_factory=list)

    def look(self, n_done: int) -> None:
        """Remember the memory once it has settled, and after each quarter."""
        wanted = {max(round(SETTLED * self.n_images), 2)}
        wanted |= {self.n_images * quarter // QUARTERS for quarter in range(1, QUARTERS + 1)}
        if n_done in wanted:
            peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
            resident_mb = psutil.Process().memory_info().rss / 1e6
            # The kernel counts the peak in batches, some pages behind.
            self.stages.append(Memory(n_done, resident_mb, max(peak_mb, resident_mb)))

    @property
    def growth_mb(self) -> float:
        return self.stages[-1].peak_mb - self.stages[0].peak_mb


@click.command()
@click.option("--images", type=click.IntRange(10), default=2000, show_default=True)
@click.option("--size", type=click.IntRange(64), default=512, show_default=True, help="Side in pixels.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option(
    "--beside",
    type=click.IntRange(1),
    default=10,
    show_default=True,
    help="Every so many-th image, all ways.",
)
@click.option(
    "--widths",
    default=",".join(map(str, DEFAULT_WIDTHS)),
    show_default=True,
    help="Of the network's levels; narrow ones show what memory does in less time.",
)
def arguments(**given: Any) -> dict[str, Any]:
    """Read this benchmark's own options."""
    return given


def run(options: Options) -> BenchmarkResult:
    given = arguments.main(list(options.arguments), prog_name="predict_folder", standalone_mode=False)
    if not isinstance(given, dict):
        raise SystemExit(0)
    with TemporaryDirectory() as place:
        folder, model = Path(place) / "images", make_model(Path(place), read_widths(given["widths"]))
        draw_folder(folder, given["images"], given["size"])
        plain = Way(NETWORK, _ask_plainly(model, folder, given["threads"]))
        files, overlays = (
            Way(name, _predict(folder, Path(place) / f"out{drawn}", model, drawn, given["threads"]))
            for name, drawn in ((FILES, False), (OVERLAYS, True))
        )
        course = Course(given["images"])
        go_through(files, (plain, overlays), course, given["beside"])
    return report((plain, files, overlays), course, given)


def go_through(files: Way, beside: Sequence[Way], course: Course, every: int) -> None:
    """All images one way, every so many-th the others too; the first one loads and compiles: not counted."""
    for number in range(course.n_images):
        files.step(number)
        for other in beside if number % every == 0 else ():
            other.step(number)
        if number == 0:
            for way in (files, *beside):
                way.forget()
        course.look(number + 1)


def read_widths(listed: str) -> tuple[int, ...]:
    """Channels per level of the network.

    >>> read_widths("2,4")
    (2, 4)
    """
    try:
        return tuple(int(width) for width in listed.split(","))
    except ValueError:
        raise click.BadParameter(f"{listed!r}: whole numbers with commas between, as 32,64,128") from None


def make_model(folder: Path, widths: tuple[int, ...] = DEFAULT_WIDTHS) -> Path:
    """What is bright is a nucleus, so there are objects to measure."""
    architecture = build_architecture(1, 2, widths)
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


def _ask_plainly(model: Path, folder: Path, n_threads: int) -> Callable[[int], None]:
    """Nothing but the network's passes: no tiles, no reading, no objects, no files."""
    checkpoint = load_checkpoint(model)
    network, stride = load_network(checkpoint), stride_of(checkpoint.architecture)
    batches = [
        to_batch(np.asarray(Image.open(path))[..., None], checkpoint.statistics, stride)
        for path in sorted(folder.iterdir())[:N_DRAWN]
    ]

    def answer(number: int) -> None:
        with torch_threads(n_threads):
            sample_logits(
                lambda batch: infer_logits(network, batch), batches[number % len(batches)], len(FLIPS)
            )

    return answer


def _predict(folder: Path, out: Path, model: Path, overlays: bool, n_threads: int) -> Callable[[int], None]:
    """What the command does with one image after another."""
    limits = ImageLimits(10**8, 10**8)
    work = Work(folder, out, model, Wanted(overlays=overlays), limits, engine=TORCH, n_threads=n_threads)
    looker, images = Looker(work), name_results(find_files(folder), folder)

    def answer(number: int) -> None:
        path, name = images[number]
        outcome = looker.look(path, name)
        if outcome.problem is not None or outcome.was_done:
            raise RuntimeError(f"{path.name}: {outcome.problem or 'was done already'}")

    return answer


def report(ways: Sequence[Way], course: Course, given: dict[str, Any]) -> BenchmarkResult:
    plain, files, _ = ways
    share = files.images_per_cpu_s / plain.images_per_cpu_s
    return BenchmarkResult(
        f"{given['images']} images of {given['size']} px, one process of {given['threads']} threads",
        ("way", "images", "images/s", "images per CPU second", "share of the network alone"),
        tuple(
            (
                way.name,
                way.images,
                way.images_per_s,
                way.images_per_cpu_s,
                way.images_per_cpu_s / plain.images_per_cpu_s,
            )
            for way in ways
        ),
        {
            "arguments": given,
            "ways": [
                {"name": way.name, "images": way.images, "wall_s": way.wall_s, "cpu_s": way.cpu_s}
                for way in ways
            ],
            "memory": [asdict(stage) for stage in course.stages],
        },
        (
            Goal(
                f"share of the network alone, files written >= {WANTED_SHARE}: {share:.2f}",
                share >= WANTED_SHARE,
            ),
            Goal(
                f"memory grows by < {MOST_GROWTH_MB:.0f} MB: {course.growth_mb:.0f}",
                course.growth_mb < MOST_GROWTH_MB,
            ),
        ),
        ("CPU seconds count, so that other programs on the machine matter little.",),
        (
            Figures(
                "Memory of the process [MB]",
                ("after images", "resident", "peak so far"),
                tuple((stage.images, stage.resident_mb, stage.peak_mb) for stage in course.stages),
            ),
        ),
    )
