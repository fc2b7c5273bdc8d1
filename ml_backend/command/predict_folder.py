"""Predict a folder of images: each image whole or not at all, in one process or several.

An image is done when the record of its objects is there, which is written last. The record names what it was
made of, so another model, another file or other options do the image again.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from core.errors import ImageError
from core.network.checkpoint import Checkpoint, load_checkpoint
from core.network.device import choose_compute
from core.network.predict import Predictor
from core.objects.of_prediction import numbered_objects
from export.atomic_files import written_whole
from export.errors import ExportError
from export.label_files import save_instances, save_label_png, save_label_tiff
from export.objects_table import measure_objects
from export.ome_tiff import save_channels
from export.overlay import draw_overlay
from export.pixel_size import find_pixel_size
from ml_backend.command.folder_of_images import NOT_UPLOADED, UPLOADED
from ml_backend.label_studio.image_files import read_image
from ml_backend.label_studio.image_frame import ImageLimits

RECORDS = ".records"
AHEAD = 2
"""Images that wait for each process: it never waits for us, and memory does not grow with the folder."""


@dataclass(frozen=True)
class Wanted:
    """What is written for each image beside its objects."""

    label_maps: str = "png"  # or tiff
    probabilities: bool = False
    uncertainty: bool = False
    overlays: bool = True


@dataclass(frozen=True)
class Work:
    """Everything that a process needs to know."""

    folder: Path
    out: Path
    model: Path
    wanted: Wanted
    limits: ImageLimits
    device: str = "cpu"
    engine: str = "auto"
    n_threads: int | None = None


@dataclass(frozen=True)
class Outcome:
    """Of one image: `problem` says why there is no result, `was_done` that an earlier run made it."""

    path: Path
    name: str
    problem: str | None = None
    was_done: bool = False


def find_images(folder: Path, out: Path) -> list[tuple[Path, str]]:
    """Every image below a folder, and a name for its results: with its ending where two would share it.

    Raises `ExportError` where there is none.
    """
    endings = UPLOADED | NOT_UPLOADED
    paths = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in endings and path.is_file() and not path.name.startswith(".")
        if out.absolute() not in path.absolute().parents
    ]
    if not paths:
        raise ExportError(f"no images in {folder}; looked for {', '.join(sorted(endings))}")
    stems = [path.relative_to(folder).with_suffix("").as_posix() for path in paths]
    doubled = {stem for stem in stems if stems.count(stem) > 1} if len(set(stems)) < len(stems) else set()
    return [
        (path, path.relative_to(folder).as_posix() if stem in doubled else stem)
        for path, stem in zip(paths, stems, strict=True)
    ]


def predict_images(work: Work, images: Sequence[tuple[Path, str]], n_processes: int) -> Iterator[Outcome]:
    """Predict images in any order; yields each one's outcome as soon as it is known."""
    if n_processes == 1:
        looker = Looker(work)
        for path, name in images:
            yield looker.look(path, name)
        return
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    with ProcessPoolExecutor(n_processes, context, _begin, (work,)) as pool:
        waiting = iter(images)
        running: set[Future[Outcome]] = set()
        while True:
            free = n_processes * AHEAD - len(running)
            running |= {pool.submit(_look, path, name) for path, name in islice(waiting, free)}
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()


class Looker:
    """One model in memory, and one image after another."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.checkpoint: Checkpoint = load_checkpoint(work.model)
        self._made_by = f"{self.checkpoint.fingerprint} {json.dumps(asdict(work.wanted), sort_keys=True)}"
        compute = choose_compute(work.device, work.engine)
        self._predictor = Predictor(self.checkpoint, work.n_threads, compute=compute)

    def look(self, path: Path, name: str) -> Outcome:
        """Predict one image and write its results; what cannot be read costs this image alone."""
        record = record_path(self.work.out, name)
        try:
            made_of = self._describe(path)
            if _is_made_of(record, made_of):
                return Outcome(path, name, was_done=True)
            rows = self._write(path, name)
        except ImageError as error:
            record.unlink(missing_ok=True)
            return Outcome(path, name, str(error))
        except OSError as error:
            return Outcome(path, name, f"{error.strerror or error} ({error.filename or path})")
        with written_whole(record) as scratch:
            scratch.write_text(json.dumps({"made_of": made_of, "objects": rows}), encoding="utf-8")
        return Outcome(path, name)

    def _describe(self, path: Path) -> str:
        stat = path.stat()
        told = f"{self._made_by} {path.name} {stat.st_size} {stat.st_mtime_ns} {self.work.limits}"
        return hashlib.sha256(told.encode()).hexdigest()

    def _write(self, path: Path, name: str) -> list[dict[str, Any]]:
        wanted, schema, out = self.work.wanted, self.checkpoint.schema, self.work.out
        image = read_image(path, self.work.limits)
        size = find_pixel_size(path)
        seen = self._predictor.predict(
            image, keep_details=wanted.uncertainty, keep_probabilities=wanted.probabilities
        )
        objects, class_of = numbered_objects(seen, schema, self.checkpoint.limits)
        if wanted.label_maps == "tiff":
            save_label_tiff(out / "label_maps" / f"{name}.tif", seen.label_map, schema, size)
        else:
            save_label_png(out / "label_maps" / f"{name}.png", seen.label_map, schema)
        save_instances(out / "instances" / f"{name}.tif", objects, size)
        if wanted.probabilities and seen.probabilities is not None:
            save_channels(out / "probabilities" / f"{name}.ome.tif", seen.probabilities, schema.names, size)
        if wanted.uncertainty:
            maps = (seen.predictive_entropy, seen.mutual_information)
            names = ("entropy in nats", "mutual information in nats")
            for channel, values in zip(names, maps, strict=True):
                place = out / "uncertainty" / f"{name}.{channel.partition(' ')[0]}.ome.tif"
                save_channels(place, values[None], (channel,), size)
        if wanted.overlays:
            _save_picture(
                out / "overlays" / f"{name}.png", draw_overlay(image, seen.label_map, objects, schema)
            )
        source = path.relative_to(self.work.folder).as_posix()
        return measure_objects(source, image, objects, class_of, schema, seen.confidence, size)


def read_rows(out: Path, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The objects of all images that are done, in the order of `names`."""
    for name in names:
        record = record_path(out, name)
        if record.exists():
            yield from json.loads(record.read_text(encoding="utf-8"))["objects"]


def record_path(out: Path, name: str) -> Path:
    return out / RECORDS / f"{name}.json"


def share_threads(n_processes: int) -> int | None:
    """Threads of torch for each of several processes; None leaves torch's choice to one alone."""
    return None if n_processes == 1 else max(1, (os.cpu_count() or 1) // n_processes)


_LOOKERS: list[Looker] = []
"""The one of this process, which a pool has started."""


def _begin(work: Work) -> None:
    _LOOKERS.append(Looker(work))


def _look(path: Path, name: str) -> Outcome:
    return _LOOKERS[0].look(path, name)


def _is_made_of(record: Path, made_of: str) -> bool:
    try:
        return bool(json.loads(record.read_text(encoding="utf-8"))["made_of"] == made_of)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _save_picture(path: Path, picture: Any) -> None:
    from PIL import Image

    with written_whole(path) as scratch:
        Image.fromarray(picture).save(scratch, format="PNG", compress_level=1)
