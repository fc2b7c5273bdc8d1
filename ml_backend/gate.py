"""What a project needs done now, by looking at the database alone: the schedulers of all workers agree.

A round is due when somebody asked for it, or when the gate is open, something is not accounted for, and
people paused for the quiet time. A failed round is not repeated until something changes or somebody asks.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

from sqlalchemy import Connection

from core.readiness import Readiness, assess
from core.schema import LabelSchema
from ml_backend.config import Settings
from ml_backend.errors import LabelConfigError
from ml_backend.label_studio.label_config import LabelConfig, parse_label_config
from ml_backend.storage import annotations as annotation_rows
from ml_backend.storage import predictions, rounds, tasks
from ml_backend.storage.projects import Project

JobKind = Literal["reconcile", "digest", "round", "push"]

LONGEST_WAIT_FACTOR, LONGEST_WAIT_S = 10.0, 30.0
"""Where many people paint there is no quiet time: no annotation waits longer than this for its round."""

FREE_INTERRUPTIONS, FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 3, 5.0, 300.0
"""A round that takes its worker down again and again, over the same truth, is repeated ever more slowly."""


def find_config(project: Project) -> tuple[LabelConfig | None, str | None]:
    """The project's labeling setup, or why it cannot be used."""
    return _read_config(project.label_config)


@lru_cache(maxsize=64)
def _read_config(label_config: str) -> tuple[LabelConfig | None, str | None]:
    try:
        return parse_label_config(label_config), None
    except LabelConfigError as error:
        return None, str(error)


def assess_project(
    connection: Connection, project: Project, schema: LabelSchema, settings: Settings
) -> Readiness:
    """Whether enough is painted to train without being asked."""
    found = tasks.sum_counts(connection, project.project_id)
    counts = [found.get(index, (0, 0)) for index in range(len(schema))]
    return assess(counts, schema, settings.min_pixels_per_class)


def find_due(connection: Connection, project: Project, settings: Settings, now: float) -> list[JobKind]:
    """The jobs that the project needs at this moment."""
    due: list[JobKind] = []
    if project.reconciled_at is None or now - project.reconciled_at >= settings.reconcile_every_s:
        due.append("reconcile")
    if predictions.list_pushes(connection, project.project_id, now, 1):
        due.append("push")
    config, _ = find_config(project)
    if config is None:
        return due
    unbuilt = tasks.has_unbuilt(connection, project.project_id, now)
    if unbuilt:
        due.append("digest")
    if _is_round_due(connection, project, config.schema, settings, now, unbuilt):
        due.append("round")
    return due


def _is_round_due(
    connection: Connection,
    project: Project,
    schema: LabelSchema,
    settings: Settings,
    now: float,
    unbuilt: bool,
) -> bool:
    if project.train_requested_at is not None:
        return True
    if not tasks.has_unsettled(connection, project.project_id, project.attempted_seq):
        return False
    if unbuilt or now - (project.last_truth_at or 0.0) < settings.quiet_time_s:
        longest = max(LONGEST_WAIT_S, LONGEST_WAIT_FACTOR * settings.quiet_time_s)
        if now - annotation_rows.oldest_pending(connection, project.project_id, now) < longest:
            return False
    if _is_backing_off(connection, project, now):
        return False
    return bool(assess_project(connection, project, schema, settings).ready)


def _is_backing_off(connection: Connection, project: Project, now: float) -> bool:
    n_interrupted, last = rounds.count_interruptions(connection, project.project_id, project.truth_seq)
    if n_interrupted < FREE_INTERRUPTIONS:
        return False
    pause_s = min(FIRST_BACKOFF_S * 2 ** (n_interrupted - FREE_INTERRUPTIONS), LONGEST_BACKOFF_S)
    return bool(now - last < pause_s)
