"""Bringing tasks in: pictures uploaded without a task of their own, then tasks that name them.

In this order a task has all of its data from its first moment. An upload that a killed run left without a
task is found again by its name.
"""

from __future__ import annotations

import json
import mimetypes
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from ml_backend.errors import LabelStudioUnavailableError
from ml_backend.label_studio.connection import Connection
from ml_backend.label_studio.json_rows import batch_rows

UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-")
DROPPED_IN_NAMES = re.compile(r"[^-\w.]")

UPLOAD_FILES = 50
UPLOAD_BYTES = 64_000_000
"""Label Studio refuses more than 100 files or 250 MiB in one body."""

MOST_TASKS = 50
MOST_TASK_BYTES = 32_000_000
"""Of tasks with their annotations in one body."""


def stored_name(name: str) -> str:
    """The name that Label Studio gives to an uploaded file, after its eight hex digits.

    Examples
    --------
    >>> stored_name("my cell (1).png")
    'my_cell_1.png'
    """
    return DROPPED_IN_NAMES.sub("", name.strip().replace(" ", "_"))


def plain_name(path: str) -> str:
    """The stored name in a path or address of an upload, without the digits before it."""
    return UPLOAD_PREFIX.sub("", PurePosixPath(path).name)


def mime_type(path: Path) -> str:
    return mimetypes.guess_type(path.name)[0] or "application/octet-stream"


def upload_batches(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """Files in groups that fit one body."""
    batch: list[Path] = []
    n_bytes = 0
    for path in paths:
        size = path.stat().st_size
        if batch and (len(batch) == UPLOAD_FILES or n_bytes + size > UPLOAD_BYTES):
            yield batch
            batch, n_bytes = [], 0
        batch.append(path)
        n_bytes += size
    if batch:
        yield batch


class Uploads:
    """What `brushloop import` does to one project."""

    def __init__(self, connection: Connection, project_id: int, prefix: str = "") -> None:
        self._connection = connection
        self._path = f"/api/projects/{int(project_id)}"
        self._prefix = prefix.rstrip("/")

    def list_uploads(self) -> dict[str, str]:
        """Address of each upload by its stored name."""
        rows = self._connection.request("GET", f"{self._path}/file-uploads", params={"all": "true"})
        return self._by_name(rows)

    def upload(self, names: Mapping[Path, str]) -> dict[str, str]:
        """Upload files under these names and make no tasks; returns each address by its stored name."""
        addresses: dict[str, str] = {}
        for batch in upload_batches(list(names)):
            with ExitStack() as files:
                parts = [
                    (f"file{i}", (names[path], files.enter_context(path.open("rb")), mime_type(path)))
                    for i, path in enumerate(batch)
                ]
                answer = self._connection.request(
                    "POST", f"{self._path}/import", params={"commit_to_project": "false"}, files=parts
                )
            params = {"ids": json.dumps(answer["file_upload_ids"])}
            addresses |= self._by_name(
                self._connection.request("GET", f"{self._path}/file-uploads", params=params)
            )
        missing = {stored_name(name) for name in names.values()} - set(addresses)
        if missing:
            raise LabelStudioUnavailableError(f"Label Studio did not keep the upload {sorted(missing)[0]}")
        return addresses

    def add_tasks(self, tasks: Sequence[Mapping[str, Any]]) -> None:
        """Make tasks, each with `data` and maybe `annotations`."""
        for batch in batch_rows(tasks, MOST_TASKS, MOST_TASK_BYTES):
            body = b"[" + b",".join(batch) + b"]"
            answer = self._connection.request("POST", f"{self._path}/import", content=body)
            if int(answer["task_count"]) != len(batch):
                raise LabelStudioUnavailableError(
                    f"Label Studio made {answer['task_count']} tasks of {len(batch)}: run this again"
                )

    def add_annotation(self, task_id: int, annotation: Mapping[str, Any]) -> None:
        """Give a task that is there one more annotation."""
        self._connection.request("POST", f"/api/tasks/{int(task_id)}/annotations/", json=dict(annotation))

    def _by_name(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        files = [str(row.get("file", "")) for row in rows]
        return {plain_name(file): f"{self._prefix}/data/{quote(file)}" for file in files}
