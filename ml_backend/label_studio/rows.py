"""The rows and bodies of Label Studio's JSON, as far as they are needed; other keys are ignored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field


def _listed(value: object) -> object:
    """One row or a list of rows: Label Studio sends either under the same key."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _user_id(value: object) -> object:
    """Some answers spell out the user instead of giving the id."""
    return value.get("id") if isinstance(value, Mapping) else value


def _or_empty(value: object) -> object:
    return [] if value is None else value


RowId = Annotated[int, Field(strict=True, ge=1, le=2**63 - 1)]
LONGEST_LEAD_TIME_S = 31 * 24 * 3600.0
"""Nobody paints one annotation for longer; sums and means of anything larger leave the range of numbers."""


def _or_unknown(value: object) -> object:
    """How long something took is for statistics: a senseless number is no reason to lose a stroke."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if is_number and 0 <= float_or_inf(value) <= LONGEST_LEAD_TIME_S else None


def float_or_inf(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except OverflowError:
        return float("inf")


Seconds = Annotated[float | None, BeforeValidator(_or_unknown)]


class Row(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class IdRow(Row):
    id: RowId


class ProjectRow(Row):
    id: RowId
    title: str | None = None
    label_config: str | None = None
    model_version: str | None = None
    created_at: str
    task_number: int | None = None


class AnnotationRow(Row):
    id: RowId
    task: RowId | None = None
    completed_by: Annotated[RowId | None, BeforeValidator(_user_id)] = None
    created_at: str | None = None
    updated_at: str | None = None
    was_cancelled: bool | None = False
    result: Annotated[list[Any], BeforeValidator(_or_empty)]
    lead_time: Seconds = None
    parent_prediction: int | None = None
    parent_annotation: int | None = None


class DraftRow(Row):
    result: Annotated[list[Any], BeforeValidator(_or_empty)] = Field(default_factory=list)


class TaskRow(Row):
    id: RowId
    data: dict[str, Any]
    project: RowId | None = None
    updated_at: str | None = None
    annotations: Annotated[list[AnnotationRow], BeforeValidator(_or_empty)] = Field(default_factory=list)


class OpenTaskRow(TaskRow):
    """A task as somebody has it open, with the drafts of that person."""

    drafts: Annotated[list[DraftRow], BeforeValidator(_or_empty)] = Field(default_factory=list)


class ListedTaskRow(Row):
    """A task as the Data Manager lists it, its annotations by id alone."""

    id: RowId
    data: dict[str, Any]
    updated_at: str
    annotations: list[IdRow]


class SetupBody(Row):
    project: str | int
    label_config: str = Field(validation_alias=AliasChoices("schema", "label_config"))
    hostname: str = ""
    access_token: str | None = None
    extra_params: Any = None


class PredictParams(Row):
    context: dict[str, Any] | None = None


class PredictBody(Row):
    project: str | int
    tasks: list[OpenTaskRow]
    label_config: str | None = None
    params: PredictParams | None = None


class EventHead(Row):
    action: Annotated[str, Field(max_length=100)]
    project: ProjectRow


class SavedAnnotations(Row):
    annotations: Annotated[list[AnnotationRow], BeforeValidator(_listed)] = Field(
        validation_alias=AliasChoices("annotation", "annotations")
    )
    tasks: Annotated[list[TaskRow], BeforeValidator(_listed)] = Field(
        default_factory=list, validation_alias=AliasChoices("task", "tasks")
    )


class DeletedAnnotations(Row):
    annotations: Annotated[list[IdRow], BeforeValidator(_listed)] = Field(
        validation_alias=AliasChoices("annotations", "annotation")
    )


class CreatedTasks(Row):
    tasks: Annotated[list[TaskRow], BeforeValidator(_listed)] = Field(
        validation_alias=AliasChoices("tasks", "task")
    )


class DeletedTasks(Row):
    tasks: Annotated[list[IdRow], BeforeValidator(_listed)] = Field(
        validation_alias=AliasChoices("tasks", "task")
    )
