"""One file to tasks: what people see, the original where it holds more, and the words that go with it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from core.errors import ImageError
from core.painting import Box
from export.atomic_files import written_whole
from ingest.frames import Frame, Raster, cut_boxes
from ingest.scaling import Scaling, plan_scaling
from ingest.stretch import PERCENTILES, Colour, Look, draw_preview, encode_png, plan_look
from ml_backend.command.import_files import bare_name, is_shown
from ml_backend.label_studio.addresses import SOURCE_SCHEME
from ml_backend.label_studio.image_frame import ImageLimits
from ml_backend.label_studio.images import SOURCE_KEY

KEY = "import_key"
"""In a task's data: names the content and the place that it was made of, so that nothing comes in twice."""

WORDS = ("file", "name", "frame", "tile", "channels", "scaling", "georeference")
"""What else a task's data says, for people and for the way back into the file."""

LONGEST_STEM = 48
"""Label Studio cuts names of uploads that are longer than its column."""

SOURCE_COMPRESSION = "zlib"


@dataclass(frozen=True)
class Choices:
    """How files are read and shown."""

    axes: str | None = None
    tile_px: int | None = None
    number_range: tuple[float, float] | None = None
    percentiles: tuple[float, float] = PERCENTILES
    colours: tuple[Colour, ...] = ()


@dataclass(frozen=True)
class Place:
    """Where in a file a task comes from. `name` is unique in its file; `key` everywhere."""

    key: str
    name: str
    frame: Frame
    box: Box

    @property
    def is_whole(self) -> bool:
        return self.box == self.frame.box


@dataclass(frozen=True)
class NewTask:
    """A task to be made: `preview` is uploaded under `upload_name`, and `data` lacks only its address."""

    place: Place
    preview: Path
    upload_name: str
    data: dict[str, Any]


class FileTasks:
    """One file of a folder, open; gives a task for each place that is not in the project yet."""

    def __init__(self, path: Path, folder: Path, digest: str, limits: ImageLimits, choices: Choices) -> None:
        self.path, self.relative = path, path.relative_to(folder).as_posix()
        self._digest, self._limits, self._choices = digest, limits, choices

    def places(self, raster: Raster) -> list[Place]:
        """All places of the file; raises `ImageError` where one is larger than a task may be."""
        found = []
        for frame in raster.frames:
            self._check(frame)
            for box in cut_boxes(frame.shape[:2], self._choices.tile_px):
                words = [bare_name(self.path.name), frame.name]
                if box != frame.box:
                    words.append(f"y{box.top:05d}-x{box.left:05d}")
                text = f"{self._digest} {frame.name} {box.top} {box.left} {box.height} {box.width}"
                key = hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
                found.append(Place(key, "-".join(filter(None, words)), frame, box))
        return found

    def make(self, raster: Raster, wanted: list[Place], scratch: Path, sources: Path) -> Iterator[NewTask]:
        """Write previews into `scratch` and originals into `sources`, one place after the other."""
        if not wanted:
            return
        as_it_is = is_shown(self.path) and all(place.is_whole for place in wanted)
        scaling = plan_scaling(raster.frames, self._choices.number_range)
        looks: dict[str, Look] = {}
        for place in wanted:
            data = self._words(raster, place, scaling)
            if as_it_is:
                yield NewTask(place, self.path, self._upload_name(place, self.path.suffix), data)
                continue
            frame = place.frame
            if frame.name not in looks:
                looks[frame.name] = plan_look(
                    frame, scaling, self._choices.percentiles, self._choices.colours
                )
            pixels = scaling.apply(frame.read(place.box))
            preview = scratch / f"{place.key}.png"
            preview.write_bytes(encode_png(draw_preview(pixels, looks[frame.name])))
            if not looks[frame.name].is_plain:
                data[SOURCE_KEY] = f"{SOURCE_SCHEME}:{keep_source(pixels, place.key, sources)}"
            yield NewTask(place, preview, self._upload_name(place, ".png"), data)

    def _check(self, frame: Frame) -> None:
        height, width, n_channels = frame.shape
        tile = self._choices.tile_px
        if tile is None and height * width > self._limits.max_pixels:
            raise ImageError(
                f"it has {width} x {height} pixels, more than MAX_IMAGE_MEGAPIXELS: cut it with --tile 2048"
            )
        side = (height, width) if tile is None else (min(height, tile), min(width, tile))
        self._limits.check_shape(*side, n_channels, min(2, frame.dtype.itemsize))

    def _words(self, raster: Raster, place: Place, scaling: Scaling) -> dict[str, Any]:
        box = place.box
        data = {
            "file": self.relative,
            "name": place.name,
            "frame": place.frame.name,
            "tile": "" if place.is_whole else f"top {box.top} left {box.left} of {_size(place.frame)}",
            "channels": ", ".join(raster.channels),
            "scaling": scaling.words,
            "georeference": raster.georeference,
        }
        return {KEY: place.key, **{word: text for word, text in data.items() if text}}

    def _upload_name(self, place: Place, ending: str) -> str:
        return f"{place.name[-LONGEST_STEM:].lstrip('-')}-{place.key[:12]}{ending}"


def keep_source(pixels: NDArray[Any], key: str, sources: Path) -> str:
    """Keep `(h, w, C)` of 8 or 16 bits under a name made of its key; returns the name."""
    name = f"{hashlib.blake2b(key.encode(), digest_size=16).hexdigest()}.tif"
    planes = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
    with written_whole(sources / name) as scratch:
        tifffile.imwrite(
            scratch,
            np.ascontiguousarray(planes),
            photometric="minisblack",
            planarconfig=None if planes.ndim == 2 else "contig",
            extrasamples=["unspecified"] * (planes.shape[2] - 1) if planes.ndim == 3 else None,
            compression=SOURCE_COMPRESSION,
            metadata=None,
        )
    return name


def _size(frame: Frame) -> str:
    return f"{frame.shape[1]} x {frame.shape[0]}"
