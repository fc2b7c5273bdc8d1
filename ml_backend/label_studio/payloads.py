"""Label Studio's JSON read into plain records: what it posts to us, and what its API answers.

Unknown keys are ignored, what is needed is checked, and a `PayloadError` names the field.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from ml_backend.errors import PayloadError
from ml_backend.label_studio.field_words import describe_field, name_field
from ml_backend.label_studio.rows import (
    AnnotationRow,
    CreatedTasks,
    DeletedAnnotations,
    DeletedTasks,
    EventHead,
    ListedTaskRow,
    OpenTaskRow,
    PredictBody,
    ProjectRow,
    SavedAnnotations,
    SetupBody,
    TaskRow,
)
from ml_backend.label_studio.stamps import check_stamp, to_unix_time
from ml_backend.ports import AnnotationRecord, ProjectRecord, TaskRecord, TaskSummary

EventKind = Literal[
    "annotations-saved",
    "annotations-deleted",
    "tasks-created",
    "tasks-deleted",
    "project-updated",
    "start-training",
    "ignored",
]

WEBHOOK_KEY_HEADER = "X-Brushloop-Key"
"""`brushloop setup` writes it into the webhook: nobody else can then speak for the project."""

_KINDS: Mapping[str, EventKind] = {
    "ANNOTATION_CREATED": "annotations-saved",
    "ANNOTATIONS_CREATED": "annotations-saved",
    "ANNOTATION_UPDATED": "annotations-saved",
    "ANNOTATIONS_UPDATED": "annotations-saved",
    "ANNOTATION_DELETED": "annotations-deleted",
    "ANNOTATIONS_DELETED": "annotations-deleted",
    "TASK_CREATED": "tasks-created",
    "TASKS_CREATED": "tasks-created",
    "TASK_DELETED": "tasks-deleted",
    "TASKS_DELETED": "tasks-deleted",
    "PROJECT_UPDATED": "project-updated",
    "START_TRAINING": "start-training",
}


@dataclass(frozen=True)
class SetupRequest:
    """`POST /setup`. `access_token` is a legacy key, which Label Studio itself refuses by default."""

    project_id: int
    created_at: str
    label_config: str
    hostname: str
    access_token: str | None
    extra_params: Any = None


@dataclass(frozen=True)
class PredictRequest:
    """`POST /predict`. `context` is what an interactive call brings, else None.

    `painted` are results of the first task, of an interactive call: the person's drafts, or what was
    submitted where there are none.
    """

    project_id: int
    created_at: str
    tasks: tuple[TaskRecord, ...]
    label_config: str | None = None
    context: Mapping[str, Any] | None = None
    painted: tuple[Sequence[Any], ...] = ()


@dataclass(frozen=True)
class WebhookEvent:
    """`POST /webhook`. `kind` says which of the fields are filled; `action` is Label Studio's own word.

    `tasks` of `annotations-saved` are the images that were annotated, each once. No task of an event lists
    its annotations: an empty tuple there means "not told", and imported tasks may well have some.
    """

    action: str
    kind: EventKind
    project: ProjectRecord
    annotations: tuple[AnnotationRecord, ...] = ()
    deleted_annotation_ids: tuple[int, ...] = ()
    tasks: tuple[TaskRecord, ...] = ()
    deleted_task_ids: tuple[int, ...] = ()


def parse_setup(body: object) -> SetupRequest:
    """Read the body of `/setup`."""
    setup = _validate(SetupBody, body)
    project_id, created_at = _split_project(setup.project)
    token = setup.access_token or None
    return SetupRequest(project_id, created_at, setup.label_config, setup.hostname, token, setup.extra_params)


def parse_predict(body: object) -> PredictRequest:
    """Read the body of `/predict`, batch or interactive."""
    predict = _validate(PredictBody, body)
    project_id, created_at = _split_project(predict.project)
    tasks = tuple(_to_task(task, project_id) for task in predict.tasks)
    context = predict.params.context if predict.params else None
    painted = () if context is None or not predict.tasks else _find_painted(predict.tasks[0])
    return PredictRequest(project_id, created_at, tasks, predict.label_config, context, painted)


def _find_painted(task: OpenTaskRow) -> tuple[Sequence[Any], ...]:
    """A draft holds what the person sees now, so what it began from no longer counts."""
    drafts = tuple(draft.result for draft in task.drafts if draft.result)
    return drafts or tuple(one.result for one in task.annotations if not one.was_cancelled)


def parse_webhook(body: object) -> WebhookEvent:
    """Read the body of `/webhook`; an action that Brushloop does not know is of kind `ignored`."""
    head = _validate(EventHead, body)
    # Newer versions of Label Studio know more actions: one of them must not fail the webhook.
    event = WebhookEvent(head.action, _KINDS.get(head.action, "ignored"), _to_project(head.project))
    if event.kind == "annotations-saved":
        return _with_saved(event, _validate(SavedAnnotations, body))
    if event.kind == "annotations-deleted":
        rows = _validate(DeletedAnnotations, body).annotations
        return replace(event, deleted_annotation_ids=tuple(row.id for row in rows))
    if event.kind == "tasks-created":
        tasks = _validate(CreatedTasks, body).tasks
        return replace(event, tasks=tuple(_to_task(task, event.project.project_id) for task in tasks))
    if event.kind == "tasks-deleted":
        return replace(event, deleted_task_ids=tuple(row.id for row in _validate(DeletedTasks, body).tasks))
    return event


def find_webhook_key(rows: Sequence[object]) -> str:
    """The key that `brushloop setup` wrote into one of these webhooks, or nothing.

    Examples
    --------
    >>> find_webhook_key([{"headers": {}}, {"headers": {"X-Brushloop-Key": "secret"}}])
    'secret'
    >>> find_webhook_key([{"headers": None}])
    ''
    """
    for row in rows:
        headers = row.get("headers") if isinstance(row, Mapping) else None
        for name, value in headers.items() if isinstance(headers, Mapping) else ():
            if str(name).casefold() == WEBHOOK_KEY_HEADER.casefold() and isinstance(value, str) and value:
                return value
    return ""


def parse_project(body: object) -> ProjectRecord:
    """Read a project row of the API."""
    return _to_project(_validate(ProjectRow, body))


def parse_task(body: object, project_id: int | None = None) -> TaskRecord:
    """Read a task row of the API; `project_id` counts where the row names none."""
    task = _validate(TaskRow, body)
    owner = task.project or project_id
    if owner is None:
        raise PayloadError("project: Field required")
    return _to_task(task, owner)


def parse_summary(body: object) -> TaskSummary:
    """Read a row of the task listing."""
    row = _validate(ListedTaskRow, body)
    return TaskSummary(
        row.id, row.updated_at, tuple(annotation.id for annotation in row.annotations), row.data
    )


_PROJECT = re.compile(r"(?P<id>[1-9][0-9]{0,17})(\.(?P<created_at>[0-9]{0,12}))?")

_Model = TypeVar("_Model", bound=BaseModel)


def _validate(model: type[_Model], body: object) -> _Model:
    """Validate, and turn the first complaint into one line with the field's name and without its content."""
    if not isinstance(body, Mapping):
        raise PayloadError(f"the body must be a JSON object, not {type(body).__name__}")
    try:
        return model.model_validate(body)
    except ValidationError as error:
        complaint = error.errors(include_url=False, include_input=False, include_context=False)[0]
        field = describe_field(complaint["loc"], body)
        # Without its cause, which repeats the value: a body may hold a secret.
        raise PayloadError(f"{field}: {complaint['msg']}") from None
    # A stranger chooses how deep a body is, and validation walks it by recursion.
    except RecursionError:
        raise PayloadError("the body is nested too deeply") from None


def _split_project(value: str | int) -> tuple[int, str]:
    """`"<id>.<unix time of creation>"`; the time may be missing."""
    match = _PROJECT.fullmatch(str(value))
    if match is None:
        raise PayloadError('project: expected "<id>.<unix time of creation>"')
    return int(match["id"]), match["created_at"] or ""


def _with_saved(event: WebhookEvent, saved: SavedAnnotations) -> WebhookEvent:
    """Lists of annotations come with a parallel list of tasks, in which a task may repeat."""
    tasks = {task.id: _to_task(task, event.project.project_id) for task in saved.tasks}
    # A list of another length is not parallel: then each annotation has to name its own task.
    parallel = [task.id for task in saved.tasks] if len(saved.tasks) == len(saved.annotations) else []
    annotations = tuple(
        _to_annotation(annotation, parallel[i] if parallel else None, f"annotation.{i}")
        for i, annotation in enumerate(saved.annotations)
    )
    return replace(event, annotations=annotations, tasks=tuple(tasks.values()))


def _to_project(project: ProjectRow) -> ProjectRecord:
    return ProjectRecord(
        project_id=project.id,
        title=project.title or "",
        label_config=project.label_config or "",
        model_version=project.model_version or None,
        created_at=to_unix_time(project.created_at),
        n_tasks=project.task_number,
    )


def _to_task(task: TaskRow, project_id: int) -> TaskRecord:
    annotations = tuple(
        _to_annotation(annotation, task.id, f"annotations.{i}")
        for i, annotation in enumerate(task.annotations)
    )
    return TaskRecord(task.id, project_id, task.data, task.updated_at or "", annotations)


def _to_annotation(annotation: AnnotationRow, task_id: int | None, place: str) -> AnnotationRecord:
    task = annotation.task or task_id
    if task is None:
        raise PayloadError(f"{name_field(annotation.id, place, 'task')}: Field required")
    return AnnotationRecord(
        annotation_id=annotation.id,
        task_id=task,
        user_id=annotation.completed_by,
        updated_at=_find_stamp(annotation, place),
        was_cancelled=bool(annotation.was_cancelled),
        result=_with_origins(annotation),
        lead_time_s=annotation.lead_time,
        from_prediction=annotation.parent_prediction is not None,
        copied_from=annotation.parent_annotation,
    )


def _find_stamp(annotation: AnnotationRow, place: str) -> str:
    """The time of the last change, or of the creation where no change is told; empty without either."""
    for field, text in (("updated_at", annotation.updated_at), ("created_at", annotation.created_at)):
        if text:
            return check_stamp(text, name_field(annotation.id, place, field))
    return ""


def _with_origins(annotation: AnnotationRow) -> list[Any]:
    """Mark copies of model output as such.

    The browser writes an `origin` into every region, and a time that it took into the annotation. "Create
    annotations from predictions" copies the prediction's regions as they are: without an `origin`, or with
    one that says `manual` where a program wrote it. Without the mark they would count as painted by hand, and
    the model would learn from itself.
    """
    if annotation.parent_prediction is None:
        return list(annotation.result)
    nobody_worked = annotation.lead_time is None
    return [
        {**region, "origin": "prediction"}
        if isinstance(region, dict)
        and (not region.get("origin") or (nobody_worked and region.get("origin") == "manual"))
        else region
        for region in annotation.result
    ]
