"""How long `brushloop import` takes, how much it holds, and whether a killed run doubles anything."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import cv2
import numpy as np
import psutil
import tifffile
from numpy.typing import NDArray
from PIL import Image

from bench import BenchmarkResult, Goal, Options
from bench.fake_label_studio import API_KEY, FakeLabelStudio
from bench.fake_label_studio_app import build_app, run_app
from bench.fake_uploads import add_uploads
from bench.process_tree import peak_bytes
from core.synthetic import make_image
from ml_backend.config import Settings
from ml_backend.outside import connect
from ml_backend.storage.database import migrate
from ml_backend.storage.projects import remember_project

TAKES_ARGUMENTS = True

SIDE_PX, TILE_PX, SLIDE_TILE_PX = 256, 2048, 512
N_DRAWN = 20
"""Images that are different; files hold them shifted."""

MOST_SLIDE_BYTES = 2 << 30
LOOK_EVERY_S = 0.02
PROJECT = 1


@dataclass(frozen=True)
class Run:
    """One run of the command, and what Label Studio holds after it."""

    name: str
    wall_s: float
    cpu_s: float
    peak_mib: float
    n_tasks: int
    n_uploads: int


@click.command()
@click.option("--files", type=click.IntRange(10), default=500, show_default=True)
@click.option("--slide", type=click.IntRange(0), default=20_000, show_default=True, help="Side in pixels.")
def arguments(**given: int) -> dict[str, int]:
    """Read this benchmark's own options."""
    return given


def run(options: Options) -> BenchmarkResult:
    given = arguments.main(list(options.arguments), prog_name="import_folder", standalone_mode=False)
    if not isinstance(given, dict):
        raise SystemExit(0)
    runs: list[Run] = []
    with TemporaryDirectory() as place:
        folder = Path(place) / "files"
        n_places = write_files(folder, given["files"])
        killed_at = n_places // 2
        with Importer(Path(place) / "mixed", folder) as importer:
            runs.append(importer.run(f"{given['files']} mixed files, killed", kill_at=killed_at))
            runs.append(importer.run("the same again"))
            runs.append(importer.run("and again"))
            are_single = importer.are_single()
        with Importer(Path(place) / "whole", folder) as importer:
            runs.append(importer.run(f"{given['files']} mixed files at once"))
        if given["slide"]:
            slide = Path(place) / "slide"
            write_slide(slide, given["slide"])
            with Importer(Path(place) / "slides", slide) as importer:
                name = f"a pyramid of {given['slide']:,} px in tiles of {TILE_PX}"
                runs.append(importer.run(name, "--tile", str(TILE_PX)))
    return report(runs, n_places, are_single=are_single, given=given)


class Importer:
    """A project of a fake Label Studio, and the command that fills it, in a process of its own."""

    def __init__(self, data_dir: Path, folder: Path) -> None:
        self._folder, self._data_dir = folder, data_dir
        self.fake = FakeLabelStudio({PROJECT: SIDE_PX})
        app = build_app(self.fake)
        self.uploads = add_uploads(app, self.fake)
        self._serving = run_app(self.fake, app)

    def __enter__(self) -> Importer:
        self._url = self._serving.__enter__()
        settings = Settings(data_dir=self._data_dir, label_studio_url=self._url)
        with closing(connect(settings)) as database:
            migrate(database, self._data_dir)
            with database.write() as connection:
                remember_project(connection, PROJECT, None)
        return self

    def __exit__(self, *error: object) -> None:
        self._serving.__exit__(None, None, None)

    def run(self, name: str, *further: str, kill_at: int | None = None) -> Run:
        """Import the folder; `kill_at` so many tasks the process is killed."""
        command = [sys.executable, "-m", "ml_backend.command.cli", "import", str(self._folder)]
        told = {"LABEL_STUDIO_URL": self._url, "LABEL_STUDIO_API_KEY": API_KEY}
        began = time.perf_counter()
        process = psutil.Popen(
            [*command, "--project", str(PROJECT), "--data-dir", str(self._data_dir), *further],
            env={**os.environ, **told},
            stdout=subprocess.DEVNULL,
        )
        peak, cpu_s = 0, 0.0
        while process.poll() is None:
            peak = max(peak, peak_bytes(process.pid))
            try:
                times = process.cpu_times()
                cpu_s = times.user + times.system
            except psutil.NoSuchProcess:
                break
            if kill_at is not None and len(self.fake.tasks) >= kill_at:
                process.kill()
            time.sleep(LOOK_EVERY_S)
        process.wait()
        wall_s = time.perf_counter() - began
        return Run(name, wall_s, cpu_s, peak / (1 << 20), len(self.fake.tasks), len(self.uploads))

    def are_single(self) -> bool:
        """Whether no task and no upload is there twice."""
        keys = [task["data"]["import_key"] for task in self.fake.tasks.values()]
        return len(set(keys)) == len(keys) and len(set(self.uploads)) == len(self.uploads)


def write_files(folder: Path, n_files: int) -> int:
    """Files of all kinds, each with other pixels; returns how many tasks are in them."""
    folder.mkdir()
    drawn = [
        make_image("fluorescence", np.random.default_rng(seed), (SIDE_PX, SIDE_PX))[0][:, :, 0]
        for seed in range(N_DRAWN)
    ]
    n_places = 0
    for number in range(n_files):
        ending, n_frames, write = WRITERS[number % len(WRITERS)]
        image = np.roll(drawn[number % N_DRAWN], number, axis=0)
        write(folder / f"{number:04d}.{ending}", image)
        n_places += n_frames
    return n_places


def _write_ome(path: Path, image: NDArray[np.uint8]) -> None:
    planes = np.stack([np.stack([_deep(image), _deep(image) // 2])] * 2)
    planes[1] += 1
    tifffile.imwrite(path, planes, metadata={"axes": "ZCYX"}, photometric="minisblack", compression="zstd")


def _write_four(path: Path, image: NDArray[np.uint8]) -> None:
    planes = np.stack([_deep(image) // (n + 1) for n in range(4)])
    tifffile.imwrite(
        path, planes, metadata={"axes": "CYX"}, photometric="minisblack", compression="deflate", tile=(64, 64)
    )


def _deep(image: NDArray[np.uint8]) -> NDArray[np.uint16]:
    return image.astype(np.uint16) * 16


def _colour(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.dstack([image, np.roll(image, 3, axis=1), image // 2])


WRITERS: tuple[tuple[str, int, Callable[[Path, NDArray[np.uint8]], object]], ...] = (
    ("png", 1, lambda path, image: Image.fromarray(image).save(path)),
    ("jpg", 1, lambda path, image: Image.fromarray(_colour(image)).save(path)),
    ("png", 1, lambda path, image: cv2.imwrite(str(path), _deep(image))),
    ("tif", 1, lambda path, image: tifffile.imwrite(path, _deep(image), compression="lzw")),
    ("tif", 1, lambda path, image: tifffile.imwrite(path, image.astype(np.float32) / 7)),
    ("tif", 1, _write_four),
    ("ome.tif", 2, _write_ome),
    ("webp", 1, lambda path, image: Image.fromarray(_colour(image)).save(path, lossless=True)),
    ("tif", 0, lambda path, image: path.write_bytes(b"II*\0" + image.tobytes()[:500])),
    ("bmp", 1, lambda path, image: Image.fromarray(_colour(image)).save(path)),
)
"""Ending, tasks, and who writes it; one kind of ten is broken."""


def write_slide(folder: Path, side_px: int) -> None:
    """16 bits in tiles with Deflate, and a smaller level behind it."""
    folder.mkdir()
    tile, _ = make_image("fluorescence", np.random.default_rng(0), (SLIDE_TILE_PX, SLIDE_TILE_PX))
    deep = _deep(tile.reshape(SLIDE_TILE_PX, SLIDE_TILE_PX))
    with tifffile.TiffWriter(folder / "slide.ome.tif", bigtiff=True) as file:
        for level, side in enumerate((side_px, side_px // 2)):
            n_tiles = -(-side // SLIDE_TILE_PX)
            tiles: Iterator[NDArray[np.uint16]] = (deep for _ in range(n_tiles * n_tiles))
            file.write(
                tiles,
                shape=(side, side),
                dtype=np.uint16,
                photometric="minisblack",
                tile=(SLIDE_TILE_PX, SLIDE_TILE_PX),
                compression="deflate",
                compressionargs={"level": 1},
                subifds=1 if level == 0 else None,
                subfiletype=level,
            )


def report(runs: list[Run], n_places: int, *, are_single: bool, given: dict[str, int]) -> BenchmarkResult:
    slide_bytes = max((run.peak_mib * (1 << 20) for run in runs[4:]), default=0.0)
    killed, again = runs[0].n_tasks, runs[1].n_tasks
    goals = [
        Goal(
            f"tasks after a kill at {killed} and another run: {again} of {n_places}, each once",
            again == n_places == runs[2].n_tasks and are_single and killed < n_places,
        )
    ]
    if given["slide"]:
        goals.append(
            Goal(f"slide below 2048 MiB: {slide_bytes / (1 << 20):.0f}", slide_bytes < MOST_SLIDE_BYTES)
        )
    return BenchmarkResult(
        "`brushloop import` in a process of its own, over a stand-in for Label Studio",
        ("run", "wall [s]", "CPU [s]", "peak [MiB]", "tasks after it", "uploads after it"),
        tuple(tuple(vars(run).values()) for run in runs),
        {"arguments": given, "runs": [vars(run) for run in runs]},
        tuple(goals),
        ("What Label Studio itself takes is not in it.",),
    )
