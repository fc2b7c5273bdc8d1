"""From stored annotations to label maps on disk: only what changed is built again.

Runs in the worker, soon after an event and again before a round. What it needs of an image is its size.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.errors import BrushloopError, RoundCancelledError
from core.painting import Finding, Painting
from core.schema import IGNORE_INDEX
from core.truth.holdout import split, summarise
from core.truth.readiness import count_truth
from ml_backend.errors import UncheckedCopyError
from ml_backend.label_studio.label_config import LabelConfig
from ml_backend.label_studio.paintings import parse_painting
from ml_backend.parts import Parts
from ml_backend.ports import AnnotationRecord, SentRegion
from ml_backend.storage import annotations as annotation_rows
from ml_backend.storage import efforts, health, sent_regions, tasks
from ml_backend.storage.projects import Project, still_exists
from ml_backend.storage.tasks import StoredTask
from ml_backend.strokes.combining import combine_paintings, to_sent_masks
from ml_backend.strokes.copies import check_copies
from ml_backend.strokes.effort import find_start, measure

log = logging.getLogger(__name__)

FIRST_RETRY_S = 30.0
"""When to look again for an image that could not be read: its server may have been away."""
TROUBLE = "truth"
BATCH = 50
"""Tasks read at once; each is built and stored on its own."""


@dataclass(frozen=True)
class TaskTruth:
    """What was built from one task. `maps` names the file, None where nothing is annotated.

    The counts are per index of `classes`. `annotation_ids` are those that were used; `error` says why nothing
    was built, and `attempts` how often it was tried again since the last change. `disputes` are top, left,
    height, width, and the names of two classes.
    """

    maps: str | None = None
    classes: tuple[str, ...] = ()
    shape: tuple[int, int] = (0, 0)
    class_pixels: tuple[int, ...] = ()
    held_out_pixels: tuple[int, ...] = ()
    class_objects: tuple[int, ...] = ()
    held_out_objects: tuple[int, ...] = ()
    annotation_ids: tuple[int, ...] = ()
    error: str | None = None
    attempts: int = 0
    disputes: tuple[tuple[int | str, ...], ...] = ()

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> TaskTruth:
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in record.items()
        }
        values["disputes"] = tuple(map(tuple, values.get("disputes", ())))
        return cls(**values)


def build_changed(
    parts: Parts, project: Project, config: LabelConfig, should_stop: Callable[[], bool] = lambda: False
) -> int:
    """Build the truth of every task that changed; returns how many were built or given up."""
    n_built = 0
    while True:
        with parts.database.read() as connection:
            batch = tasks.list_unbuilt(connection, project.project_id, parts.clock(), BATCH)
        for task in batch:
            if should_stop():
                return n_built
            _build_task(parts, project, config, task)
            n_built += 1
        if not batch:
            _note_whole(parts, project)
            return n_built


def _note_whole(parts: Parts, project: Project) -> None:
    with parts.database.read() as connection:
        is_troubled = health.has_trouble(connection, project.project_id, TROUBLE)
    if is_troubled:
        with parts.database.write() as connection:
            health.note_trouble(connection, project.project_id, TROUBLE, None, parts.clock())


def _build_task(parts: Parts, project: Project, config: LabelConfig, seen: StoredTask) -> None:
    with parts.database.read() as connection:
        # Read again, in one moment with its annotations: the list may be minutes old.
        task = tasks.find_task(connection, project.project_id, seen.task_id) or seen
        living = annotation_rows.list_living(connection, project.project_id, task.task_id)
        measured = efforts.find_measured(connection, project.project_id, task.task_id)
        version = efforts.find_newest_version(connection, project.project_id, task.task_id)
        starts = {version, *(str(earlier.get("model_version")) for earlier in measured.values())}
        sent = sent_regions.list_sent(
            connection,
            project.project_id,
            task.task_id,
            _region_ids(living),
            {str(start) for start in starts},
        )
    findings: Sequence[Finding] = ()
    truth = TaskTruth(annotation_ids=tuple(a.annotation_id for a in living), attempts=_count_attempts(task))
    counts: Sequence[tuple[int, int]] = ()
    effort: dict[int, Mapping[str, Any]] = {}
    try:
        if living:
            shape = parts.images.shape(project.project_id, task.task_id, task.data)
            ours = {region.region_id for region in sent}
            checked = check_copies(parts, project, living, ours, config, shape)
            # The image's size was fetched before: one that is slow to come keeps no place to compute.
            with parts.computing:
                paintings = [parse_painting(one.result, config, shape) for one in checked.annotations]
                people = [one.user_id for one in living]
                originals = (*checked.originals, *sent)
                combined = combine_paintings(paintings, originals, config.schema, people)
                label_map, findings = combined.label_map, [*combined.findings, *checked.findings]
                truth = replace(truth, disputes=combined.disputes)
                effort = _measure_all(checked.annotations, paintings, config, sent, version, measured)
                counts = count_truth(label_map, config.schema)
                truth = _store_maps(parts, project, config, task, label_map, truth)
    except RoundCancelledError:
        raise  # asked to stop: that says nothing of the task
    except UncheckedCopyError as error:
        log.warning("skip_task project=%d task=%d cause=%s", project.project_id, task.task_id, error)
        truth = replace(truth, error=str(error))
        findings, counts = [Finding("label-studio-unreachable", str(error))], ()
    except BrushloopError as error:
        log.warning("skip_task project=%d task=%d cause=%s", project.project_id, task.task_id, error)
        truth = replace(truth, error=str(error))
        findings, counts = [Finding("image-unreadable", str(error))], ()
    _save(parts, project, task, truth, counts, findings, effort)


def _region_ids(annotations: Sequence[AnnotationRecord]) -> set[str]:
    """Everything that a sent region may be called by."""
    return {
        str(region["id"])
        for annotation in annotations
        for region in annotation.result
        if isinstance(region, Mapping) and "id" in region
    }


def _measure_all(
    living: Sequence[AnnotationRecord],
    paintings: Sequence[Painting],
    config: LabelConfig,
    sent: Sequence[SentRegion],
    newest_version: str | None,
    measured: Mapping[int, Mapping[str, Any]],
) -> dict[int, Mapping[str, Any]]:
    """What each annotation took, by its id."""
    masks = to_sent_masks(sent, config.schema)
    by_annotation: dict[int, Mapping[str, Any]] = {}
    for annotation, painting in zip(living, paintings, strict=True):
        earlier = measured.get(annotation.annotation_id)
        start = find_start(annotation, config, sent, newest_version, earlier)
        effort = measure(annotation, painting, config, sent, masks, start)
        by_annotation[annotation.annotation_id] = asdict(effort)
    return by_annotation


def _store_maps(
    parts: Parts,
    project: Project,
    config: LabelConfig,
    task: StoredTask,
    label_map: NDArray[np.uint8],
    truth: TaskTruth,
) -> TaskTruth:
    if not np.any(label_map != IGNORE_INDEX):
        return truth
    train_map, held_out_map = split(label_map, config.schema, str(task.task_id))
    maps = (label_map, train_map, held_out_map)
    name = parts.artifacts(project).save_truth(task.task_id, task.truth_seq, maps)
    summary = summarise(str(task.task_id), train_map, held_out_map, config.schema, is_new=True)
    return replace(
        truth,
        maps=name,
        classes=config.schema.names,
        shape=summary.shape,
        class_pixels=summary.class_pixels,
        held_out_pixels=summary.held_out_pixels,
        class_objects=summary.class_objects,
        held_out_objects=summary.held_out_objects,
    )


def find_retry_time(truth: TaskTruth, now: float) -> float:
    """When to try the task again, ever later."""
    return now + min(FIRST_RETRY_S * 2.0 ** min(truth.attempts, 30), tasks.LONGEST_RETRY_S)


def _count_attempts(task: StoredTask) -> int:
    before = TaskTruth.from_record(task.truth).attempts if task.truth else 0
    return before + 1 if task.was_postponed else 0


def _save(
    parts: Parts,
    project: Project,
    task: StoredTask,
    truth: TaskTruth,
    counts: Sequence[tuple[int, int]],
    findings: Sequence[Finding],
    effort: Mapping[int, Mapping[str, Any]],
) -> None:
    with parts.database.write() as connection:
        if not still_exists(connection, project):
            return  # another project got its id while we read
        if task.was_postponed and truth.error is None:
            task = tasks.revive_task(connection, project.project_id, task, parts.clock())
        record = [asdict(finding) for finding in findings]
        retry_at = None if truth.error is None else find_retry_time(truth, parts.clock())
        tasks.save_truth(connection, project.project_id, task, asdict(truth), counts, record, retry_at)
        efforts.save(connection, project.project_id, task.task_id, task.truth_seq, effort)
