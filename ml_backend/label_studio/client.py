"""Label Studio's API as the learning loop needs it: projects, tasks, annotations, predictions."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from ml_backend.errors import LabelStudioRefusedError, LabelStudioUnavailableError, PayloadError
from ml_backend.label_studio import project_order
from ml_backend.label_studio.connection import Connection
from ml_backend.label_studio.json_rows import batch_rows
from ml_backend.label_studio.payloads import find_webhook_key, parse_project, parse_summary, parse_task
from ml_backend.ports import HeldPrediction, ProjectRecord, TaskRecord, TaskSummary

PAGE_SIZE = 250
"""The server loads whole predictions and annotations for each page, even to show ids alone."""

SUMMARY_FIELDS = "id,updated_at,data,annotations"
TASK_FIELDS = (
    "id,project,created_at,updated_at,data,annotations,"
    "result,completed_by,was_cancelled,lead_time,task,parent_prediction,parent_annotation"
)
"""`include` holds for the nested annotations too."""

MAX_BATCH = 200
MAX_BATCH_BYTES = 32_000_000
"""Label Studio takes 250 MiB per request and answers 500 above; far below, a failed batch costs little."""

_BAD_REQUEST = 400
_NOT_FOUND = 404

Condition = tuple[str, str, "int | list[int]"]
"""A column of the Data Manager, how it is compared, and with what."""

_Record = TypeVar("_Record")


class LabelStudioClient:
    """`ports.LabelStudio` over HTTP."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._project_of: dict[int, int] = {}

    def get_project(self, project_id: int) -> ProjectRecord:
        row = self._connection.request("GET", f"/api/projects/{int(project_id)}")
        return _understood(parse_project, row)

    def get_webhook_key(self, project_id: int) -> str:
        """The key in the headers of the project's webhooks, see `WEBHOOK_KEY_HEADER`; empty without one."""
        rows = self._connection.request("GET", "/api/webhooks/", params={"project": str(int(project_id))})
        return find_webhook_key(rows if isinstance(rows, list) else [])

    def iter_task_summaries(self, project_id: int) -> Iterator[TaskSummary]:
        """All tasks of a project in the order of their ids, without region data.

        Seen with Label Studio 1.23.2 (Data Manager listing with `include`): 3000 tasks in 1.5 s, 110 bytes
        each. A task's `updated_at` moves when one of its annotations is created, edited, skipped, deleted
        alone or in bulk, and when annotations are made from predictions. It also moves when a prediction
        is stored alone or retrieved from a backend, but not when predictions are imported in bulk. So an
        unchanged summary means unchanged annotations, and a changed one is worth a `get_task` where
        `annotation_ids` is not empty.

        Pages are cut by id, not by number: a task that is deleted meanwhile must not push another one
        out of sight, because what is not listed counts as deleted.
        """
        yield from self._iter_summaries(project_id)

    def iter_painted_summaries(self, project_id: int, known: Collection[int]) -> Iterator[TaskSummary]:
        """Tasks that have annotations, and those of `known` that are there without one, each once.

        What it costs grows with what people painted instead of with the project.
        """
        listed = set()
        for summary in self._iter_summaries(project_id, ("total_annotations", "greater", 0)):
            listed.add(summary.task_id)
            yield summary
        others = sorted(set(known) - listed)
        for start in range(0, len(others), PAGE_SIZE):
            chunk = others[start : start + PAGE_SIZE]
            for row in self._list_tasks(project_id, [("id", "in_list", chunk)], PAGE_SIZE, SUMMARY_FIELDS):
                yield self._noted(project_id, row)

    def _iter_summaries(self, project_id: int, *conditions: Condition) -> Iterator[TaskSummary]:
        last_id = 0
        while True:
            after: Condition = ("id", "greater", last_id)
            rows, before = (
                self._list_tasks(project_id, [after, *conditions], PAGE_SIZE, SUMMARY_FIELDS),
                last_id,
            )
            for row in rows:
                summary = self._noted(project_id, row)
                last_id = max(last_id, summary.task_id)
                yield summary
            if len(rows) < PAGE_SIZE:
                return
            if last_id == before:
                raise LabelStudioUnavailableError(
                    "Label Studio's task listing gives the same page again and again"
                )

    def _noted(self, project_id: int, row: object) -> TaskSummary:
        summary = _understood(parse_summary, row)
        self._project_of[summary.task_id] = project_id
        return summary

    def get_task(self, task_id: int) -> TaskRecord:
        """One task with its annotations; their streams stay lists of integers.

        A task that was listed before is asked for through the listing again: `GET /api/tasks/{id}` makes
        Label Studio call the backend's `/predict` and wait for it when the task has no prediction yet.
        """
        project_id = self._project_of.get(task_id)
        if project_id is None:
            row = self._connection.request(
                "GET", f"/api/tasks/{int(task_id)}", params={"resolve_uri": "false"}
            )
            return _understood(parse_task, row)
        rows = self._list_tasks(project_id, [("id", "equal", task_id)], 1, TASK_FIELDS)
        if not rows:
            raise LabelStudioRefusedError(f"Label Studio has no task {task_id}", _NOT_FOUND)
        return _understood(parse_task, rows[0], project_id)

    def push_predictions(self, project_id: int, predictions: Sequence[tuple[int, Mapping[str, Any]]]) -> int:
        """Store predictions in bulk; returns how many Label Studio kept.

        The bulk import checks every item: a wrong one is dropped in silence, but a task that is gone spoils
        its whole batch. Such a batch is halved until only the culprit is left out.
        """
        path = f"/api/projects/{int(project_id)}/import/predictions"
        rows = ({"task": task_id, **prediction} for task_id, prediction in predictions)
        return sum(self._push(path, batch) for batch in batch_rows(rows, MAX_BATCH, MAX_BATCH_BYTES))

    def list_predictions(
        self, project_id: int, task_ids: Sequence[int]
    ) -> dict[int, tuple[HeldPrediction, ...]]:
        return project_order.list_predictions(self._connection, project_id, task_ids)

    def list_predicted_regions(self, project_id: int, task_id: int) -> tuple[Mapping[str, Any], ...]:
        return project_order.list_predicted_regions(self._connection, project_id, task_id)

    def overwrite_prediction(
        self, project_id: int, task_id: int, prediction_id: int, prediction: Mapping[str, Any]
    ) -> None:
        project_order.overwrite_prediction(self._connection, project_id, task_id, prediction_id, prediction)

    def delete_prediction(self, prediction_id: int) -> None:
        project_order.delete_prediction(self._connection, prediction_id)

    def name_backend(
        self, project_id: int, ours: Collection[str], title: str, is_alike: Callable[[str], bool]
    ) -> None:
        project_order.name_backend(self._connection, project_id, ours, title, is_alike)

    def set_model_version(self, project_id: int, model_version: str) -> None:
        project_order.set_model_version(self._connection, project_id, model_version)

    def keep_tab(self, project_id: int, data: Mapping[str, Any]) -> None:
        project_order.keep_tab(self._connection, project_id, data)

    def _list_tasks(
        self, project_id: int, conditions: Sequence[Condition], page_size: int, fields: str
    ) -> list[Any]:
        items = [
            {"filter": f"filter:tasks:{column}", "operator": operator, "type": "Number", "value": value}
            for column, operator, value in conditions
        ]
        query = {"ordering": ["tasks:id"], "filters": {"conjunction": "and", "items": items}}
        params = {
            "project": int(project_id),
            "page": 1,
            "page_size": page_size,
            "fields": "all",
            "include": fields,
            "review": "true",  # keeps the listing from fetching predictions, and from computing columns
            "resolve_uri": "false",  # addresses as they were imported, the same as in webhooks
            "query": json.dumps(query),
        }
        answer = self._connection.request("GET", "/api/tasks", params=params)
        rows = answer.get("tasks") if isinstance(answer, Mapping) else None
        if not isinstance(rows, list):
            raise LabelStudioUnavailableError("Label Studio's task listing has no tasks in it")
        return rows

    def _push(self, path: str, batch: Sequence[bytes]) -> int:
        try:
            answer = self._connection.request("POST", path, content=b"[" + b",".join(batch) + b"]")
        except LabelStudioRefusedError as refusal:
            if refusal.status != _BAD_REQUEST:
                raise
            if len(batch) == 1:
                return 0
            middle = len(batch) // 2
            return self._push(path, batch[:middle]) + self._push(path, batch[middle:])
        return int(answer.get("created", 0)) if isinstance(answer, Mapping) else 0


def _understood(parse: Callable[..., _Record], *arguments: object) -> _Record:
    """Parse an answer; one that cannot be understood is the server's failure, not the caller's."""
    try:
        return parse(*arguments)
    except PayloadError as error:
        raise LabelStudioUnavailableError(f"Label Studio's answer cannot be understood: {error}") from None
