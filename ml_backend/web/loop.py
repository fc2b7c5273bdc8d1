"""What the web needs of the learning loop. `ml_backend.learning_loop.LearningLoop` has it all.

Naming it here keeps torch out of everything that only speaks HTTP, and lets the tests bring a fake.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from ml_backend.label_studio.payloads import WebhookEvent
from ml_backend.ports import ProjectView, TaskRecord

PictureKind = Literal["overlay", "probability", "uncertainty", "label_map", "truth"]


class Loop(Protocol):
    """Every call may raise a `BrushloopError`; `app.py` maps it to a status."""

    def connect(
        self, project_id: int, created_at: str, label_config: str, hostname: str, access_token: str | None
    ) -> str:
        """Remember a project; returns the name of its current model version, never empty."""
        ...

    def record(self, event: WebhookEvent, key: str = "") -> None: ...

    def suggest(
        self, project_id: int, tasks: Sequence[TaskRecord], label_config: str | None, deadline: float
    ) -> Sequence[Mapping[str, Any] | None]:
        """One prediction per task, or None. `deadline` is a moment of `time.monotonic()`."""
        ...

    def prompt(
        self,
        project_id: int,
        task: TaskRecord,
        context: Mapping[str, Any],
        painted: Sequence[Sequence[Any]],
        label_config: str | None,
        deadline: float,
    ) -> Mapping[str, Any]:
        """One prediction with one region of what a smart tool asks for, or with none."""
        ...

    def projects(self) -> Sequence[Mapping[str, Any]]: ...

    def status(self, project_id: int) -> Mapping[str, Any]: ...

    def rounds(
        self, project_id: int, limit: int | None = None, before: int | None = None
    ) -> Sequence[Mapping[str, Any]]:
        """The reports, newest first, as many as `limit`, of rounds with smaller numbers than `before`."""
        ...

    def ready(self) -> Mapping[str, Any]:
        """`ready`, and per part of the service None or what is wrong with it."""
        ...

    def view(self, project_id: int, n_tasks: int) -> ProjectView:
        """Everything that a page shows of a project, of one moment; `n_tasks` are ranked."""
        ...

    def views(self, n_rounds: int) -> Sequence[ProjectView]:
        """All projects with their newest reports, of one moment."""
        ...

    def versions(self, project_id: int | None) -> Sequence[str]: ...

    def request_training(self, project_id: int) -> None: ...

    def cancel(self, project_id: int) -> None: ...

    def rollback(self, project_id: int, model_version: str) -> None: ...

    def ranked_tasks(self, project_id: int, limit: int) -> Sequence[Mapping[str, Any]]: ...

    def picture(self, project_id: int, task_id: int, kind: PictureKind) -> bytes: ...
