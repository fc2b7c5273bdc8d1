"""The calls that Label Studio makes: health, setup, predict, webhook, versions."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from flask import Blueprint, jsonify, request
from flask.typing import ResponseReturnValue

from ml_backend.config import Settings
from ml_backend.errors import LabelConfigError
from ml_backend.label_studio.payloads import (
    WEBHOOK_KEY_HEADER,
    PredictRequest,
    parse_predict,
    parse_setup,
    parse_webhook,
)
from ml_backend.processes.fair_places import FairPlaces
from ml_backend.web.bodies import read_object
from ml_backend.web.loop import Loop
from ml_backend.web.prometheus import Metrics

log = logging.getLogger(__name__)

MODEL_CLASS = "Brushloop"
"""Label Studio shows it beside the connected backend."""


def label_studio_routes(loop: Loop, settings: Settings, metrics: Metrics, threads: FairPlaces) -> Blueprint:
    """Routes without a prefix: Label Studio adds these names to the backend's address."""
    routes = Blueprint("label_studio", __name__)

    @routes.get("/health")
    def health() -> ResponseReturnValue:
        # Nothing is asked here, neither database nor queue: Label Studio waits one second.
        return jsonify(status="UP", model_class=MODEL_CLASS)

    @routes.get("/ready")
    def ready() -> ResponseReturnValue:
        readiness = loop.ready()
        return (
            jsonify(readiness),
            200 if readiness["ready"] else 503,
            {} if readiness["ready"] else {"Retry-After": "5"},
        )

    @routes.post("/setup")
    def setup() -> ResponseReturnValue:
        wanted = parse_setup(read_object())
        try:
            version = loop.connect(
                wanted.project_id,
                wanted.created_at,
                wanted.label_config,
                wanted.hostname,
                wanted.access_token,
            )
        except LabelConfigError as error:
            # Label Studio shows people the status alone, so the cause has to be in this log.
            log.warning("refuse_label_config project=%d cause=%r", wanted.project_id, str(error))
            raise
        log.info("connect project=%d model_version=%s", wanted.project_id, version)
        return jsonify(model_version=version)

    @routes.post("/predict")
    def predict() -> ResponseReturnValue:
        started = time.monotonic()
        wanted = parse_predict(read_object())
        with threads.enter(wanted.project_id) as entered:
            # Without a place the time is over at once: what is stored is answered, the rest is pushed later.
            deadline = started + (settings.predict_deadline_s if entered else 0.0)
            suggestions = answer(loop, wanted, deadline)
        results = to_results(wanted, suggestions)
        elapsed_s = time.monotonic() - started
        answered = sum(1 for entry in results if entry)
        metrics.predict_s.observe(elapsed_s)
        metrics.predicted_tasks.labels("answered").inc(answered)
        metrics.predicted_tasks.labels("empty").inc(len(results) - answered)
        log.info(
            "answer_predict project=%d tasks=%d with_prediction=%d seconds=%.2f place=%s",
            wanted.project_id,
            len(results),
            answered,
            elapsed_s,
            entered,
        )
        return jsonify(results=results)

    @routes.post("/webhook")
    def webhook() -> ResponseReturnValue:
        event = parse_webhook(read_object())
        loop.record(event, request.headers.get(WEBHOOK_KEY_HEADER, ""))
        metrics.webhooks.labels("other" if event.kind == "ignored" else event.action).inc()
        log.info("record_event project=%d action=%r", event.project.project_id, event.action)
        # No key `job`: Label Studio would keep it as a training job's id.
        return jsonify(status="ignored" if event.kind == "ignored" else "recorded"), 201

    @routes.get("/versions")
    def versions() -> ResponseReturnValue:
        return jsonify(versions=list(loop.versions(None)))

    return routes


def answer(loop: Loop, wanted: PredictRequest, deadline: float) -> Sequence[Mapping[str, Any] | None]:
    """What the loop says to a call: a smart tool asks about one task, everything else about whole images."""
    # label-studio-ml's server says {} where nobody pointed at anything; newer pages call with an event.
    asks = wanted.context is not None and not wanted.context.keys().isdisjoint(("result", "event"))
    if wanted.context is None or not asks or not wanted.tasks:
        return loop.suggest(wanted.project_id, wanted.tasks, wanted.label_config, deadline)
    task = wanted.tasks[0]
    return [
        loop.prompt(wanted.project_id, task, wanted.context, wanted.painted, wanted.label_config, deadline)
    ]


def to_results(
    wanted: PredictRequest, suggestions: Sequence[Mapping[str, Any] | None]
) -> list[Mapping[str, Any] | list[Any]]:
    """One entry per task in the order of the tasks; `[]` where there is nothing.

    Label Studio drops the whole batch, and fails the person's own request, over one entry that is null,
    has a null `model_version` or a score that is not a number. So each one is checked before it leaves.
    """
    padded = [*suggestions, *[None] * len(wanted.tasks)]
    results: list[Mapping[str, Any] | list[Any]] = []
    for task, suggestion in zip(wanted.tasks, padded, strict=False):
        if suggestion is not None and not is_sendable(suggestion):
            log.error("skip_prediction task=%d cause=unfit_for_label_studio", task.task_id)
            suggestion = None
        results.append([] if suggestion is None else suggestion)
    return results


def is_sendable(prediction: Mapping[str, Any]) -> bool:
    """Whether a prediction has a list of regions, a score in 0..1 and a named version."""
    score, version = prediction.get("score"), prediction.get("model_version")
    return (
        isinstance(prediction.get("result"), list)
        and isinstance(score, (int, float))
        and not isinstance(score, bool)
        and 0 <= score <= 1
        and isinstance(version, str)
        and bool(version)
    )
