"""The parts of the learning loop; `bootstrap.py` chooses them, tests bring their own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from ml_backend.config import Settings
from ml_backend.ports import ImageSource, LabelStudio
from ml_backend.storage.artifacts import Artifacts
from ml_backend.storage.database import Database
from ml_backend.storage.projects import Project
from ml_backend.training import Trainer

COMPUTED_AT_ONCE = 2
"""Tasks whose label maps one process builds side by side: each takes memory."""


@dataclass(frozen=True)
class Parts:
    """What a process works with. `clock` gives Unix seconds; `owner` names this process in leases.

    `queue_problem` says what keeps the queue from carrying jobs, or None. Whoever builds label maps holds one
    of the places of `computing`, and never while waiting for the network.
    """

    settings: Settings
    database: Database
    images: ImageSource
    label_studio: Callable[[Project], LabelStudio]
    trainer: Trainer
    clock: Callable[[], float]
    owner: str
    queue_problem: Callable[[], str | None] = lambda: None
    computing: threading.BoundedSemaphore = field(
        default_factory=lambda: threading.BoundedSemaphore(COMPUTED_AT_ONCE)
    )

    def artifacts(self, project: Project) -> Artifacts:
        return Artifacts(self.settings.data_dir, project.folder)
