"""Prometheus metrics of one web process.

Every app has a registry of its own. Counters and histograms count what *this* process answered: run each
web process as a scrape target of its own, and let Prometheus add them up. The gauges about projects and
rounds are read from the loop's store at scrape time, so every web process reports the same numbers: take
`max`, not `sum`, over them. The training worker serves no HTTP; what it did shows in those gauges.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flask import Flask, Response, g, request
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from core.errors import BrushloopError
from ml_backend.ports import ProjectView
from ml_backend.web.loop import Loop

log = logging.getLogger(__name__)

REQUEST_BUCKETS_S = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 3.0, 10.0, 100.0)
"""Label Studio's limits are among the edges: 1 s for webhooks, 3 s for setup, 100 s for predict."""

PREDICT_BUCKETS_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 100.0)

EFFORT_KINDS = (
    "annotations",
    "strokes",
    "clicks",
    "painted_px",
    "erased_px",
    "questions_answered",
    "lead_time_s",
)

NEWEST_ROUNDS = 10
"""Reports that are read per scrape, for the newest effort: a scrape costs the same in the hundredth round."""

STATES = ("waiting", "queued", "training", "refining", "idle", "error")


class Metrics:
    """The counters of one app and the registry that shows them."""

    def __init__(self, loop: Loop) -> None:
        self.registry = CollectorRegistry()
        self.webhooks = Counter("brushloop_webhooks", "Webhooks recorded", ["action"], registry=self.registry)
        self.predict_s = Histogram(
            "brushloop_predict_seconds",
            "Time to answer one /predict call",
            buckets=PREDICT_BUCKETS_S,
            registry=self.registry,
        )
        self.predicted_tasks = Counter(
            "brushloop_predicted_tasks",
            "Tasks of /predict calls, by what was answered",
            ["outcome"],
            registry=self.registry,
        )
        self.request_s = Histogram(
            "brushloop_request_seconds",
            "Time to answer a request",
            ["route", "status"],
            buckets=REQUEST_BUCKETS_S,
            registry=self.registry,
        )
        ProcessCollector(registry=self.registry)
        self.registry.register(_ProjectGauges(loop))
        self.registry.register(_ReadinessGauges(loop))  # last: its queries are not of their moment


class _ReadinessGauges(Collector):
    """What `GET /ready` says, one number for each part of the service."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def describe(self) -> list[Metric]:
        return []  # nothing is read at registration

    def collect(self) -> Iterator[Metric]:
        ready = GaugeMetricFamily(
            "brushloop_ready", "1 where GET /ready finds no trouble with a part", labels=["part"]
        )
        checks: Mapping[str, str | None] = self._loop.ready()["checks"]
        for part, trouble in checks.items():
            ready.add_metric([part], trouble is None)
        yield ready


class _ProjectGauges(Collector):
    """What the loop knows of each project, read when somebody looks."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def describe(self) -> list[Metric]:
        return []  # nothing is read at registration

    def collect(self) -> Iterator[Metric]:
        annotations = GaugeMetricFamily(
            "brushloop_annotations", "Annotations of a project", labels=["project", "kind"]
        )
        pool = GaugeMetricFamily("brushloop_pool_tasks", "Tasks in the pool", labels=["project", "kind"])
        state = GaugeMetricFamily(
            "brushloop_project_state", "1 for the current state", labels=["project", "state"]
        )
        trouble = GaugeMetricFamily(
            "brushloop_project_trouble", "1 while the status names a trouble", labels=["project"]
        )
        progress = GaugeMetricFamily(
            "brushloop_round_progress", "Share of the running round that is done", labels=["project"]
        )
        rounds = GaugeMetricFamily(
            "brushloop_rounds", "Rounds by how they ended", labels=["project", "outcome"]
        )
        effort = GaugeMetricFamily(
            "brushloop_effort", "What the annotations of the last round took", labels=["project", "kind"]
        )
        corrective = GaugeMetricFamily(
            "brushloop_corrective_dice",
            "Agreement of what was sent with what was submitted, in the last round",
            labels=["project"],
        )
        for view in self._read():
            status, reports = view.status, view.rounds
            project = str(status["project"])
            for kind, count in status["annotations"].items():
                annotations.add_metric([project, kind], count)
            for kind, count in status["pool"].items():
                pool.add_metric([project, kind], count)
            for name in STATES:
                state.add_metric([project, name], status["state"] == name)
            trouble.add_metric([project], status["last_error"] is not None)
            if status["training"]:
                progress.add_metric([project], status["training"]["progress"])
            for outcome, count in view.outcomes.items():
                rounds.add_metric([project, outcome], count)
            last: Mapping[str, Any] = next((r["effort"] for r in reports if r.get("effort")), {})
            for kind in EFFORT_KINDS:
                if last.get(kind) is not None:
                    effort.add_metric([project, kind], last[kind])
            if last.get("corrective_dice", {}).get("mean") is not None:
                corrective.add_metric([project], last["corrective_dice"]["mean"])
        yield from (annotations, pool, state, trouble, progress, rounds, effort, corrective)

    def _read(self) -> Sequence[ProjectView]:
        try:
            return self._loop.views(NEWEST_ROUNDS)
        except (BrushloopError, SQLAlchemyError, OSError) as error:
            # The counters of this process are still worth showing, and which part is away most of all.
            log.warning("skip_gauges cause=%r", str(error).partition("\n")[0])
            return ()


def round_outcome(report: Mapping[str, Any]) -> str:
    """One word for how a round ended; of a round that was done, whether its model became current."""
    if report["state"] != "done":
        return str(report["state"])
    return "promoted" if report.get("promoted") else "kept"


def install_metrics(app: Flask, metrics: Metrics) -> None:
    """Time every request by its route, and serve `GET /metrics`."""

    def start_clock() -> None:
        g.started = time.perf_counter()

    def observe(answer: Response) -> Response:
        # The rule, not the path: strangers may ask for any number of paths.
        route = request.url_rule.rule if request.url_rule else "none"
        elapsed = time.perf_counter() - g.get("started", time.perf_counter())
        metrics.request_s.labels(route, str(answer.status_code)).observe(elapsed)
        return answer

    def show() -> Response:
        return Response(generate_latest(metrics.registry), content_type=CONTENT_TYPE_LATEST)

    app.before_request(start_clock)
    app.after_request(observe)
    app.add_url_rule("/metrics", "metrics", show)
