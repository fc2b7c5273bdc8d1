"""For people who know label-studio-ml: a model class for its server, over a learning loop.

`label-studio-ml create FOLDER --script label_studio_ml_adapter.py:Brushloop` copies this file beside a
server, so all it needs is imported by full names. Training runs where it always does: in `brushloop worker`.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flask import has_request_context, request

from ml_backend.config import Settings, calm_idle_threads
from ml_backend.label_studio.payloads import WEBHOOK_KEY_HEADER, parse_predict, parse_setup, parse_webhook
from ml_backend.web.label_studio_routes import answer, to_results
from ml_backend.web.loop import Loop

REMEDY = (
    "label-studio-ml 2 is missing, whose server this class is for: "
    "pip install git+https://github.com/HumanSignal/label-studio-ml-backend.git, "
    "or do without it: brushloop serve --with-worker"
)


class AbsentBase:
    """Stands for label-studio-ml's base class where there is none, and says so to whoever wants a model."""

    def __init__(self, *arguments: object, **named: object) -> None:
        raise ImportError(REMEDY)


# The release 1 of the package index has no `response`, and another contract.
try:
    from label_studio_ml.model import LabelStudioMLBase
    from label_studio_ml.response import ModelResponse
except ModuleNotFoundError:
    LabelStudioMLBase, ModelResponse = AbsentBase, AbsentBase


@dataclass(frozen=True)
class Service:
    """The learning loop of this process, and what it was built from."""

    loop: Loop
    settings: Settings


_built: dict[str, Service] = {}
_lock = threading.Lock()


def find_service() -> Service:
    """The service, built from the environment at the first call of a process.

    label-studio-ml makes a model per request; the loop behind them is one.
    """
    with _lock:
        if "service" not in _built:
            calm_idle_threads()
            from ml_backend.bootstrap import build_loop  # torch reads the environment when it is imported

            settings = Settings()
            _built["service"] = Service(build_loop(settings), settings)
        return _built["service"]


class Brushloop(LabelStudioMLBase):  # type: ignore[misc]  # a class of a package that may be absent
    """A project as label-studio-ml sees it. A call may raise a `BrushloopError`: its server answers 500."""

    def setup(self) -> None:
        """Remember the project, where the request is Label Studio's `/setup`, and name its current version.

        label-studio-ml calls this before each prediction and event too, and does not pass on when the project
        was made, where its Label Studio is, and its token: so the request is read here once more.
        """
        if not (has_request_context() and request.path.rstrip("/").endswith("/setup")):
            return
        wanted = parse_setup(request.get_json())
        version = find_service().loop.connect(
            wanted.project_id, wanted.created_at, wanted.label_config, wanted.hostname, wanted.access_token
        )
        self.set("model_version", version)

    def set_extra_params(self, extra_params: object) -> None:
        """Keep them as text: Label Studio sends an object, and label-studio-ml stores text alone."""
        text = extra_params if isinstance(extra_params, str) else json.dumps(extra_params)
        super().set_extra_params(text)

    def predict(
        self, tasks: Sequence[Mapping[str, Any]], context: Mapping[str, Any] | None = None, **kwargs: object
    ) -> Any:
        """A `ModelResponse` with one prediction per task, and `[]` where there is none."""
        service, started = find_service(), time.monotonic()
        params = {"context": context}
        body = {
            "project": self.project_id,
            "tasks": tasks,
            "label_config": self.label_config,
            "params": params,
        }
        wanted = parse_predict(body)
        deadline = started + service.settings.predict_deadline_s
        return ModelResponse(predictions=to_results(wanted, answer(service.loop, wanted, deadline)))

    def fit(self, event: str, data: Mapping[str, Any], **additional_params: object) -> dict[str, str]:
        """Record an event; a worker trains once enough is painted."""
        told = parse_webhook({**data, "action": event})
        key = request.headers.get(WEBHOOK_KEY_HEADER, "") if has_request_context() else ""
        find_service().loop.record(told, key)
        return {"status": "ignored" if told.kind == "ignored" else "recorded"}
