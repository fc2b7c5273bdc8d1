"""One project in a service of its own, for `bench.pool`: paint, wait until the review is over, time it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median
from typing import Any

from bench.fake_label_studio import FakeLabelStudio
from bench.fake_label_studio_app import run_fake
from bench.http_calls import POLL_S, Service
from bench.process_tree import peaks_by_role
from bench.service import running_service
from ml_backend.storage.database import SQLITE_NAME

PROJECT = 1
ROUND_TIMEOUT_S = 900.0
CALLS = 15
"""Calls of each kind after each round."""

SETTLED = (
    "SELECT r.settled_version = p.current_version FROM reviews r JOIN projects p USING (project_id) "
    "WHERE project_id = ?"
)
LAST_DONE = "SELECT coalesce(max(number), 0) FROM rounds WHERE project_id = ? AND state = 'done'"
FINISHED = "SELECT max(finished_at) FROM rounds WHERE project_id = ?"
SPENT = "SELECT spent_s FROM reviews WHERE project_id = ?"


@dataclass(frozen=True)
class PoolSettings:
    """What a run depends on, besides the number of tasks."""

    rounds: int = 8
    steps: int = 30
    side_px: int = 64
    annotated: int = 40
    per_round: int = 5
    budget: int = 200


@dataclass(frozen=True)
class PoolRound:
    """One promoted round: what it took, and how long people's calls took after it.

    `overhead_s` is all of it that is no training: asking Label Studio what changed, building label maps,
    publishing, scoring, pushing, and keeping the order. `review_s` is the part after the promotion.
    """

    training_s: float
    overhead_s: float
    review_s: float
    scoring_s: float
    n_scored: int
    n_scored_before: int
    ranking_s: float
    long_ranking_s: float
    status_s: float
    dashboard_s: float


NAMES = tuple(field.name for field in fields(PoolRound))


class PoolProject:
    """A project of so many tasks; calls go over HTTP, the end of a review round is read in the database."""

    def __init__(
        self, service: Service, fake: FakeLabelStudio, database: Path, n_tasks: int, settings: PoolSettings
    ) -> None:
        self.service, self.fake, self.database = service, fake, database
        self.settings = settings
        service.post("/setup", fake.setup_body(PROJECT))
        # Those that are painted lie anywhere in the pool.
        tasks = fake.add_tasks(PROJECT, n_tasks)
        n_painted = min(n_tasks, settings.annotated + (settings.rounds + 1) * settings.per_round)
        self._to_paint = iter(tasks[:: max(1, n_tasks // n_painted)])

    def begin(self) -> None:
        """The first model, which is not timed: the service gets warm with it."""
        self._paint(self.settings.annotated)
        self._wait_until_settled(self._last_round())

    def run_round(self) -> PoolRound | None:
        """Paint some tasks and wait for the round and its review; None when it was not promoted."""
        last = self._last_round()
        before = self._count("scored_version IS NOT NULL")
        self._paint(self.settings.per_round)
        report = self._wait_until_settled(last)
        settled_at = time.time()
        if not report["promoted"]:
            return None
        version = report["model_version"]
        review_s = settled_at - self._query(FINISHED)
        address = f"/api/projects/{PROJECT}"
        return PoolRound(
            training_s=report["seconds"],
            overhead_s=report["round_seconds"] - report["seconds"] + review_s,
            review_s=review_s,
            scoring_s=self._query(SPENT),
            n_scored=self._count("scored_version = ?", version),
            n_scored_before=before,
            ranking_s=self._time(f"{address}/tasks"),
            long_ranking_s=self._time(f"{address}/tasks?limit=1000"),
            status_s=self._time(f"{address}/status"),
            dashboard_s=self._time("/"),
        )

    def database_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.database.parent.glob(f"{SQLITE_NAME}*"))

    def peak_bytes(self) -> dict[str, int]:
        return peaks_by_role(self.service.pid)

    def _paint(self, n: int) -> None:
        for _ in range(n):
            self.service.post("/webhook", self.fake.paint(next(self._to_paint)))

    def _last_round(self) -> int:
        return max((row["round"] for row in self.service.get(f"/api/projects/{PROJECT}/rounds")), default=0)

    def _wait_until_settled(self, last: int) -> dict[str, Any]:
        """Until a round after `last` has ended, and Label Studio holds all that its model said."""
        deadline = time.monotonic() + ROUND_TIMEOUT_S
        while time.monotonic() < deadline:
            if self._query(LAST_DONE) > last:
                report: dict[str, Any] = self.service.get(f"/api/projects/{PROJECT}/rounds")[0]
                if not report["promoted"] or self._query(SETTLED):
                    return report
            time.sleep(POLL_S)
        raise RuntimeError(f"no round was over after {ROUND_TIMEOUT_S} s: {self.service.status(PROJECT)}")

    def _time(self, path: str) -> float:
        """Median seconds of a call."""
        seconds = []
        for _ in range(CALLS):
            began = time.perf_counter()
            status, _ = self.service.call("GET", path)
            seconds.append(time.perf_counter() - began)
            if status != 200:
                raise RuntimeError(f"{path} answered {status}")
        return float(median(seconds))

    def _count(self, condition: str, *values: object) -> int:
        return int(self._query(f"SELECT count(*) FROM tasks WHERE project_id = ? AND {condition}", *values))

    def _query(self, query: str, *values: object) -> Any:
        address = f"file:{self.database}?mode=ro"
        with closing(sqlite3.connect(address, uri=True, timeout=30.0)) as connection:
            row = connection.execute(query, (PROJECT, *values)).fetchone()
        return row[0] if row else None


@contextmanager
def running_project(n_tasks: int, folder: Path, settings: PoolSettings) -> Iterator[PoolProject]:
    """A service and a stand-in for Label Studio for one project."""
    fake = FakeLabelStudio({PROJECT: settings.side_px})
    environment = {
        "MIN_PIXELS_PER_CLASS": "500",
        "QUIET_TIME_S": "0.5",
        "ROUND_STEPS": str(settings.steps),
        "SCORE_TASKS_PER_ROUND": str(settings.budget),
        "SCORE_BUDGET_S": "600",  # the number of tasks decides, not how busy the machine is
    }
    with run_fake(fake), running_service(fake, folder, environment) as service:
        yield PoolProject(service, fake, folder / "data" / SQLITE_NAME, n_tasks, settings)


def to_record(project: PoolProject, rounds: list[PoolRound]) -> dict[str, Any]:
    """Plain JSON values of a project that is done."""
    return {
        "rounds": [asdict(one) for one in rounds],
        "median": {name: median(getattr(one, name) for one in rounds) for name in NAMES if rounds},
        "peak_bytes": project.peak_bytes(),
        "database_bytes": project.database_bytes(),
    }
