"""Projects as rows: who they are, how to reach their Label Studio, and how far their truth has come."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from ml_backend.errors import NotFoundError
from ml_backend.moments import to_iso
from ml_backend.storage import tables
from ml_backend.storage.upserts import insert_or_ignore

CREATED_TOLERANCE_S = 1
"""`/setup` names the creation of a project in whole seconds, the API in microseconds."""

OTHER_PROJECT = (
    "project {project_id} is another one here: it was made at {known}, this is about one made at {named}. "
    "Two Label Studios need a Brushloop each. If one Label Studio was set up anew, `brushloop forget "
    "{project_id}` drops what is kept of its earlier project {project_id}"
)
"""Nothing is hidden or overwritten because of what a caller says; an operator decides."""


@dataclass(frozen=True)
class Project:
    """One row. `created_s` is empty until Label Studio told it; `access_token` and `webhook_key` are secrets.

    `is_confirmed`: Label Studio's API gave the same `created_s`, so it is no caller's invention.
    """

    project_id: int
    created_s: int | None
    is_confirmed: bool
    webhook_key: str
    folder: str
    title: str
    label_config: str
    hostname: str
    access_token: str
    current_version: str | None
    displaced_version: str | None
    live_problem: str | None
    truth_seq: int
    attempted_seq: int
    last_truth_at: float | None
    train_requests: int
    train_answered: int
    cancel_requests: int
    reconciled_at: float | None
    last_error: str | None

    @property
    def is_train_requested(self) -> bool:
        """Somebody asked for a round, and none ended well since that began after it."""
        return self.train_requests > self.train_answered

    def __repr__(self) -> str:
        """Short, and without the secret: records end up in logs and tracebacks."""
        return f"Project({self.project_id}, {self.title!r}, {self.current_version!r})"


_COLUMNS = [tables.projects.c[field.name] for field in fields(Project)]


def find_project(connection: Connection, project_id: int) -> Project | None:
    row = connection.execute(sa.select(*_COLUMNS).where(tables.projects.c.project_id == project_id)).first()
    return Project(*row) if row else None


def get_project(connection: Connection, project_id: int) -> Project:
    project = find_project(connection, project_id)
    if project is None:
        raise NotFoundError(
            f"project {project_id} is not known here: connect this backend to it in Label Studio"
        )
    return project


def list_projects(connection: Connection) -> list[Project]:
    query = sa.select(*_COLUMNS).order_by(tables.projects.c.project_id)
    return [Project(*row) for row in connection.execute(query)]


def still_exists(connection: Connection, project: Project) -> bool:
    """Whether the project is there as it was read: its id may have been given to another one meanwhile."""
    known = find_project(connection, project.project_id)
    return known is not None and known.folder == project.folder


def is_current(connection: Connection, project: Project, model_version: str) -> bool:
    """Whether this is the version that answers now, which may have moved since `project` was read."""
    found = find_project(connection, project.project_id)
    return found is not None and found.current_version == model_version


def remember_project(connection: Connection, project_id: int, created_s: int | None) -> Project | None:
    """Find the project that a call is about, or make its row.

    Anybody may have sent the call. So one with another creation time replaces a project that holds nothing
    and that Label Studio did not confirm, and is refused otherwise: None. Label Studio is then asked soon.
    """
    stored = find_project(connection, project_id)
    if stored is None or _is_same(stored, created_s):
        return _keep(connection, project_id, stored, created_s)
    if stored.is_confirmed:
        return None
    if _holds_anything(connection, project_id):
        update_project(connection, project_id, reconciled_at=None)
        return None
    forget_project(connection, project_id)
    return _keep(connection, project_id, None, created_s)


def confirm_project(connection: Connection, project_id: int, created_s: int | None) -> Project | None:
    """The same for what Label Studio's own API says; a row that only calls have made gives way to it.

    None when a confirmed project would be hidden: that is for an operator to decide.
    """
    stored = find_project(connection, project_id)
    if stored is not None and not _is_same(stored, created_s):
        if stored.is_confirmed and _holds_anything(connection, project_id):
            return None
        forget_project(connection, project_id)
        stored = None
    project = _keep(connection, project_id, stored, created_s)
    if created_s is not None and not project.is_confirmed:
        update_project(connection, project_id, is_confirmed=True)
    return get_project(connection, project_id)


def describe_other(known: Project | None, project_id: int, created_s: int | None) -> str:
    """Say that a number stands for two projects, and what an operator can do."""
    made = known.created_s if known else None
    return OTHER_PROJECT.format(project_id=project_id, known=_to_words(made), named=_to_words(created_s))


def _to_words(created_s: int | None) -> str:
    try:
        return to_iso(created_s) or "an unknown time"
    except (OverflowError, ValueError, OSError):
        return f"{created_s} s after 1970"


def _is_same(known: Project, created_s: int | None) -> bool:
    if created_s is None or known.created_s is None:
        return True
    return abs(created_s - known.created_s) <= CREATED_TOLERANCE_S


def _keep(connection: Connection, project_id: int, known: Project | None, created_s: int | None) -> Project:
    if known is None:
        folder = f"{project_id}-{created_s or 0}"
        values = {"project_id": project_id, "created_s": created_s, "folder": folder}
        insert_or_ignore(connection, tables.projects, [values])
    elif known.created_s is None and created_s is not None:
        update_project(connection, project_id, created_s=created_s)
    return get_project(connection, project_id)


def _holds_anything(connection: Connection, project_id: int) -> bool:
    """Whether somebody painted or a model was made: what would be missed."""
    held = (tables.annotation_table, tables.models)
    queries = (
        sa.select(table.c.project_id).where(table.c.project_id == project_id).limit(1) for table in held
    )
    return any(connection.execute(query).first() for query in queries)


def forget_project(connection: Connection, project_id: int) -> None:
    """Drop the project with all that hangs on it."""
    connection.execute(sa.delete(tables.projects).where(tables.projects.c.project_id == project_id))


def update_project(connection: Connection, project_id: int, **values: Any) -> None:
    connection.execute(
        sa.update(tables.projects).where(tables.projects.c.project_id == project_id).values(**values)
    )


def count_train_request(connection: Connection, project_id: int) -> None:
    """Note that somebody asks for a round."""
    p = tables.projects.c
    update_project(connection, project_id, train_requests=p.train_requests + 1)


def answer_train_requests(connection: Connection, project_id: int, requests: int) -> None:
    """A round ended that began when so many had been counted."""
    p = tables.projects.c
    # Never backwards: a cancellation meanwhile has answered more of them.
    later = sa.case((p.train_answered > requests, p.train_answered), else_=requests)
    update_project(connection, project_id, train_answered=later)


def count_cancel_request(connection: Connection, project_id: int) -> None:
    """Note that the running round shall end; earlier requests for a round are taken back."""
    p = tables.projects.c
    update_project(
        connection, project_id, cancel_requests=p.cancel_requests + 1, train_answered=p.train_requests
    )


def set_label_config(connection: Connection, project: Project, label_config: str, now: float) -> bool:
    """Store the labeling setup; another one makes the truth of every task stale. True when it changed."""
    if not label_config or label_config == project.label_config:
        return False
    update_project(connection, project.project_id, label_config=label_config)
    # The first setup changes nothing: no truth was built without one.
    if project.label_config:
        seq = next_seq(connection, project.project_id, now)
        tasks = tables.tasks
        painted = sa.exists().where(
            tables.annotation_table.c.project_id == tasks.c.project_id,
            tables.annotation_table.c.task_id == tasks.c.task_id,
        )
        connection.execute(
            sa.update(tasks).where(tasks.c.project_id == project.project_id, painted).values(truth_seq=seq)
        )
        # They count by class index, and the classes are others now.
        counts = tables.class_counts
        connection.execute(sa.delete(counts).where(counts.c.project_id == project.project_id))
    return True


def next_seq(connection: Connection, project_id: int, now: float) -> int:
    """Count one change of the project's truth; holds the row until the transaction ends."""
    projects = tables.projects
    changed = (
        sa.update(projects)
        .where(projects.c.project_id == project_id)
        .values(truth_seq=projects.c.truth_seq + 1, last_truth_at=now)
        .returning(projects.c.truth_seq)
    )
    return int(connection.execute(changed).scalar_one())
