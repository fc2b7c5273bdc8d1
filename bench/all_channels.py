"""Four channels of 16 bits against the 8-bit picture that people see: Dice of two kinds of nuclei.

Both kinds look alike in three channels. A dim marker in the fourth tells them apart, and a few bright specks
lie in the same channel, as debris does: contrast stretched between percentiles leaves the marker few steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import cv2
import numpy as np
from numpy.typing import NDArray

from bench import BenchmarkResult, Goal, Options
from bench.stored_project import PROJECT_ID, MappedImages
from core.network.checkpoint import load_checkpoint
from core.network.predict import Predictor
from core.rounds import RoundSettings
from core.schema import IGNORE_INDEX, LabelSchema
from core.synthetic import make_image
from core.truth.holdout import split, summarise
from ingest.frames import frame_of
from ingest.scaling import plan_scaling
from ingest.stretch import draw_preview, plan_look
from ml_backend.rounds.round_process import train_here
from ml_backend.training import StoredExample, TrainingSpec

TAKES_ARGUMENTS = True

SCHEMA = LabelSchema.of("Background", "Marked", "Plain")
MARKED, PLAIN = 1, 2
DIM, NOISE, SPECK = 250.0, 40.0, 40_000
SPECKS_PER_IMAGE, SPECK_RADIUS_PX = 10, 4


@dataclass(frozen=True)
class Case:
    """An image `(H, W, C)` and the class of each pixel; the line between objects is not known."""

    image: NDArray[Any]
    classes: NDArray[np.uint8]


@click.command()
@click.option("--images", type=click.IntRange(2), default=8, show_default=True, help="Annotated.")
@click.option("--tests", type=click.IntRange(1), default=6, show_default=True)
@click.option("--steps", type=click.IntRange(1), default=150, show_default=True)
@click.option("--side", type=click.IntRange(64), default=256, show_default=True, help="In pixels.")
@click.option("--seed", type=int, default=0, show_default=True)
def arguments(**given: int) -> dict[str, int]:
    """Read this benchmark's own options."""
    return given


def run(options: Options) -> BenchmarkResult:
    given = arguments.main(list(options.arguments), prog_name="all_channels", standalone_mode=False)
    if not isinstance(given, dict):
        raise SystemExit(0)
    rng = np.random.default_rng(given["seed"])
    cases = [draw(rng, given["side"]) for _ in range(given["images"] + given["tests"])]
    ways = {
        "four channels of 16 bits": cases,
        "8-bit picture": [Case(to_preview(case.image), case.classes) for case in cases],
    }
    rows = []
    for name, seen in ways.items():
        with TemporaryDirectory() as place:
            rows.append((name, *learn(Path(place), seen, given)))
    return report(rows, given)


def draw(rng: np.random.Generator, side_px: int) -> Case:
    """Nuclei in three channels, half of them marked in the fourth."""
    image, instances = make_image("fluorescence", rng, (side_px, side_px))
    stain = image[:, :, 0].astype(np.float32)
    is_marked = rng.random(instances.max() + 1) < 0.5
    is_marked[0] = False
    classes = np.where(instances == 0, 0, np.where(is_marked[instances], MARKED, PLAIN)).astype(np.uint8)
    marker = cv2.GaussianBlur((classes == MARKED).astype(np.float32), (0, 0), 1.5) * DIM
    marker += 300 + rng.normal(0, NOISE, marker.shape)
    for row, column in rng.integers(0, side_px, (SPECKS_PER_IMAGE, 2)).tolist():
        cv2.circle(marker, (column, row), SPECK_RADIUS_PX, float(SPECK), -1)
    others = [stain * gain + rng.normal(0, 60, stain.shape) + 400 for gain in (60, 25, 10)]
    channels = np.clip(np.dstack([*others, marker]), 0, 65_535).astype(np.uint16)
    return Case(channels, classes)


def to_preview(image: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """What an import shows people, with its own choice of contrast and colours."""
    frame = frame_of(image)
    return draw_preview(image, plan_look(frame, plan_scaling([frame])))


def learn(folder: Path, cases: Sequence[Case], given: dict[str, int]) -> tuple[float, float, float]:
    """Train on the first images; Dice of both kinds on the others, and their mean."""
    annotated, tests = cases[: given["images"]], cases[given["images"] :]
    examples = tuple(_store(folder, number, case) for number, case in enumerate(annotated))
    settings = RoundSettings(max_steps=given["steps"], n_threads=1, seed=given["seed"])
    spec = TrainingSpec(SCHEMA, examples, None, folder / "model", settings, now=0.0)
    train_here(spec, MappedImages(), lambda done, eta_s: None, lambda: False)
    predictor = Predictor(load_checkpoint(folder / "model"), n_threads=1)
    answers = [predictor.predict(case.image).label_map for case in tests]
    marked, plain = (
        _dice([answer == kind for answer in answers], [case.classes == kind for case in tests])
        for kind in (MARKED, PLAIN)
    )
    return marked, plain, (marked + plain) / 2


def _dice(found: Sequence[NDArray[np.bool_]], wanted: Sequence[NDArray[np.bool_]]) -> float:
    common = sum(int((one & other).sum()) for one, other in zip(found, wanted, strict=True))
    return 2 * common / max(1, sum(int(mask.sum()) for mask in (*found, *wanted)))


def _store(folder: Path, task_id: int, case: Case) -> StoredExample:
    # The outermost pixels of an object belong to it half: nobody paints them alike.
    edge = cv2.morphologyEx(case.classes, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    label_map = np.where(edge, IGNORE_INDEX, case.classes).astype(np.uint8)
    train_map, held_out_map = split(label_map, SCHEMA, str(task_id))
    image_path, maps_path = folder / f"{task_id}-image.npy", folder / f"{task_id}-maps.npy"
    np.save(image_path, case.image)
    np.save(maps_path, np.stack([label_map, train_map, held_out_map]))
    summary = summarise(str(task_id), train_map, held_out_map, SCHEMA, is_new=True)
    return StoredExample(summary, maps_path, PROJECT_ID, task_id, {"image": str(image_path)})


def report(rows: list[tuple[str, float, float, float]], given: dict[str, int]) -> BenchmarkResult:
    (_, *_, deep), (_, *_, shown) = rows
    return BenchmarkResult(
        f"Dice on {given['tests']} other images after {given['images']} annotated ones",
        ("what the network reads", "marked nuclei", "plain nuclei", "mean"),
        tuple(rows),
        {"arguments": given, "dice": {name: list(values) for name, *values in rows}},
        (
            Goal(
                f"all channels are worth more than the picture: {deep:.3f} against {shown:.3f}", deep > shown
            ),
        ),
        ("Both learn from the same annotations, with the same seed and steps.",),
    )
