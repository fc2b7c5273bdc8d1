"""The status document: what a project waits for, what is going on, and what to do next."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sqlalchemy import Connection

from core.schema import LabelSchema
from core.training.stopping import StopAdvice
from core.truth.readiness import Readiness
from core.truth.thin_strokes import describe_net
from ml_backend.due import Repeat, assess_project, find_repeat
from ml_backend.label_studio.label_config import find_config
from ml_backend.moments import to_iso
from ml_backend.parts import Parts
from ml_backend.rounds import continuing
from ml_backend.rounds.concerns import (
    WeakClass,
    describe_few_steps,
    describe_refused,
    describe_weak_classes,
    find_weak_classes,
)
from ml_backend.rounds.lease import is_lost
from ml_backend.status.advice import ROUNDS_BACK, advise, judge_stopping
from ml_backend.status.ready import describe_disk, describe_workers
from ml_backend.status.taught import list_taught
from ml_backend.storage import annotations as annotation_rows
from ml_backend.storage import health, models, predictions, reviews, rounds, tasks
from ml_backend.storage.annotations import AnnotationCounts
from ml_backend.storage.models import StoredModel
from ml_backend.storage.projects import Project
from ml_backend.storage.rounds import StoredRound

State = Literal["waiting", "queued", "training", "refining", "idle", "error"]
"""`refining`: all truth is accounted for, and training goes on over it; `idle`: nothing is to be done."""

MAX_LINT_TASKS = 200
"""Tasks whose remarks are listed, those with the newest truth."""

NOTES = frozenset({"untouched-prediction", "net-like"})
"""Findings about what is no mistake."""

NOTHING_YET = Readiness(False, (), (), "")


@dataclass(frozen=True)
class _View:
    """Everything about a project at one moment."""

    project: Project
    problem: str | None  # with the labeling setup
    readiness: Readiness
    lint: list[dict[str, Any]]
    running: StoredRound | None
    last: StoredRound | None
    stopping: StopAdvice
    counts: AnnotationCounts
    has_work: bool  # truth changed, and no round has tried it yet
    repeat: Repeat | None  # the last rounds were interrupted


def describe(parts: Parts, connection: Connection, project: Project) -> dict[str, Any]:
    """The status document of a project, as `connection` sees it: the same transaction read `project`."""
    view = _read_view(parts, connection, project)
    model = models.find_model(connection, project.project_id, project.current_version)
    n_scored, n_stale = predictions.count_scored(connection, project.project_id, project.current_version)
    n_tasks = tasks.count_tasks(connection, project.project_id)
    settled = reviews.get_review(connection, project.project_id).settled_version
    weak, concern = _find_concern(parts, connection, view, model)
    state = _find_state(view)
    return {
        "project": project.project_id,
        "title": project.title,
        "state": state,
        "model_version": project.current_version,
        "draft": model.draft if model else False,
        "round": model.round if model else 0,
        "readiness": {
            "ready": view.readiness.ready,
            "classes": [_describe_class(asdict(row)) for row in view.readiness.classes],
            "lint": view.lint,
        },
        "taught": list_taught(connection, project.project_id),
        "training": _describe_running(view.running),
        "annotations": asdict(view.counts),
        "pool": {"tasks": n_tasks, "scored": n_scored, "stale": n_stale},
        # Scored, ranked, and all of it told to Label Studio.
        "in_order": settled is not None and settled == project.current_version,
        "weak_classes": [asdict(one) for one in weak],
        "advice": advise(
            view.readiness,
            view.stopping,
            problem=view.problem,
            has_failed=state == "error",
            repeat=_describe_repeat(view.repeat),
            cause=project.last_error,
            concern=concern,
        ),
        "stopping": asdict(view.stopping),
        "last_round": view.last.to_record() if view.last else None,
        "last_error": view.problem
        or project.live_problem
        or _describe_repeat(view.repeat)
        or (describe_workers(connection, parts) if state == "queued" else None)
        or _describe_troubles(connection, project)
        or describe_disk(parts),
    }


def _describe_troubles(connection: Connection, project: Project) -> str | None:
    """All that lasts, each cause once: the remedy of one may not be that of another."""
    lasting = [*health.list_troubles(connection, project.project_id), project.last_error]
    return "; ".join(dict.fromkeys(one for one in lasting if one)) or None


def describe_in_short(parts: Parts, connection: Connection, project: Project) -> dict[str, Any]:
    """One entry of the list of projects."""
    view = _read_view(parts, connection, project)
    return {
        "project": project.project_id,
        "title": project.title,
        "state": _find_state(view),
        "model_version": project.current_version,
        "annotations": asdict(view.counts),
    }


def rank(connection: Connection, project: Project, limit: int) -> list[dict[str, Any]]:
    """The tasks that the current model scored, least sure first."""
    ranked = predictions.rank_tasks(connection, project.project_id, project.current_version, limit)
    return [
        {"task": task.task_id, "score": task.score, "regions": json.loads(task.regions)} for task in ranked
    ]


def _read_view(parts: Parts, connection: Connection, project: Project) -> _View:
    project_id = project.project_id
    config, problem = find_config(project.label_config)
    if project.label_config == "":
        problem = None  # nothing was told yet, which is not an error
    found = tasks.list_findings(connection, project_id, MAX_LINT_TASKS)
    of_tasks = [{"task": task_id, **finding} for task_id, findings in found for finding in findings]
    readiness = NOTHING_YET
    if config is not None:
        nets = _find_nets(config.schema, of_tasks)
        readiness = assess_project(connection, project, config.schema, parts.settings, nets)
    lint = [{"task": None, **asdict(finding)} for finding in readiness.lint] + of_tasks
    lint.sort(key=lambda finding: finding["code"] in NOTES)  # what is to be mended comes first
    running = rounds.find_running(connection, project_id)
    listed = rounds.list_rounds(connection, project_id, ROUNDS_BACK)
    counts = annotation_rows.count(connection, project_id)
    has_work = tasks.has_unsettled(connection, project_id, project.attempted_seq)
    is_waiting = has_work or project.is_train_requested or counts.pending > 0
    return _View(
        project=project,
        problem=problem,
        readiness=readiness,
        lint=lint,
        running=running if running and not is_lost(running, parts.clock()) else None,
        last=next((stored for stored in listed if stored.state != "running"), None),
        stopping=judge_stopping(listed, config.schema if config else None, project.current_version),
        counts=counts,
        has_work=has_work,
        repeat=find_repeat(connection, project, parts.clock()) if is_waiting else None,
    )


def _find_nets(schema: LabelSchema, lint: Sequence[Mapping[str, Any]]) -> set[str]:
    said = {finding["message"] for finding in lint if finding["code"] == "net-like"}
    return {name for name in schema.names if any(text.startswith(describe_net(name)) for text in said)}


def _find_concern(
    parts: Parts, connection: Connection, view: _View, model: StoredModel | None
) -> tuple[list[WeakClass], str]:
    """The classes that the model in use did not learn, and what there is to say against it."""
    if model is None:
        return [], ""
    painted = [row.name for row in view.readiness.classes if row.pixels > 0]
    weak = find_weak_classes(json.loads(model.report), painted)
    last = view.last.to_record() if view.last else {}
    is_refused = last.get("state") == "done" and not last.get("promoted") and last.get("kind") != "draft"
    project_id = view.project.project_id
    n_unlearnt = annotation_rows.count_unlearnt(connection, project_id, model.round) if is_refused else 0
    own = view.running.number if view.running and view.running.kind == "continuation" else None
    goes_on = continuing.plan_next(connection, view.project, parts.settings, parts.clock(), own) is not None
    said = (
        describe_weak_classes(weak, goes_on=goes_on),
        describe_refused(n_unlearnt, goes_on=goes_on),
        describe_few_steps(last) if weak or n_unlearnt else "",
    )
    return weak, " ".join(filter(None, said))


def _find_state(view: _View) -> State:
    if view.running:
        return "refining" if view.running.kind == "continuation" else "training"
    if view.problem:
        return "error"
    if view.project.is_train_requested:
        return "queued"
    if view.last and view.last.state == "failed" and not view.has_work:
        return "error"
    if not view.readiness.ready:
        return "waiting"
    return "queued" if view.has_work or view.repeat else "idle"


def _describe_repeat(repeat: Repeat | None) -> str | None:
    if repeat is None:
        return None
    tries = "once" if repeat.tries == 1 else f"{repeat.tries} times"
    when = f"in about {repeat.pause_s:.0f} s" if repeat.pause_s else "as soon as a worker is free"
    return f"{repeat.cause}. The round was interrupted {tries} and is tried again {when}"


def _describe_class(row: Mapping[str, Any]) -> dict[str, Any]:
    """Background is painted as it comes: no number of its objects is advised."""
    return {**row, "advised_objects": 0 if row["role"] == "background" else row["advised_objects"]}


def _describe_running(running: StoredRound | None) -> dict[str, Any] | None:
    if running is None:
        return None
    return {
        "round": running.number,
        "kind": running.kind,
        "progress": round(running.progress, 3),
        "eta_s": None if running.eta_s is None else round(running.eta_s, 1),
        "started_at": to_iso(running.started_at),
    }
