"""Trainings that nobody asks for: a draft before a round, and continuations after it.

A draft bridges the time until the round is over: it is published when a project has no model, or none that
knows a class which was painted for the first time. It accounts for nothing, and the round starts from what
was there before it. Continuations train on over the truth that a round has accounted for, also when its
model was refused, until `core.training.consolidation` sees no gain. They give way to everything else.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile

from sqlalchemy import Connection

from core.network.mixture import NETWORK
from core.schema import LabelSchema
from core.training.consolidation import Continued, learners_of_continuation, plan_budget
from ml_backend.config import Settings
from ml_backend.moments import has_passed
from ml_backend.parts import Parts
from ml_backend.rounds.lease import GivesWay, Lease, is_here, is_lost
from ml_backend.storage import models, reviews, rounds, tasks
from ml_backend.storage.projects import Project, find_project
from ml_backend.storage.rounds import RoundState, StoredRound
from ml_backend.training import TrainingSpec

QUIET_S = 5.0
"""So long after somebody waited for a prediction, or painted, no continuation begins."""

WORTH_S = 10.0
"""A continuation that gives way earlier has learnt nothing that is worth a new version."""

MAX_BROKEN_OFF = 2
"""Drafts before one round, however often it is repeated, and continuations over one truth, that were killed,
before nobody tries again."""

ROUNDS_BACK = 30
"""Rows that are read: more than the continuations over one truth."""


def to_draft(spec: TrainingSpec, settings: Settings) -> TrainingSpec:
    """The same training within the few seconds of a draft, which are too few to train the network.

    Where no checked model is there to compare it with, it learns from all truth.
    """
    learners = tuple(name for name in spec.settings.learners if name != NETWORK)
    short = replace(
        spec.settings,
        budget_s=settings.draft_s,
        warm_budget_s=settings.draft_s,
        learners=learners or spec.settings.learners,
    )
    return replace(spec, settings=short, holds_out=spec.start is not None)


def to_continuation(spec: TrainingSpec, budget_s: float, number: int) -> TrainingSpec:
    """The same training for longer, with patches of its own, and last in the queue for the processor.

    The encoder learns too, for which a round has no time; but not where memory has run out before, for its
    patches cannot be fewer.
    """
    seed, learners = spec.settings.seed + number, spec.settings.learners
    longer = replace(
        spec.settings,
        budget_s=budget_s,
        warm_budget_s=budget_s,
        seed=seed,
        learners=learners if spec.halvings else learners_of_continuation(learners),
    )
    return replace(spec, settings=longer, is_patient=True)


def is_draft_due(
    connection: Connection, project: Project, schema: LabelSchema, settings: Settings, now: float
) -> bool:
    """Whether something usable is painted that the model in use cannot answer, and no draft was tried."""
    if not settings.draft_s or settings.round_steps is not None:
        return False
    listed = rounds.list_rounds(connection, project.project_id, ROUNDS_BACK)
    if listed and _state_of(listed[0], now) == "running":
        return False

    def is_before_the_round(stored: StoredRound) -> bool:
        is_repeated = stored.kind == "round" and _state_of(stored, now) == "interrupted"
        return stored.kind == "draft" or is_repeated

    before = takewhile(is_before_the_round, listed)
    tried = [_state_of(one, now) for one in before if one.kind == "draft"]
    if tried.count("interrupted") < len(tried) or len(tried) >= MAX_BROKEN_OFF:
        return False
    model = models.find_model(connection, project.project_id, project.current_version)
    if model is None:
        return True
    trained_pixels = (json.loads(model.report).get("seen") or {}).get("pixels") or {}
    counts = tasks.sum_counts(connection, project.project_id)
    return any(
        counts.get(index, (0, 0))[0] >= settings.min_pixels_per_class and not trained_pixels.get(name)
        for index, name in enumerate(schema.names)
    )


def plan_continuation(
    connection: Connection, project: Project, settings: Settings, now: float, own: int | None = None
) -> float | None:
    """Seconds of the continuation that is due, or None; `own` is the number of the one that asks."""
    moments = reviews.last_asked(connection), project.last_truth_at
    if not all(has_passed(moment, QUIET_S, now) for moment in moments) or _is_wanted(
        connection, project, now
    ):
        return None
    return plan_next(connection, project, settings, now, own)


def plan_next(
    connection: Connection, project: Project, settings: Settings, now: float, own: int | None = None
) -> float | None:
    """Seconds of the continuation that comes when people pause, or None where training is over."""
    if not settings.consolidate_s or settings.round_steps is not None:
        return None
    if project.current_version is None or project.live_problem is not None:
        return None
    listed = rounds.list_rounds(connection, project.project_id, ROUNDS_BACK)
    after = _list_after_round([stored for stored in listed if stored.number != own], now)
    if after is None:
        return None
    newest = next((one.model_version for one in reversed(after) if one.model_version), None)
    if newest is not None and newest != project.current_version:
        return None  # somebody went back to another version: it is theirs to say what follows
    done = [_to_continued(one) for one in after[1:] if one.state == "done"]
    return plan_budget(done, settings.consolidate_s)


def give_way(parts: Parts, project: Project) -> GivesWay:
    """Ask with every beat whether there is something better to do than to go on."""
    with parts.database.read() as connection:
        asked_at = reviews.last_asked(connection)

    def gives_way(connection: Connection) -> bool:
        current = find_project(connection, project.project_id)
        if current is None or current.truth_seq != project.truth_seq:
            return True
        # Compared with what it was, not with a clock: other machines have their own.
        return reviews.last_asked(connection) != asked_at or _is_wanted(connection, current, parts.clock())

    return gives_way


def forget_round(parts: Parts, lease: Lease) -> None:
    """Leave no trace of a round that gave way before it made anything."""
    with parts.database.write() as connection:
        rounds.forget(connection, lease.project.project_id, lease.number, parts.owner)


def _is_wanted(connection: Connection, project: Project, now: float) -> bool:
    """Whether a round is asked for or waits, or this machine trains for another project."""
    if project.is_train_requested or tasks.has_unsettled(
        connection, project.project_id, project.attempted_seq
    ):
        return True
    return any(
        number != project.project_id and is_here(running.owner) and not is_lost(running, now)
        for number, running in rounds.list_running(connection)
    )


def _state_of(stored: StoredRound, now: float) -> RoundState:
    """A round whose worker was killed still calls itself running, until another one takes its place."""
    return "interrupted" if stored.state == "running" and is_lost(stored, now) else stored.state


def _list_after_round(listed: Sequence[StoredRound], now: float) -> list[StoredRound] | None:
    """The newest round and what went on after it, oldest first; None where nothing may go on."""
    chain: list[StoredRound] = []
    for stored in listed:
        chain.insert(0, stored)
        if stored.kind == "round":
            break
    else:
        return None
    if chain[0].state != "done" or any(one.kind == "draft" for one in chain):
        return None
    states = [_state_of(one, now) for one in chain[1:]]
    if {"failed", "cancelled", "running"} & set(states) or states.count("interrupted") >= MAX_BROKEN_OFF:
        return None
    return chain


def _to_continued(stored: StoredRound) -> Continued:
    report = json.loads(stored.report or "{}")
    return Continued(
        seconds=float(report.get("seconds") or 0.0),
        gain=(report.get("changed") or {}).get("mean_dice"),
        promoted=stored.model_version is not None,
        draft=bool(report.get("draft")),
    )
