"""The fake Label Studio with a backend connected: it sends webhooks once, and makes tasks when asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
from numpy.typing import NDArray
from painted import SIDE_PX, make_picture, paint_all

from bench.fake_label_studio import FakeLabelStudio, stamp_now, to_png

PROJECT = 1
WEBHOOK_TIMEOUT_S = 1.0


class SendingLabelStudio(FakeLabelStudio):
    """Tasks and annotations of project 1; the number of a task is the seed of its image."""

    def __init__(self, backend_url: str) -> None:
        super().__init__({PROJECT: SIDE_PX})
        self.backend_url = backend_url
        self.sends_webhooks = True
        self.lost_webhooks = 0

    def picture(self, task_id: int) -> tuple[bytes, NDArray[Any]]:
        image, instances = make_picture(task_id)
        return to_png(image), instances

    def submit_as(self, annotation_id: int, task_id: int, result: Any = None, user_id: int = 1) -> None:
        """Store an annotation and send its event, as the server does when a person submits."""
        self._need(task_id)
        regions = paint_all(make_picture(task_id)[1]) if result is None else result
        self.send(self.save_annotation(annotation_id, task_id, user_id, regions))

    def delete(self, annotation_id: int) -> None:
        with self._lock:
            task_id = self.annotations.pop(annotation_id)["task"]
            self.tasks[task_id]["updated_at"] = stamp_now()
        project = self.project_row(PROJECT)
        self.send(
            {"action": "ANNOTATIONS_DELETED", "annotations": [{"id": annotation_id}], "project": project}
        )

    def send(self, event: Mapping[str, Any]) -> None:
        """One attempt of one second; a failure is nobody's business."""
        if not self.sends_webhooks:
            self.lost_webhooks += 1
            return
        try:
            answer = httpx.post(f"{self.backend_url}/webhook", json=event, timeout=WEBHOOK_TIMEOUT_S)
            self.lost_webhooks += answer.status_code >= 300
        except httpx.HTTPError:
            self.lost_webhooks += 1

    def connect_backend(self) -> dict[str, Any]:
        """What the server does when a backend is connected, or a task is about to be predicted."""
        answer = httpx.post(f"{self.backend_url}/setup", json=self.setup_body(PROJECT), timeout=10)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def predict(self, *task_ids: int, timeout_s: float = 100) -> list[Any]:
        for task_id in task_ids:
            self._need(task_id)
        body = self.predict_body(PROJECT, task_ids)
        answer = httpx.post(f"{self.backend_url}/predict", json=body, timeout=timeout_s)
        answer.raise_for_status()
        results: list[Any] = answer.json()["results"]
        return results

    def _need(self, task_id: int) -> None:
        if task_id not in self.tasks:
            self.add_task(PROJECT, task_id)
