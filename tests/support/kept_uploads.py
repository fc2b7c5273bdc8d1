"""A Label Studio that keeps what `brushloop import` gives it, and files to import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ingest.masks import MaskRules
from ml_backend.command.found_files import find_files
from ml_backend.command.import_folder import FolderImport, Imported, Present, Target
from ml_backend.command.import_masks import MaskFolder
from ml_backend.command.import_tasks import Choices
from ml_backend.command.setup_project import read_default_config
from ml_backend.errors import LabelStudioUnavailableError
from ml_backend.label_studio.image_frame import ImageLimits
from ml_backend.label_studio.label_config import LabelConfig, parse_label_config
from ml_backend.label_studio.uploads import stored_name
from ml_backend.ports import TaskSummary

CONFIG = parse_label_config(read_default_config())
SHAPE = (40, 50)


LIMITS = ImageLimits(100_000_000, 1_000_000)


class KeptUploads:
    """Uploads and tasks of one project; `dies_after` calls that change something, the next one fails."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.tasks: list[dict[str, Any]] = []
        self.dies_after: int | None = None

    def list_uploads(self) -> dict[str, str]:
        return {name: f"/data/upload/1/{name}" for name in self.files}

    def upload(self, names: Mapping[Path, str]) -> dict[str, str]:
        self._live()
        doubled = {stored_name(name) for name in names.values()} & set(self.files)
        assert not doubled, "nothing is uploaded twice"
        self.files |= {stored_name(name): path.read_bytes() for path, name in names.items()}
        return {stored_name(name): f"/data/upload/1/{stored_name(name)}" for name in names.values()}

    def add_tasks(self, tasks: Sequence[Mapping[str, Any]]) -> None:
        self._live()
        self.tasks += [dict(task) for task in tasks]

    def add_annotation(self, task_id: int, annotation: Mapping[str, Any]) -> None:
        self.tasks[task_id - 1].setdefault("annotations", []).append(annotation)

    def summaries(self) -> list[TaskSummary]:
        return [
            TaskSummary(number, "", tuple(range(len(task.get("annotations", ())))), task["data"])
            for number, task in enumerate(self.tasks, 1)
        ]

    def shown(self, file: str) -> np.ndarray:
        """The picture that people see of a file with one task."""
        (data,) = [task["data"] for task in self.tasks if task["data"]["file"] == file]
        name = str(data["image"]).rpartition("/")[2]
        return cv2.imdecode(np.frombuffer(self.files[name], np.uint8), cv2.IMREAD_UNCHANGED)

    def _live(self) -> None:
        if self.dies_after is not None:
            self.dies_after -= 1
            if self.dies_after < 0:
                raise LabelStudioUnavailableError("gone")


def noise(*shape: int, dtype: Any = np.uint16, high: int | None = None) -> np.ndarray:
    top = np.iinfo(dtype).max if high is None else high
    return np.random.default_rng(len(shape)).integers(0, top, shape).astype(dtype)


def two_objects() -> np.ndarray:
    """Two that touch, numbered 1 and 2."""
    numbers = np.zeros(SHAPE, np.uint8)
    numbers[5:20, 5:20], numbers[5:20, 20:30] = 1, 2
    return numbers


def bring_masks(
    images: Path,
    masks: Path,
    kept: KeptUploads,
    rules: MaskRules | None = None,
    config: LabelConfig = CONFIG,
    **choices: Any,
) -> Imported:
    found = find_files(images, without=masks)
    names = [path.relative_to(images).as_posix() for path in found.images]
    said = MaskFolder(masks, rules or MaskRules(), config, names)
    target = Target(kept, "image", images.parent / "sources", LIMITS)  # type: ignore[arg-type]
    present = Present(kept.summaries(), "image")
    done = FolderImport(images, target, Choices(**choices), present, said).run(found.images)
    done.left_out += [*said.left_out, *said.unused()]
    done.remarks += said.remarks
    return done


def coco(segmentations: list[Any], **changes: Any) -> dict[str, Any]:
    return {
        "images": [{"id": 7, "file_name": "cells.tif", "height": SHAPE[0], "width": SHAPE[1]}],
        "categories": [{"id": 3, "name": "nucleus"}],
        "annotations": [
            {"id": number, "image_id": 7, "category_id": 3, "segmentation": one, "iscrowd": 0}
            for number, one in enumerate(segmentations)
        ],
    } | changes


def plain_runs(mask: np.ndarray) -> dict[str, Any]:
    values = np.concatenate([[0], mask.T.ravel().astype(int)])
    edges = np.flatnonzero(np.diff(values)) if values.any() else np.array([], int)
    ends = np.concatenate([[0], edges, [mask.size]])
    return {"size": list(mask.shape), "counts": np.diff(ends).tolist()}
