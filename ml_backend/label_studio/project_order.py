"""Label Studio's API for the order of a project: single predictions, the backend's title, version, tab."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ml_backend.errors import LabelStudioRefusedError, LabelStudioUnavailableError
from ml_backend.label_studio.connection import Connection
from ml_backend.ports import HeldPrediction

BACKEND_TITLE = "Brushloop"
"""Of a connected backend, until its first model gives it another."""

_VERSION_TITLE = re.compile(r"r\d{4,}-[0-9a-f]{8}")
_NOT_FOUND = 404

NEW_TAB: Mapping[str, Any] = {
    "type": "grid",  # the image first; whoever likes a list better switches once, and it stays
    "target": "tasks",
    "gridWidth": 4,
}

NO_PREDICTIONS = "Label Studio's task listing has no predictions in it"


@contextmanager
def _understanding(what: str) -> Iterator[None]:
    """An answer of another shape is the server's failure, and passes with it."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        raise LabelStudioUnavailableError(f"Label Studio's list of {what} cannot be understood") from None


def is_our_title(title: str) -> bool:
    """Whether a backend of this title is Brushloop: by its first name, or by that of a model.

    Examples
    --------
    >>> [is_our_title(title) for title in ("Brushloop", "r0007-1a2b3c4d", "SAM")]
    [True, True, False]
    """
    return title == BACKEND_TITLE or _VERSION_TITLE.fullmatch(title) is not None


def list_predictions(
    connection: Connection, project_id: int, task_ids: Sequence[int]
) -> dict[int, tuple[HeldPrediction, ...]]:
    """What the tasks have, in one call; the listing sends all regions along, so ask for few tasks at once."""
    try:
        return {
            int(row["id"]): tuple(
                HeldPrediction(int(p["id"]), str(p.get("model_version") or ""), p.get("score"))
                for p in row["predictions"]
            )
            for row in _list_with_predictions(connection, project_id, task_ids)
        }
    except (KeyError, TypeError, ValueError):
        raise LabelStudioUnavailableError(NO_PREDICTIONS) from None


def list_predicted_regions(
    connection: Connection, project_id: int, task_id: int
) -> tuple[Mapping[str, Any], ...]:
    """All regions of all predictions that the task has, from anybody."""
    try:
        return tuple(
            region
            for row in _list_with_predictions(connection, project_id, [task_id])
            for prediction in row["predictions"]
            for region in prediction["result"] or ()
            if isinstance(region, Mapping)
        )
    except (KeyError, TypeError):
        raise LabelStudioUnavailableError(NO_PREDICTIONS) from None


def _list_with_predictions(connection: Connection, project_id: int, task_ids: Sequence[int]) -> Any:
    by_id = {"filter": "filter:tasks:id", "operator": "in_list", "type": "Number", "value": list(task_ids)}
    params = {
        "project": int(project_id),
        "page": 1,
        "page_size": max(len(task_ids), 1),
        "fields": "all",
        "include": "id,predictions",
        "review": "true",  # keeps the listing from asking the backend for predictions
        "resolve_uri": "false",
        "query": json.dumps({"filters": {"conjunction": "and", "items": [by_id]}}),
    }
    answer = connection.request("GET", "/api/tasks", params=params)
    return answer["tasks"]


def overwrite_prediction(
    connection: Connection, project_id: int, task_id: int, prediction_id: int, prediction: Mapping[str, Any]
) -> None:
    """Put another content into a prediction; task and project are needed for the server's own check of it."""
    body = {"task": int(task_id), "project": int(project_id), **prediction}
    content = json.dumps(body, allow_nan=False).encode()
    _request_present(connection, "PATCH", f"/api/predictions/{int(prediction_id)}/", content)


def delete_prediction(connection: Connection, prediction_id: int) -> None:
    """Delete one prediction.

    Deleting a whole version through the project would empty `project.model_version`, and the Data Manager's
    action deletes everybody's.
    """
    _request_present(connection, "DELETE", f"/api/predictions/{int(prediction_id)}/")


@_understanding("backends")
def name_backend(
    connection: Connection,
    project_id: int,
    ours: Collection[str],
    title: str,
    is_alike: Callable[[str], bool],
) -> None:
    """Give our backend this title; where none is known by a name of `ours`, one whose title `is_alike`.

    Where the old title was the project's version, the server moves that along. Listing and renaming make
    the server call `/health` and `/setup`, and wait for them.
    """
    rows = connection.request("GET", "/api/ml", params={"project": int(project_id)})
    our_names = {*ours, BACKEND_TITLE, title}
    matching = [row for row in rows if row.get("model_version") in our_names or row.get("title") in our_names]
    # An older database that was brought back does not know what the newest title was.
    matching = matching or [row for row in rows if is_alike(str(row.get("title")))]
    if not matching:
        return
    row = min(matching, key=lambda row: int(row["id"]))  # the server asks the first one only
    if row.get("title") == title:
        return
    body = {"url": row["url"], "project": int(project_id), "title": title}
    if row.get("auth_method") == "BASIC_AUTH":
        # An empty password keeps the stored one; without the three fields the call is refused.
        body |= {
            "auth_method": "BASIC_AUTH",
            "basic_auth_user": row["basic_auth_user"],
            "basic_auth_pass": "",
        }
    connection.request("PATCH", f"/api/ml/{int(row['id'])}", json=body)


def set_model_version(connection: Connection, project_id: int, model_version: str) -> None:
    """Refused with 400 while neither a prediction nor a backend's title has this name."""
    connection.request("PATCH", f"/api/projects/{int(project_id)}", json={"model_version": model_version})


@_understanding("tabs")
def keep_tab(connection: Connection, project_id: int, data: Mapping[str, Any]) -> None:
    """Make the tab of this title, or repair the oldest one and delete its doubles."""
    rows = connection.request("GET", "/api/dm/views", params={"project": int(project_id)})
    same = sorted(
        (row for row in rows if row["data"].get("title") == data["title"]), key=lambda row: row["id"]
    )
    if not same:
        body = {"project": int(project_id), "data": {**NEW_TAB, **data}}
        connection.request("POST", "/api/dm/views", json=body)
        return
    body = {"project": int(project_id), "data": {**same[0]["data"], **data}}
    connection.request("PATCH", f"/api/dm/views/{int(same[0]['id'])}/", json=body)
    for double in same[1:]:
        _request_present(connection, "DELETE", f"/api/dm/views/{int(double['id'])}/")


def _request_present(connection: Connection, method: str, path: str, content: bytes | None = None) -> None:
    """Send one call; what is gone needs nothing more."""
    try:
        connection.request(method, path, content=content)
    except LabelStudioRefusedError as refusal:
        if refusal.status != _NOT_FOUND:
            raise
