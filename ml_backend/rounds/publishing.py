"""The two ends of a round: a snapshot of the truth, and one transaction that makes its outcome known."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from core.network.mixture import NETWORK, QUICK
from core.rounds import ExampleSummary, RoundSettings
from core.schema import LabelSchema
from ml_backend.label_studio.label_config import LabelConfig
from ml_backend.parts import Parts
from ml_backend.rounds.card_of_round import add_card
from ml_backend.rounds.concerns import describe_few_steps, find_weak_classes
from ml_backend.rounds.encoder_weights import find_encoder_base
from ml_backend.rounds.lease import Lease, LeaseLostError
from ml_backend.rounds.troubles import Ending, describe
from ml_backend.storage import efforts, expiry, models, rounds, tasks
from ml_backend.storage.artifacts import Artifacts
from ml_backend.storage.models import StoredModel
from ml_backend.storage.projects import Project, answer_train_requests, get_project, update_project
from ml_backend.storage.rounds import RoundState, Trouble
from ml_backend.storage.tasks import StoredTask
from ml_backend.strokes.build_truth import TaskTruth, find_retry_time
from ml_backend.strokes.effort import sum_up
from ml_backend.training import StoredExample, TrainedRound, TrainingSpec

log = logging.getLogger(__name__)

LEARNERS = {"all": (NETWORK, *QUICK), "quick": QUICK, "network": (NETWORK,)}
"""What the setting of this name trains."""


@dataclass(frozen=True)
class Snapshot:
    """The project's truth at one moment, the model that the round starts from, and the one in use."""

    truth_seq: int
    tasks: tuple[tuple[StoredTask, TaskTruth], ...]
    start: StoredModel | None
    current_version: str | None = None


def take_snapshot(parts: Parts, project: Project, schema: LabelSchema) -> Snapshot:
    """Read what the round will learn from, without what was built for another labeling setup."""
    with parts.database.read() as connection:
        current = get_project(connection, project.project_id)
        listed = tasks.list_truth(connection, project.project_id)
        is_usable = current.live_problem is None or current.displaced_version is not None
        version = current.current_version if is_usable else None
        start = _find_start(connection, project.project_id, version)
    built = [(task, TaskTruth.from_record(task.truth)) for task in listed if task.truth]
    usable = tuple(
        (task, truth) for task, truth in built if truth.maps is None or truth.classes == schema.names
    )
    return Snapshot(current.truth_seq, usable, start, current.current_version)


def _find_start(connection: Connection, project_id: int, version: str | None) -> StoredModel | None:
    """The current model, or the one before a draft that was only published to bridge the next round."""
    start = models.find_model(connection, project_id, version)
    while start is not None:
        made_in = rounds.find_round(connection, project_id, start.round)
        if made_in is None or made_in.kind != "draft":
            break
        start = models.find_model(connection, project_id, start.parent)
    return start


def write_spec(
    parts: Parts, project: Project, config: LabelConfig, snapshot: Snapshot, halvings: int = 0
) -> TrainingSpec:
    """Tell a training process all it needs."""
    artifacts, settings = parts.artifacts(project), parts.settings
    examples = tuple(
        _to_example(artifacts, project, task, truth, snapshot.start)
        for task, truth in snapshot.tasks
        if truth.maps
    )
    return TrainingSpec(
        schema=config.schema,
        examples=examples,
        start=artifacts.models / snapshot.start.folder if snapshot.start else None,
        output=artifacts.new_scratch(),
        settings=RoundSettings(
            budget_s=settings.round_budget_s,
            warm_budget_s=settings.round_warm_budget_s,
            max_steps=settings.round_steps,
            n_threads=settings.training_threads,
            learners=LEARNERS[settings.learners],
            device=settings.device,
            engine=settings.engine,
            encoder=settings.encoder,
            base=find_encoder_base(settings),
        ),
        now=parts.clock(),
        maps=artifacts.maps,
        halvings=halvings,
    )


def count_halvings(parts: Parts, lease: Lease) -> int:
    """How often memory ran out in the rounds right before this one."""
    requests = lease.project.train_requests
    with parts.database.read() as connection:
        before = rounds.list_interrupted(connection, lease.project.project_id, requests, before=lease.number)
    return sum(stored.trouble == "memory" for stored in before)


def _to_example(
    artifacts: Artifacts, project: Project, task: StoredTask, truth: TaskTruth, start: StoredModel | None
) -> StoredExample:
    summary = ExampleSummary(
        key=str(task.task_id),
        shape=truth.shape,
        class_pixels=truth.class_pixels,
        held_out_pixels=truth.held_out_pixels,
        class_objects=truth.class_objects,
        held_out_objects=truth.held_out_objects,
        is_new=start is None or task.truth_seq > start.truth_seq,
    )
    return StoredExample(
        summary, artifacts.truth / str(truth.maps), project.project_id, task.task_id, task.data
    )


PATIENCE_S = 600.0
"""So long is a trained model kept while the database or the disk refuses it: making it again takes longer."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 10.0


def publish_patiently(
    parts: Parts,
    lease: Lease,
    spec: TrainingSpec,
    snapshot: Snapshot,
    trained: TrainedRound,
    note: str | None,
) -> str | None:
    """Publish, again and again while the machine refuses it; the lease goes on beating meanwhile."""
    began, pause_s = time.monotonic(), FIRST_PAUSE_S
    while True:
        try:
            return publish(parts, lease, spec, snapshot, trained, note)
        except (SQLAlchemyError, OSError) as error:
            project_id, cause = lease.project.project_id, describe(error)
            log.warning("delay_publishing project=%d round=%d cause=%s", project_id, lease.number, cause)
            if time.monotonic() - began > PATIENCE_S or lease.should_stop():
                raise
        lease.wait(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def publish(
    parts: Parts,
    lease: Lease,
    spec: TrainingSpec,
    snapshot: Snapshot,
    trained: TrainedRound,
    note: str | None,
) -> str | None:
    """Make the round's outcome known, all of it or nothing; returns the version of a new model, or None."""
    artifacts = parts.artifacts(lease.project)
    version, now = None, parts.clock()
    told = " ".join(filter(None, (note, _describe_halvings(spec))))
    report = _complete_report(snapshot, trained, told or None, spec.schema)
    if trained.promoted:
        version = f"r{lease.number:04d}-{trained.fingerprint[:8]}"
        add_card(spec, lease, version, now, report)
        artifacts.publish(spec.output, version)
    with parts.database.write() as connection:
        if rounds.is_done(connection, lease.project.project_id, lease.number, version):
            return version  # the answer to an earlier try was lost, what it wrote was not
        took = efforts.list_open(connection, lease.project.project_id, snapshot.truth_seq)
        report = report | {"effort": sum_up(took)}
        if lease.kind != "draft":
            efforts.close(connection, lease.project.project_id, snapshot.truth_seq)
        end_round(connection, parts, lease, "done", report=report, model_version=version)
        if version is not None:
            parent = snapshot.start.model_version if snapshot.start else None
            model = models.to_model(version, lease.number, parent, snapshot.truth_seq, now, report)
            models.add_model(connection, lease.project.project_id, model)
            _make_current(connection, lease.project.project_id, version, snapshot.current_version)
            # Here, under the lease: no other round can be starting from what is dropped.
            models.drop_old(connection, lease.project.project_id, parts.settings.keep_models)
            expiry.drop_expired(connection, lease.project.project_id, now)
        rounds.drop_old_reports(connection, lease.project.project_id)
        if lease.kind != "draft":  # it accounts for nothing: the round that follows does
            _settle(connection, lease, snapshot, trained, now)
            update_project(
                connection, lease.project.project_id, attempted_seq=snapshot.truth_seq, last_error=None
            )
    return version


def end_round(
    connection: Connection,
    parts: Parts,
    lease: Lease,
    state: RoundState,
    *,
    report: Mapping[str, Any] | None = None,
    error: str | None = None,
    model_version: str | None = None,
    trouble: Trouble | None = None,
) -> None:
    """Close the round's row and the requests that it answers; raises `LeaseLostError` when it is not ours."""
    project_id = lease.project.project_id
    ended = rounds.finish(
        connection, project_id, lease.number, parts.owner, state, parts.clock(),
        report=report, error=error, model_version=model_version, trouble=trouble,
    )  # fmt: skip
    if not ended:
        raise LeaseLostError
    if state != "interrupted" and lease.kind == "round":
        answer_train_requests(connection, project_id, lease.project.train_requests)


def give_up(parts: Parts, lease: Lease, ending: Ending) -> None:
    """End a round that made no model. A failed or cancelled one is not repeated over the same truth."""
    project_id, state, cause = lease.project.project_id, ending.state, ending.cause
    log.warning("end_round project=%d round=%d state=%s cause=%s", project_id, lease.number, state, cause)
    try:
        with parts.database.write() as connection:
            end_round(connection, parts, lease, state, error=cause, trouble=ending.trouble)
            if state == "failed":
                update_project(connection, project_id, last_error=cause)
            if state != "interrupted" and lease.kind == "round":
                seq = get_project(connection, project_id).truth_seq
                update_project(connection, project_id, attempted_seq=min(seq, lease.truth_seq))
    except LeaseLostError:
        log.warning("lose_round project=%d round=%d", project_id, lease.number)
    except SQLAlchemyError as error:
        # The lease stops beating now, so whoever reaches the database first takes the round over.
        log.warning("leave_round project=%d round=%d cause=%s", project_id, lease.number, describe(error))


def _describe_halvings(spec: TrainingSpec) -> str | None:
    if not spec.halvings:
        return None
    times = "once" if spec.halvings == 1 else f"{spec.halvings} times"
    return f"Trained with fewer threads and smaller batches: memory ran out {times} before."


def _make_current(connection: Connection, project_id: int, version: str, before: str | None) -> None:
    """The new version counts, unless somebody went back to another one while it was made."""
    if get_project(connection, project_id).current_version == before:
        models.set_current(connection, project_id, version)


def _settle(
    connection: Connection, lease: Lease, snapshot: Snapshot, trained: TrainedRound, now: float
) -> None:
    project_id, skipped = lease.project.project_id, trained.report.get("skipped_images", {})
    for task, truth in snapshot.tasks:
        if task.settled_seq < task.built_seq:
            # What could not be opened was not trained on: it is settled as seen, not as used.
            used = () if str(task.task_id) in skipped or truth.error else truth.annotation_ids
            tasks.settle_task(connection, project_id, task, lease.number, used)
        if str(task.task_id) in skipped:
            tasks.postpone_task(connection, project_id, task.task_id, find_retry_time(truth, now))
    tasks.settle_deleted(connection, project_id, snapshot.truth_seq)


def _complete_report(
    snapshot: Snapshot, trained: TrainedRound, note: str | None, schema: LabelSchema
) -> dict[str, Any]:
    """Add what only the service knows: what is held out in all, images without truth, a warning."""
    unreadable = {str(task.task_id): truth.error for task, truth in snapshot.tasks if truth.error is not None}
    skipped = {**unreadable, **trained.report.get("skipped_images", {})}
    held_out = [truth.held_out_objects for _, truth in snapshot.tasks if truth.maps]
    objects = dict(zip(schema.names, map(sum, zip(*held_out, strict=True)), strict=False))
    weak = [asdict(one) for one in find_weak_classes(trained.report, schema.names)]
    told = " ".join(filter(None, (note, describe_few_steps(trained.report)))) or None
    return {
        **trained.report,
        "skipped_images": skipped,
        "held_out_objects": objects,
        "weak_classes": weak,
        "note": told,
    }
