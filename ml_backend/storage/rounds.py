"""Rounds as rows. The row of a running round is its lease: one per project, over any number of workers.

Its owner beats while it works. A lease that stopped beating, or whose owner is known to be gone, is taken
over, and everything the late owner then tries to write is refused: the row is no longer running and its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from itertools import takewhile
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy import Connection

from ml_backend.moments import to_iso
from ml_backend.storage import tables

RoundState = Literal["running", "done", "failed", "cancelled", "interrupted"]
Trouble = Literal["machine", "memory", "images"]
"""What interrupted a round: something that may pass; memory, for which the next one takes less; or that no
annotated image could be had."""

RoundKind = Literal["draft", "round", "continuation"]
"""A draft comes before a round and accounts for nothing; a continuation goes on over the same truth."""

MAX_ROUNDS_BACK = 20
"""Interrupted rounds that are read; how many there are is counted apart."""

REPORTS_KEPT = 500
"""Rounds whose reports are kept, some kB each: what a long project shows is how it went of late."""


@dataclass(frozen=True)
class StoredRound:
    """One row; `report` is JSON text."""

    number: int
    state: RoundState
    owner: str
    truth_seq: int
    started_at: float
    heartbeat_at: float
    finished_at: float | None
    progress: float
    eta_s: float | None
    model_version: str | None
    report: str | None
    error: str | None
    requests: int = 0
    trouble: Trouble | None = None
    kind: RoundKind = "round"

    def to_record(self) -> dict[str, Any]:
        """Plain JSON for the API: the report, with what the row knows besides."""
        end = self.finished_at if self.finished_at is not None else self.heartbeat_at
        return {
            **(json.loads(self.report) if self.report else {}),
            "round": self.number,
            "kind": self.kind,
            "state": self.state,
            "started_at": to_iso(self.started_at),
            "finished_at": to_iso(self.finished_at),
            "round_seconds": round(end - self.started_at, 3),
            "model_version": self.model_version,
            "error": self.error,
        }


_COLUMNS = [tables.rounds.c[field.name] for field in fields(StoredRound)]


def begin(
    connection: Connection,
    project_id: int,
    owner: str,
    truth_seq: int,
    now: float,
    is_lost: Callable[[StoredRound], bool],
    requests: int = 0,
    kind: RoundKind = "round",
) -> int | None:
    """Take the project's lease and return the number of the new round; None when somebody else works.

    A running round that `is_lost` is recorded as interrupted and gives way.
    """
    # Several workers may find the round due: the lock on the project's row lets them in one by one.
    projects = tables.projects.c.project_id
    connection.execute(sa.select(projects).where(projects == project_id).with_for_update())
    running = find_running(connection, project_id)
    if running and not is_lost(running):
        return None
    if running:
        finish(
            connection,
            project_id,
            running.number,
            running.owner,
            "interrupted",
            now,
            error="its worker went away",
        )
    number = (last_number(connection, project_id) or 0) + 1
    connection.execute(
        sa.insert(tables.rounds).values(
            project_id=project_id,
            number=number,
            kind=kind,
            state="running",
            owner=owner,
            truth_seq=truth_seq,
            started_at=now,
            heartbeat_at=now,
            requests=requests,
        )
    )
    return number


def beat(connection: Connection, project_id: int, number: int, owner: str, now: float, **values: Any) -> bool:
    """Show that the round goes on (`progress`, `eta_s`, `truth_seq`); False when the lease was lost."""
    r = tables.rounds
    beaten = sa.update(r).where(_mine(project_id, number, owner)).values(heartbeat_at=now, **values)
    return connection.execute(beaten).rowcount == 1


def finish(
    connection: Connection,
    project_id: int,
    number: int,
    owner: str,
    state: RoundState,
    now: float,
    *,
    report: Mapping[str, Any] | None = None,
    error: str | None = None,
    model_version: str | None = None,
    trouble: Trouble | None = None,
) -> bool:
    """End the round; False when the lease was lost, and then the caller's transaction must not go on."""
    ended = (
        sa.update(tables.rounds)
        .where(_mine(project_id, number, owner))
        .values(
            state=state,
            finished_at=now,
            # A round that ended early keeps how far it came.
            progress=1.0 if state == "done" else tables.rounds.c.progress,
            eta_s=None,
            report=json.dumps(report) if report is not None else None,
            error=error,
            model_version=model_version,
            trouble=trouble,
        )
    )
    return connection.execute(ended).rowcount == 1


def drop_old_reports(connection: Connection, project_id: int) -> None:
    """Empty the reports of all but the newest rounds; those of models whose files are kept stay.

    Their rows stay, as all rounds are counted.
    """
    r, m = tables.rounds.c, tables.models.c
    last_kept = sa.select(sa.func.max(r.number) - REPORTS_KEPT).where(r.project_id == project_id)
    is_of_model = sa.exists().where(m.project_id == r.project_id, m.round == r.number, m.folder != "")
    old = sa.and_(r.project_id == project_id, r.number <= last_kept.scalar_subquery(), r.report.is_not(None))
    connection.execute(sa.update(tables.rounds).where(old, ~is_of_model).values(report=None))


def forget(connection: Connection, project_id: int, number: int, owner: str) -> None:
    """Drop the row of a running round that gave way before it made anything."""
    connection.execute(sa.delete(tables.rounds).where(_mine(project_id, number, owner)))


def find_round(connection: Connection, project_id: int, number: int) -> StoredRound | None:
    r = tables.rounds.c
    row = connection.execute(
        sa.select(*_COLUMNS).where(r.project_id == project_id, r.number == number)
    ).first()
    return StoredRound(*row) if row else None


def find_running(connection: Connection, project_id: int) -> StoredRound | None:
    query = sa.select(*_COLUMNS).where(
        tables.rounds.c.project_id == project_id, tables.rounds.c.state == "running"
    )
    row = connection.execute(query).first()
    return StoredRound(*row) if row else None


def list_running(connection: Connection) -> list[tuple[int, StoredRound]]:
    """The running rounds of all projects, with the project's number; lost ones included."""
    r = tables.rounds.c
    query = sa.select(r.project_id, *_COLUMNS).where(r.state == "running")
    return [(row[0], StoredRound(*row[1:])) for row in connection.execute(query)]


def list_rounds(
    connection: Connection, project_id: int, limit: int | None = None, before: int | None = None
) -> list[StoredRound]:
    """Newest first; those with smaller numbers than `before`."""
    r = tables.rounds.c
    query = sa.select(*_COLUMNS).where(r.project_id == project_id).order_by(r.number.desc()).limit(limit)
    if before is not None:
        query = query.where(r.number < before)
    return [StoredRound(*row) for row in connection.execute(query)]


def count_outcomes(connection: Connection, project_id: int) -> dict[str, int]:
    """How many rounds ended in which way; of those that were done, whether they published a model."""
    r = tables.rounds.c
    done = sa.case((r.model_version.is_not(None), "promoted"), else_="kept")
    outcome = sa.case((r.state == "done", done), else_=r.state).label("outcome")
    counted = sa.select(outcome, sa.func.count()).where(r.project_id == project_id).group_by(outcome)
    return {name: int(count) for name, count in connection.execute(counted)}


def list_interrupted(
    connection: Connection, project_id: int, requests: int, before: int | None = None
) -> list[StoredRound]:
    """Rounds in a row that were interrupted since somebody last asked for one; the newest ones, newest first.

    They end with the newest one, or with the one before the number `before`. Drafts before them account for
    nothing, and do not count.
    """

    def is_one(stored: StoredRound) -> bool:
        return stored.state == "interrupted" and stored.requests == requests

    r = tables.rounds.c
    query = sa.select(*_COLUMNS).where(r.project_id == project_id, r.kind == "round")
    if before is not None:
        query = query.where(r.number < before)
    newest = connection.execute(query.order_by(r.number.desc()).limit(MAX_ROUNDS_BACK))
    return list(takewhile(is_one, (StoredRound(*row) for row in newest)))


def count_interrupted(connection: Connection, project_id: int, requests: int) -> int:
    """How many such rounds there are in all."""
    r = tables.rounds.c
    of_project = sa.and_(r.project_id == project_id, r.kind == "round")
    is_one = sa.and_(r.state == "interrupted", r.requests == requests)
    last_other = sa.select(sa.func.coalesce(sa.func.max(r.number), 0)).where(of_project, ~is_one)
    query = sa.select(sa.func.count()).where(of_project, r.number > last_other.scalar_subquery())
    return int(connection.execute(query).scalar_one())


def is_done(connection: Connection, project_id: int, number: int, model_version: str | None) -> bool:
    """Whether the round ended well, with this model or without one."""
    r = tables.rounds.c
    query = sa.select(r.state, r.model_version).where(r.project_id == project_id, r.number == number)
    return connection.execute(query).first() == ("done", model_version)


def last_number(connection: Connection, project_id: int) -> int | None:
    r = tables.rounds.c
    last: int | None = connection.execute(
        sa.select(sa.func.max(r.number)).where(r.project_id == project_id)
    ).scalar_one()
    return last


def _mine(project_id: int, number: int, owner: str) -> sa.ColumnElement[bool]:
    # With its owner: a worker that was taken for dead must not write into what another took over.
    r = tables.rounds.c
    return sa.and_(r.project_id == project_id, r.number == number, r.owner == owner, r.state == "running")
