"""What a project needs done now, by looking at the database: the schedulers of all workers agree.

A round is due when somebody asked for it, or when the gate is open (enough is painted), something is not
accounted for, and people paused for the quiet time. A failed round is not repeated until something changes or
somebody asks.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection

from core.schema import LabelSchema
from core.truth.readiness import Readiness, assess
from ml_backend.config import Settings
from ml_backend.label_studio.label_config import find_config
from ml_backend.moments import has_passed, is_reached
from ml_backend.rounds.continuing import is_draft_due, plan_continuation
from ml_backend.rounds.lease import is_here, is_lost
from ml_backend.storage import annotations as annotation_rows
from ml_backend.storage import health, predictions, reviews, rounds, scorings, tables, tasks
from ml_backend.storage.projects import Project
from ml_backend.storage.row_leases import list_gone

JobKind = Literal["reconcile", "build", "draft", "round", "consolidate", "push", "score", "rank", "sync"]

LONGEST_WAIT_FACTOR, LONGEST_WAIT_S = 10.0, 30.0
"""Where many people paint there is no quiet time: no annotation waits longer than this for its round."""

LONGEST_PAUSE_S = 3600.0
"""The longest pause before Label Studio is asked again; a moment further ahead is of a wrong clock."""

TROUBLE_LOOK_S = 30.0
"""How often to check whether the live version can be read again, and Label Studio can be asked."""

FREE_INTERRUPTIONS, FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 1, 4.0, 60.0
"""A round that is interrupted is repeated at once, and then ever more slowly; asking for one starts anew."""
LONGEST_AWAY_S = 300.0
"""The longest pause while Label Studio does not answer and no annotated image can be had without it. When it
answers again, which is asked every half minute, the shorter ones hold."""
JITTER = 0.2
"""Pauses of projects differ by up to this share: one cause that interrupted them all ends for all at once."""


def assess_project(
    connection: Connection,
    project: Project,
    schema: LabelSchema,
    settings: Settings,
    nets: Collection[str] = (),
) -> Readiness:
    """Whether enough is painted to train without being asked; `nets` are classes of uncounted objects."""
    by_class = tasks.sum_counts(connection, project.project_id)
    counts = [by_class.get(index, (0, 0)) for index in range(len(schema))]
    return assess(counts, schema, settings.min_pixels_per_class, nets=nets)


def find_due(connection: Connection, project: Project, settings: Settings, now: float) -> list[JobKind]:
    """The jobs that the project needs at this moment."""
    due: list[JobKind] = []
    is_troubled = bool(project.live_problem or health.list_troubles(connection, project.project_id))
    every_s = min(settings.reconcile_every_s, TROUBLE_LOOK_S if is_troubled else math.inf)
    if has_passed(project.reconciled_at, every_s, now):
        due.append("reconcile")
    if has_credential(project, settings) and _is_push_due(connection, project.project_id, now):
        due.append("push")
    config, _ = find_config(project.label_config)
    # Without classes nothing can be built or trained; reconciling and pushing go on.
    if config is None:
        return due
    unbuilt = tasks.has_unbuilt(connection, project.project_id, now)
    if unbuilt:
        due.append("build")
    if not unbuilt and _is_draft_due(connection, project, config.schema, settings, now):
        due.append("draft")
    elif _is_round_due(connection, project, config.schema, settings, now, unbuilt):
        due.append("round")
    elif project.current_version is not None:
        due += _find_review(connection, project, project.current_version, settings, now)
        # Training on comes last: anything that a person waits for goes first.
        if not due and not unbuilt and not is_training(connection, project.project_id, now):
            due += ["consolidate"] * (plan_continuation(connection, project, settings, now) is not None)
    return due


def has_credential(project: Project, settings: Settings) -> bool:
    """Whether Label Studio can be asked at all."""
    return settings.label_studio_api_key is not None or bool(project.access_token)


def is_training(connection: Connection, project_id: int, now: float) -> bool:
    """Whether a round of the project runs, or one of any project on this machine."""
    return any(
        # A round of another project that still waits for its Label Studio takes nothing from this one.
        (owner_project == project_id or (running.progress > 0 and is_here(running.owner)))
        and not is_lost(running, now)
        for owner_project, running in rounds.list_running(connection)
    )


def _is_push_due(connection: Connection, project_id: int, now: float) -> bool:
    gone = list_gone(connection, tables.pushes, project_id, now)
    return predictions.has_due_push(connection, project_id, now, gone)


def _is_scoring_due(connection: Connection, project_id: int, now: float) -> bool:
    gone = list_gone(connection, tables.scorings, project_id, now)
    return scorings.has_free(connection, project_id, now, gone)


def _find_review(
    connection: Connection, project: Project, version: str, settings: Settings, now: float
) -> list[JobKind]:
    """What is left to do after a promotion: score tasks, rank them, and update Label Studio."""
    project_id, review = project.project_id, reviews.get_review(connection, project.project_id)
    due: list[JobKind] = []
    scores_tasks = settings.score_tasks_per_round > 0
    if (
        (not review.is_planned(version, scores_tasks) or _is_scoring_due(connection, project_id, now))
        and is_reached(review.score_retry_at, now, LONGEST_PAUSE_S)
        and not is_training(connection, project_id, now)
    ):
        due.append("score")
    if is_rankable(connection, project, version, settings, now):
        due.append("rank")
    if has_credential(project, settings) and is_reached(review.keep_retry_at, now, LONGEST_PAUSE_S):
        is_sent = is_ranking_sent(connection, project_id, version, settings, now)
        # Twice per version: when it becomes current, and when Label Studio has all the scores to order by.
        if review.kept_version != version or (is_sent and review.settled_version != version):
            due.append("sync")
    return due


def is_ranking_sent(
    connection: Connection, project_id: int, version: str, settings: Settings, now: float
) -> bool:
    """Whether the version's scores are diverse, and Label Studio has all that are due."""
    review = reviews.get_review(connection, project_id)
    if not review.is_ranked(version, settings.score_tasks_per_round > 0):
        return False
    return not predictions.count_due_pushes(connection, project_id, now)


def is_rankable(
    connection: Connection, project: Project, version: str, settings: Settings, now: float
) -> bool:
    """Whether the version has scored its tasks, and they were not ranked since.

    What was scored is sent first, so that no push with an older score is under way that would seem to have
    done what the ranking owes.
    """
    project_id, review = project.project_id, reviews.get_review(connection, project.project_id)
    is_planned = review.is_planned(version, settings.score_tasks_per_round > 0)
    if not is_planned or review.ranked_version == version or scorings.has_any(connection, project_id):
        return False
    return not (
        has_credential(project, settings) and predictions.count_due_pushes(connection, project_id, now)
    )


def _is_round_due(
    connection: Connection,
    project: Project,
    schema: LabelSchema,
    settings: Settings,
    now: float,
    unbuilt: bool,
) -> bool:
    if _is_backing_off(connection, project, now):
        return False
    if project.is_train_requested:
        return True
    # Nothing new is painted, yet people get no suggestions until a round makes another model.
    if _has_no_readable_model(connection, project):
        return bool(assess_project(connection, project, schema, settings).ready)
    if not tasks.has_unsettled(connection, project.project_id, project.attempted_seq):
        return False
    if unbuilt or not has_passed(project.last_truth_at, settings.quiet_time_s, now):
        longest = max(LONGEST_WAIT_S, LONGEST_WAIT_FACTOR * settings.quiet_time_s)
        if not has_passed(annotation_rows.oldest_pending(connection, project.project_id, now), longest, now):
            return False
    return bool(assess_project(connection, project, schema, settings).ready)


@dataclass(frozen=True)
class Repeat:
    """A round that is to be repeated: why the last tries made no model, and the pause that is left."""

    cause: str
    tries: int
    pause_s: float


def find_repeat(connection: Connection, project: Project, now: float) -> Repeat | None:
    """What is known of the interrupted rounds that the next one repeats; None where there are none."""
    before = rounds.list_interrupted(connection, project.project_id, project.train_requests)
    if not before:
        return None
    tries = rounds.count_interrupted(connection, project.project_id, project.train_requests)
    n_paused = tries - 1 - FREE_INTERRUPTIONS
    is_away = before[0].trouble == "images" and health.has_trouble(
        connection, project.project_id, health.UNREACHED
    )
    longest_s = LONGEST_AWAY_S if is_away else LONGEST_BACKOFF_S
    pause_s = min(FIRST_BACKOFF_S * 2.0 ** min(n_paused, 30), longest_s) if n_paused >= 0 else 0.0
    # By the project and the try, because all workers must agree on it.
    pause_s *= random.Random(f"{project.folder} {n_paused}").uniform(1 - JITTER, 1 + JITTER)  # noqa: S311
    spent_s = now - (before[0].finished_at or 0.0)
    left_s = pause_s - spent_s if 0 <= spent_s < pause_s else 0.0
    return Repeat(before[0].error or "its worker went away", tries, left_s)


def _has_no_readable_model(connection: Connection, project: Project) -> bool:
    """Whether a round from the base weights would help, and none has failed over it."""
    if project.live_problem is None or project.displaced_version is not None:
        return False
    newest = rounds.list_rounds(connection, project.project_id, 1)
    return not newest or newest[0].state not in ("failed", "cancelled")


def _is_draft_due(
    connection: Connection, project: Project, schema: LabelSchema, settings: Settings, now: float
) -> bool:
    """Whether a draft should bridge the time until the round that people pause for."""
    if _is_backing_off(connection, project, now):
        return False
    if not tasks.has_unsettled(connection, project.project_id, project.attempted_seq):
        return False
    if not assess_project(connection, project, schema, settings).ready:
        return False
    return is_draft_due(connection, project, schema, settings, now)


def _is_backing_off(connection: Connection, project: Project, now: float) -> bool:
    repeat = find_repeat(connection, project, now)
    return repeat is not None and repeat.pause_s > 0
