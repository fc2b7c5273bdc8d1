"""Loaded models, kept in memory by version: a published version never changes, so it never gets stale."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from functools import partial

from core.network.checkpoint import load_checkpoint
from core.network.device import choose_compute
from core.network.predict import Predictor
from ml_backend.parts import Parts
from ml_backend.storage.models import StoredModel
from ml_backend.storage.projects import Project

log = logging.getLogger(__name__)

MAX_LOADED = 4
"""Some tens of megabytes each; the least recently used one goes first."""


class Predictors:
    """The models of this process; equal requests at once load a model once."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._lock = threading.Lock()
        self._loaded: OrderedDict[tuple[str, str], Predictor] = OrderedDict()

    def get(self, project: Project, model: StoredModel) -> Predictor:
        """Load a model, or return it; raises `CheckpointError`, `DeviceError`."""
        key = (project.folder, model.model_version)
        with self._lock:
            # Loading under the lock: a second request for this model waits instead of loading it too.
            if key not in self._loaded:
                folder = self._parts.artifacts(project).models / model.folder
                settings = self._parts.settings
                self._loaded[key] = Predictor(
                    load_checkpoint(folder),
                    settings.predict_threads,
                    compute=choose_compute(settings.device, settings.engine),
                    on_fallback=partial(_log_fallback, model.model_version),
                )
            self._loaded.move_to_end(key)
            while len(self._loaded) > MAX_LOADED:
                self._loaded.popitem(last=False)
            return self._loaded[key]


def _log_fallback(version: str, reason: str) -> None:
    log.warning("answer_with_torch version=%s cause=%r", version, reason)
