"""Whether the service can do its work: database, queue, workers, disk, Label Studio; each with its remedy."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from ml_backend.parts import Parts
from ml_backend.processes.process_identity import is_gone
from ml_backend.processes.remedies import describe_temporary
from ml_backend.processes.scratch import forget_lost_temporary_folder
from ml_backend.rounds.troubles import describe
from ml_backend.storage import health
from ml_backend.storage.installation import refuse_lost_folder

SILENT_AFTER_S = 20.0
"""Workers show themselves every few seconds; one that did not for so long is taken for gone."""
LEAST_FREE_BYTES, LEAST_FREE_FILES = 500_000_000, 1_000
"""With less on the disk a round may not be able to save its model, or label maps theirs."""
PROBE_BYTES = 32_768

NEEDED = ("database", "queue", "workers", "disk")
"""Without any of these work stands still; without Label Studio what is here goes on."""


def check(parts: Parts) -> Mapping[str, Any]:
    """`ready`, and per part None or a sentence with cause and remedy."""
    checks: dict[str, str | None] = {
        "database": None,
        "queue": parts.queue_problem(),
        "workers": None,
        "disk": describe_disk(parts),
        "label_studio": None,
    }
    try:
        with parts.database.read() as connection:
            checks["workers"] = describe_workers(connection, parts)
            checks["label_studio"] = next(iter(health.list_troubles(connection)), None)
        checks["database"] = describe_database(parts)
    except (SQLAlchemyError, OSError) as error:
        checks["database"] = describe(error)
    return {"ready": all(checks[name] is None for name in NEEDED), "checks": checks}


def describe_workers(connection: Connection, parts: Parts) -> str | None:
    """That no worker is seen, or None."""
    now, seen = parts.clock(), health.list_workers(connection)
    living = [max(now - seen_at, 0.0) for owner, seen_at in seen if not is_gone(owner)]
    if living and min(living) <= SILENT_AFTER_S:
        return None
    if not seen:
        return "no worker has ever been seen: start `brushloop worker`"
    silent_s = min(max(now - seen_at, 0.0) for _, seen_at in seen)
    unseen = f"no worker has been seen for {silent_s:.0f} s"
    # A worker shows itself by writing: where nobody can write, it may be well, or hold the others.
    problem = describe_database(parts)
    return f"{problem}; {unseen}" if problem else f"{unseen}: start `brushloop worker`"


def describe_database(parts: Parts) -> str | None:
    """That the database can be read and not written to, or None."""
    try:
        parts.database.check_writable()
    except SQLAlchemyError as error:
        return describe(error)
    return None


def describe_disk(parts: Parts) -> str | None:
    """That the disk is almost full or cannot be written to, or None."""
    folder = parts.settings.data_dir
    try:
        refuse_lost_folder(folder)
        free, files = shutil.disk_usage(folder).free, os.statvfs(folder)
        if files.f_files and files.f_favail < LEAST_FREE_FILES:  # none in all: it does not count them
            return f"only {files.f_favail} more files fit on the disk of DATA_DIR (`df -i`): remove some"
        # A quota, a limit, or a disk that became read-only does not show in what is free.
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(PROBE_BYTES))
    except OSError as error:
        return describe(error)
    if free < LEAST_FREE_BYTES:
        return f"only {free // 1_000_000} MB are free below DATA_DIR: free some space"
    return describe_temporary_folder()


def describe_temporary_folder() -> str | None:
    """That no temporary file can be written, or None: large requests and trainings need some."""
    forget_lost_temporary_folder()
    try:
        with tempfile.TemporaryFile() as probe:
            probe.write(bytes(PROBE_BYTES))
    except OSError as error:
        return describe_temporary(error)
    return None
