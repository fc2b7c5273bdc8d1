"""Predict a folder of images: each image whole or not at all, in one process or several.

An image is done when the record of its objects is there, which is written last. The record names what it was
made of, so another model, another file or other options do the image again.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from core.errors import ImageError
from core.network.checkpoint import Checkpoint, load_checkpoint
from core.network.device import choose_compute
from core.network.predict import Predictor
from core.objects.of_prediction import numbered_objects
from core.prediction import Prediction
from export.atomic_files import written_whole
from export.errors import ExportError
from export.georeference import save_georeference
from export.label_files import save_instances, save_label_png, save_label_tiff
from export.objects_table import measure_objects
from export.ome_tiff import save_channels
from export.overlay import draw_overlay
from export.pixel_size import PixelSize, find_pixel_size
from ml_backend.command.found_files import FoundFiles
from ml_backend.command.import_files import Picture, Reading, bare_name, read_pictures
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
    reading: Reading = field(default_factory=Reading)


@dataclass(frozen=True)
class Outcome:
    """Of one file: `problem` says why there is no result, `was_done` that an earlier run made it.

    `remarks` say what of it was not looked at.
    """

    path: Path
    name: str
    problem: str | None = None
    was_done: bool = False
    remarks: tuple[str, ...] = ()


def name_results(found: FoundFiles, folder: Path) -> list[tuple[Path, str]]:
    """A name for the results of each image: with its ending where two would share it."""
    paths = found.images
    stems = [path.relative_to(folder).with_name(bare_name(path.name)).as_posix() for path in paths]
    counts = Counter(stems)
    return [
        (path, path.relative_to(folder).as_posix() if counts[stem] > 1 else stem)
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
        options = json.dumps([asdict(work.wanted), asdict(work.reading)], sort_keys=True)
        self._made_by = f"{self.checkpoint.fingerprint} {options}"
        compute = choose_compute(work.device, work.engine)
        self._predictor = Predictor(self.checkpoint, work.n_threads, compute=compute)

    def look(self, path: Path, name: str) -> Outcome:
        """Predict one image and write its results; what cannot be read costs this image alone."""
        record = record_path(self.work.out, name)
        try:
            made_of = self._describe(path)
            if _is_made_of(record, made_of):
                return Outcome(path, name, was_done=True)
            remarks: list[str] = []
            rows = self._write_all(path, name, remarks)
        except (ImageError, ExportError) as error:
            record.unlink(missing_ok=True)
            return Outcome(path, name, str(error))
        except OSError as error:
            return Outcome(path, name, f"{error.strerror or error} ({error.filename or path})")
        with written_whole(record) as scratch:
            scratch.write_text(json.dumps({"made_of": made_of, "objects": rows}), encoding="utf-8")
        return Outcome(path, name, remarks=tuple(remarks))

    def _describe(self, path: Path) -> str:
        stat = path.stat()
        told = f"{self._made_by} {path.name} {stat.st_size} {stat.st_mtime_ns} {self.work.limits}"
        return hashlib.sha256(told.encode()).hexdigest()

    def _write_all(self, path: Path, name: str, remarks: list[str]) -> list[dict[str, Any]]:
        """Results of every frame of a file; its objects, slice by slice."""
        size, rows = find_pixel_size(path), []
        source = path.relative_to(self.work.folder).as_posix()
        for picture in read_pictures(path, self.work.limits, self.work.reading, remarks):
            found = self._write(picture, "-".join(filter(None, (name, picture.frame))), source, size)
            rows += [{**row, "frame": picture.frame} for row in found] if picture.frame else found
        return rows

    def _write(
        self, picture: Picture, name: str, source: str, size: PixelSize | None
    ) -> list[dict[str, Any]]:
        wanted, schema, out, image = self.work.wanted, self.checkpoint.schema, self.work.out, picture.pixels
        seen = self._predictor.predict(
            image, keep_details=wanted.uncertainty, keep_probabilities=wanted.probabilities
        )
        objects, class_of = numbered_objects(seen, schema, self.checkpoint.limits)
        if wanted.label_maps == "tiff":
            label_map = out / "label_maps" / f"{name}.tif"
            save_label_tiff(label_map, seen.label_map, schema, size)
        else:
            label_map = out / "label_maps" / f"{name}.png"
            save_label_png(label_map, seen.label_map, schema)
        numbers = out / "instances" / f"{name}.tif"
        save_instances(numbers, objects, size)
        for written in (label_map, numbers):
            save_georeference(written, picture.georeference)
        self._write_maps(seen, name, size)
        if wanted.overlays:
            _save_picture(
                out / "overlays" / f"{name}.png", draw_overlay(image, seen.label_map, objects, schema)
            )
        return measure_objects(source, image, objects, class_of, schema, seen.confidence, size)

    def _write_maps(self, seen: Prediction, name: str, size: PixelSize | None) -> None:
        """Probabilities and uncertainty, where they are wanted."""
        wanted, out = self.work.wanted, self.work.out
        if wanted.probabilities and seen.probabilities is not None:
            place = out / "probabilities" / f"{name}.ome.tif"
            save_channels(place, seen.probabilities, self.checkpoint.schema.names, size)
        if wanted.uncertainty:
            maps = (seen.predictive_entropy, seen.mutual_information)
            names = ("entropy in nats", "mutual information in nats")
            for channel, values in zip(names, maps, strict=True):
                place = out / "uncertainty" / f"{name}.{channel.partition(' ')[0]}.ome.tif"
                save_channels(place, values[None], (channel,), size)


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
