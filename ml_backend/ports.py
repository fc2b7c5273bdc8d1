"""What the learning loop needs from the world outside, as protocols and plain records.

The real ones are chosen in `bootstrap.py`; the tests bring fakes that pass the same contract suites.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ProjectView:
    """What a page shows of a project, all read in one transaction.

    `outcomes` counts rounds by how they ended; `rounds` are reports, newest first. `task_address` and the
    number of a task is where Label Studio opens it; empty where its address is not known.
    """

    status: Mapping[str, Any]
    rounds: Sequence[Mapping[str, Any]]
    outcomes: Mapping[str, int]
    tasks: Sequence[Mapping[str, Any]]
    task_address: str = ""


@dataclass(frozen=True)
class AnnotationRecord:
    """One submitted annotation as Label Studio keeps it; `result` is its JSON list of regions.

    `from_prediction`: it started from a prediction, anybody's. `copied_from`: the annotation that it was
    copied from.
    """

    annotation_id: int
    task_id: int
    user_id: int | None
    updated_at: str
    was_cancelled: bool
    result: Sequence[Mapping[str, Any]]
    lead_time_s: float | None = None
    from_prediction: bool = False
    copied_from: int | None = None


@dataclass(frozen=True)
class TaskRecord:
    """One image to annotate, with everything people submitted for it."""

    task_id: int
    project_id: int
    data: Mapping[str, Any]
    updated_at: str
    annotations: tuple[AnnotationRecord, ...] = ()


@dataclass(frozen=True)
class TaskSummary:
    """Just enough of a task to see whether anything about it changed."""

    task_id: int
    updated_at: str
    annotation_ids: tuple[int, ...]
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ProjectRecord:
    """A Label Studio project; `created_at` tells two projects apart that got the same id.

    `n_tasks` is None where the server does not say it.
    """

    project_id: int
    title: str
    label_config: str
    model_version: str | None
    created_at: str
    n_tasks: int | None = None


@dataclass(frozen=True)
class HeldPrediction:
    """A prediction that a task has in Label Studio, from anybody; without its regions."""

    prediction_id: int
    model_version: str
    score: float | None


class LabelStudio(Protocol):
    """Label Studio's API, as far as the loop needs it.

    Every call raises `LabelStudioUnavailableError` when the server cannot be reached and
    `LabelStudioRefusedError` (with the status) when it says no.
    """

    def get_project(self, project_id: int) -> ProjectRecord: ...

    def get_webhook_key(self, project_id: int) -> str:
        """The key that the project's webhook to us brings along; empty where it has none."""
        ...

    def iter_task_summaries(self, project_id: int) -> Iterator[TaskSummary]:
        """All tasks of the project, without region data; cheap per task."""
        ...

    def iter_painted_summaries(self, project_id: int, known: Collection[int]) -> Iterator[TaskSummary]:
        """Tasks that have annotations, and those of `known` that are still there."""
        ...

    def get_task(self, task_id: int) -> TaskRecord:
        """One task with its annotations in full."""
        ...

    def push_predictions(self, project_id: int, predictions: Sequence[tuple[int, Mapping[str, Any]]]) -> int:
        """Store predictions `(task_id, {"result", "score", "model_version"})`; returns how many were kept."""
        ...

    def list_predictions(
        self, project_id: int, task_ids: Sequence[int]
    ) -> Mapping[int, tuple[HeldPrediction, ...]]:
        """What these tasks have, from anybody; a task that is gone is left out."""
        ...

    def list_predicted_regions(self, project_id: int, task_id: int) -> tuple[Mapping[str, Any], ...]:
        """All regions of all predictions that the task has, from anybody."""
        ...

    def overwrite_prediction(
        self, project_id: int, task_id: int, prediction_id: int, prediction: Mapping[str, Any]
    ) -> None:
        """Put another content into a prediction, which keeps its id; one that is gone is left alone."""
        ...

    def delete_prediction(self, prediction_id: int) -> None:
        """Delete one prediction; one that is gone is left alone."""
        ...

    def name_backend(
        self, project_id: int, ours: Collection[str], title: str, is_alike: Callable[[str], bool]
    ) -> None:
        """Give our connected backend this title.

        It is known by a version or a title among `ours`, or else by a title that `is_alike`.
        """
        ...

    def set_model_version(self, project_id: int, model_version: str) -> None:
        """Choose the version whose scores order the project; it needs a prediction or a backend's title."""
        ...

    def keep_tab(self, project_id: int, data: Mapping[str, Any]) -> None:
        """Have one Data Manager tab of the title in `data`, like `data`."""
        ...


class ImageSource(Protocol):
    """Pixels of a task's image, in the frame that the browser shows."""

    def open(self, project_id: int, task_id: int, data: Mapping[str, Any]) -> NDArray[Any]:
        """`(H, W, C)` uint8 or uint16, possibly a memory map; raises `ImageError`."""
        ...

    def shape(self, project_id: int, task_id: int, data: Mapping[str, Any]) -> tuple[int, int]:
        """`(H, W)` without decoding when the cache or the header knows it."""
        ...


@dataclass(frozen=True)
class SentRegion:
    """A brush region as it was sent to Label Studio, cut to its box; `mask` is bool."""

    region_id: str
    class_name: str
    model_version: str
    top: int
    left: int
    mask: NDArray[np.bool_]
