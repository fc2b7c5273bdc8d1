"""A folder of images into a project, to be broken off and begun again at any moment.

What is there is read from Label Studio itself: each task names in its data the content and the place that it
was made of. So a second run adds what is missing, whatever became of the first, and nothing is there twice.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from core.errors import BrushloopError, ImageError
from ml_backend.command.import_files import digest_of, open_file
from ml_backend.command.import_tasks import KEY, Choices, FileTasks, NewTask, Place
from ml_backend.errors import ServiceError
from ml_backend.label_studio.image_frame import ImageLimits
from ml_backend.label_studio.images import SOURCE_KEY
from ml_backend.label_studio.label_config import find_image_address
from ml_backend.label_studio.uploads import Uploads, plain_name, stored_name
from ml_backend.ports import TaskSummary

MOST_WAITING = 25
MOST_WAITING_BYTES = 48_000_000
"""Pictures that wait to be uploaded together: as much as a killed run does again."""


class Masks(Protocol):
    """What other tools said of the images."""

    def annotations(self, relative: str, place: Place) -> list[dict[str, Any]]:
        """The annotations of one place, none without a mask; raises `ImageError` where one does not fit."""
        ...

    def expect(self, relative: str, place: Place) -> None:
        """Note a place that needs its mask no more."""
        ...


@dataclass
class Imported:
    """What became of the files: tasks that were made, were there, got a mask; what was left out, and why."""

    n_files: int = 0
    n_tasks: int = 0
    n_there: int = 0
    n_masks: int = 0
    left_out: list[tuple[str, str]] = field(default_factory=list)
    remarks: list[tuple[str, str]] = field(default_factory=list)


class Present:
    """The tasks of the project: by the key of what they were made of, or by the name of a plain upload."""

    def __init__(self, summaries: Iterable[TaskSummary], image_key: str) -> None:
        self.by_key: dict[str, TaskSummary] = {}
        self.by_name: dict[str, TaskSummary] = {}
        for summary in summaries:
            key = summary.data.get(KEY)
            if isinstance(key, str):
                self.by_key[key] = summary
                continue
            address = find_image_address(summary.data, image_key)
            if address:
                self.by_name[plain_name(urlsplit(address).path)] = summary

    def find(self, place: Place, path: Path) -> TaskSummary | None:
        """The task of a place; one that `setup --images` made of the same file counts too."""
        plain = self.by_name.get(stored_name(path.name)) if place.is_whole and not place.frame.name else None
        return self.by_key.get(place.key) or plain


@dataclass(frozen=True)
class Target:
    """Where tasks go: the project's uploads, the key of its image, and the folder of originals."""

    uploads: Uploads
    image_key: str
    sources: Path
    limits: ImageLimits


class FolderImport:
    """One run over a folder."""

    def __init__(
        self, folder: Path, target: Target, choices: Choices, present: Present, masks: Masks | None
    ) -> None:
        self._folder, self._target, self._choices = folder, target, choices
        self._present, self._masks = present, masks
        self._uploaded = target.uploads.list_uploads()
        self._made: dict[str, str] = {}
        self._waiting: list[tuple[NewTask, list[dict[str, Any]]]] = []
        self.done = Imported()

    def run(self, paths: Iterable[Path], after: Callable[[Path], None] = lambda path: None) -> Imported:
        """Bring in each file; one that cannot be read costs itself alone."""
        with tempfile.TemporaryDirectory(prefix="brushloop-import-") as scratch:
            for path in paths:
                try:
                    self._bring(path, Path(scratch))
                except ServiceError:
                    raise  # Label Studio's trouble is not the file's
                except BrushloopError as error:
                    self._leave_out(path, str(error))
                except OSError as error:
                    self._leave_out(path, f"it cannot be read: {error.strerror or error}")
                self.done.n_files += 1
                after(path)
            self._send()
        return self.done

    def _leave_out(self, path: Path, problem: str) -> None:
        self.done.left_out.append((path.relative_to(self._folder).as_posix(), problem))

    def _bring(self, path: Path, scratch: Path) -> None:
        tasks = FileTasks(path, self._folder, digest_of(path), self._target.limits, self._choices)
        with open_file(path, self._target.limits, self._choices.axes) as raster:
            places = tasks.places(raster)
            self._note_doubles(tasks, places)
            self.done.remarks += [(tasks.relative, remark) for remark in raster.remarks]
            for place in places:
                self._teach_present(tasks, place)
            wanted = [p for p in places if p.key not in self._made and self._present.find(p, path) is None]
            self.done.n_there += len(places) - len(wanted)
            for task in tasks.make(raster, wanted, scratch, self._target.sources):
                self._made[task.place.key] = tasks.relative
                self._waiting.append((task, self._annotations(tasks, task.place)))
                if self._is_full():
                    self._send()

    def _note_doubles(self, tasks: FileTasks, places: list[Place]) -> None:
        first = next((self._made[place.key] for place in places if place.key in self._made), None)
        if first is not None:
            self.done.remarks.append(
                (tasks.relative, f"its content is that of {first}, which is brought in once")
            )
            if any(self._annotations(tasks, place) for place in places):
                problem = f"its image has the content of {first}, whose own mask counts: remove one image"
                self.done.left_out.append((f"the mask of {tasks.relative}", problem))

    def _annotations(self, tasks: FileTasks, place: Place) -> list[dict[str, Any]]:
        """What masks say of a place; a mask that does not fit is left out, and its image is not."""
        if self._masks is None:
            return []
        try:
            return self._masks.annotations(tasks.relative, place)
        except ImageError as error:
            self.done.left_out.append((f"the mask of {tasks.relative}", str(error)))
            return []

    def _teach_present(self, tasks: FileTasks, place: Place) -> None:
        """A task that is there and that nobody annotated gets its mask now."""
        summary = self._present.find(place, tasks.path)
        if self._masks is None or summary is None or place.key in self._made:
            return
        if summary.annotation_ids:
            self._masks.expect(tasks.relative, place)
            return
        annotations = self._annotations(tasks, place)
        for annotation in annotations:
            self._target.uploads.add_annotation(summary.task_id, annotation)
        self.done.n_masks += bool(annotations)

    def _is_full(self) -> bool:
        n_bytes = sum(task.preview.stat().st_size for task, _ in self._waiting)
        return len(self._waiting) >= MOST_WAITING or n_bytes >= MOST_WAITING_BYTES

    def _send(self) -> None:
        """Upload what waits, unless an earlier run did, and make tasks of it."""
        new = {
            task.preview: task.upload_name
            for task, _ in self._waiting
            if stored_name(task.upload_name) not in self._uploaded
        }
        if new:
            self._uploaded |= self._target.uploads.upload(new)
        rows = [self._row(task, annotations) for task, annotations in self._waiting]
        self._target.uploads.add_tasks(rows)
        self.done.n_tasks += len(rows)
        self.done.n_masks += sum(bool(annotations) for _, annotations in self._waiting)
        for task, _ in self._waiting:
            if task.preview.name.startswith(task.place.key):
                task.preview.unlink()
        self._waiting = []

    def _row(self, task: NewTask, annotations: list[dict[str, Any]]) -> dict[str, Any]:
        data = dict(task.data)
        _put(data, self._target.image_key, self._uploaded[stored_name(task.upload_name)])
        return {"data": data, "annotations": annotations} if annotations else {"data": data}


def check_image_key(image_key: str, taken: Iterable[str]) -> None:
    """Raise where the labeling setup shows its image under a name that is needed, or in a list."""
    first = image_key.partition(".")[0]
    if first in (SOURCE_KEY, KEY, *taken):
        raise ServiceError(
            f"the labeling setup shows ${image_key}, a name that import needs itself; call it $image there"
        )
    if "[" in image_key:
        raise ServiceError(f"the labeling setup shows ${image_key}, an entry of a list; call it $image there")


def _put(data: dict[str, Any], image_key: str, address: str) -> None:
    """Write the address where the labeling setup looks for it: `views.front` is a value in a value."""
    *outer, last = image_key.split(".")
    for step in outer:
        data = data.setdefault(step, {})
    data[last] = address
