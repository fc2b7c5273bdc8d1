"""What people painted and what the model says, task by task, for `brushloop export`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePosixPath
from typing import Any, Literal, Protocol
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from core.errors import BrushloopError
from core.schema import IGNORE_INDEX, LabelSchema
from export.errors import ExportError
from export.result import Result, truth_over_prediction
from ml_backend.label_studio.images import DEFAULT_IMAGE_KEY
from ml_backend.label_studio.label_config import find_config, find_image_address
from ml_backend.ports import ImageSource, TaskRecord
from ml_backend.storage.artifacts import Artifacts
from ml_backend.storage.database import Database
from ml_backend.storage.models import StoredModel, find_model
from ml_backend.storage.projects import Project, get_project
from ml_backend.storage.tasks import StoredTask, list_truth
from ml_backend.strokes.build_truth import TaskTruth

What = Literal["truth", "predictions", "both"]

Segment = Callable[[Project, StoredModel, TaskRecord], tuple[NDArray[np.uint8], tuple[str, ...]]]
"""What a model says of a task's image, and the names of its classes."""


class Kept(Protocol):
    """Where truth and images of a project are read."""

    @property
    def database(self) -> Database: ...

    @property
    def images(self) -> ImageSource: ...

    def artifacts(self, project: Project) -> Artifacts: ...


@dataclass
class ProjectResults:
    """The results of a project, one at a time; `left_out` grows with what cannot be given, and why.

    Predictions need `segment`, and truth alone does not.
    """

    kept: Kept
    project_id: int
    what: What
    segment: Segment | None = None
    only_submitted: bool = True
    left_out: list[tuple[int, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        with self.kept.database.read() as connection:
            self.project = get_project(connection, self.project_id)
            self.model = find_model(connection, self.project_id, self.project.current_version)
            self.tasks = list_truth(connection, self.project_id, 1 if self.only_submitted else 0)
        config, problem = find_config(self.project.label_config)
        if config is None:
            raise ExportError(f"the labeling setup of project {self.project_id} cannot be used: {problem}")
        if self.what != "truth" and self.model is None:
            raise ExportError(f"project {self.project_id} has no model yet: export the truth alone")
        self.config = config
        self.schema: LabelSchema = config.schema
        self._image_key = config.image_key or DEFAULT_IMAGE_KEY

    def __iter__(self) -> Iterator[Result]:
        names: set[str] = set()
        for task in self.tasks:
            try:
                label_map = self._label_map(task)
            except BrushloopError as error:
                self.left_out.append((task.task_id, str(error)))
                continue
            if label_map is None:
                continue
            file_name = file_name_of(task.data, self._image_key, task.task_id)
            stem = PurePosixPath(file_name).stem
            name = stem if stem not in names else f"{stem}-{task.task_id}"
            names.add(name)
            load: Callable[[], NDArray[Any]] = partial(
                self.kept.images.open, self.project_id, task.task_id, task.data
            )
            yield Result(name, file_name, label_map, load, {"id": task.task_id, "data": dict(task.data)})

    def _label_map(self, task: StoredTask) -> NDArray[np.uint8] | None:
        truth = self._truth(task) if self.what != "predictions" else None
        predicted = self._predicted(task) if self.what != "truth" else None
        return truth_over_prediction(truth, predicted)

    def _truth(self, task: StoredTask) -> NDArray[np.uint8] | None:
        built = TaskTruth.from_record(task.truth) if task.truth else TaskTruth()
        if task.built_seq < task.truth_seq:
            raise ExportError("what was painted last is not built yet: start a worker and export again")
        if built.error is not None:
            raise ExportError(built.error)
        if built.maps is None:
            return None
        stored = self.kept.artifacts(self.project).load_truth(built.maps)
        return renumber(stored, built.classes, self.schema)

    def _predicted(self, task: StoredTask) -> NDArray[np.uint8]:
        assert self.model is not None  # noqa: S101 - checked when this was made
        assert self.segment is not None  # noqa: S101 - predictions are asked for with it
        wanted = TaskRecord(task.task_id, self.project_id, task.data, "")
        label_map, names = self.segment(self.project, self.model, wanted)
        return renumber(label_map, names, self.schema)


def file_name_of(data: Mapping[str, Any], image_key: str, task_id: int) -> str:
    """What the image of a task is called: its upload, or the file, slice and tile that an import names.

    >>> file_name_of({"image": "/data/upload/1/c-77.png", "name": "c-z01", "import_key": "7"}, "image", 3)
    'c-z01.png'
    """
    address = find_image_address(data, image_key) or ""
    parts = urlsplit(address)
    path = parts.query.removeprefix("d=") if "local-files" in parts.path else parts.path
    uploaded = PurePosixPath(unquote(path))
    given = data.get("name") if "import_key" in data else None
    if isinstance(given, str) and PurePosixPath(given).name:
        return f"{PurePosixPath(given).name}{uploaded.suffix}"
    return uploaded.name or f"task-{task_id}.png"


def renumber(label_map: NDArray[np.uint8], names: tuple[str, ...], schema: LabelSchema) -> NDArray[np.uint8]:
    """The indices of `schema` for a map whose values are positions in `names`; others are unlabelled."""
    values = np.full(256, IGNORE_INDEX, np.uint8)
    for index, name in enumerate(names):
        known = schema.index_of(name)
        values[index] = IGNORE_INDEX if known is None else known
    return np.asarray(values[label_map])
