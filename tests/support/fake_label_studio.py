"""A small Label Studio over HTTP: what the backend asks of it, and webhooks that are sent once."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import cv2
import httpx
from painted import LABEL_CONFIG, annotation_row, make_picture, paint_all

TOKEN = "0123456789abcdef0123456789abcdef01234567"
CREATED_AT = "2026-11-22T07:18:49.192769Z"
WEBHOOK_TIMEOUT_S = 1.0


class FakeServer:
    """Tasks and annotations of project 1; the number of a task is the seed of its image."""

    def __init__(self, url: str, backend_url: str) -> None:
        self.url, self.backend_url = url, backend_url
        self.lock = threading.RLock()
        self.tasks: dict[int, dict[str, Any]] = {}
        self.annotations: dict[int, dict[str, Any]] = {}
        self.pushed: list[dict[str, Any]] = []
        self.predictions: dict[int, dict[str, Any]] = {}
        self.tabs: dict[int, dict[str, Any]] = {}
        self.model_version = ""
        self.is_down = False
        self.sends_webhooks = True
        self.lost_webhooks = 0

    @property
    def project(self) -> dict[str, Any]:
        return {
            "id": 1,
            "title": "Cells",
            "label_config": LABEL_CONFIG,
            "model_version": self.model_version,
            "created_at": CREATED_AT,
        }

    def add_task(self, task_id: int) -> None:
        with self.lock:
            self.tasks[task_id] = {
                "id": task_id,
                "project": 1,
                "data": {"image": f"/data/upload/1/{task_id}.png"},
                "updated_at": _now(),
            }

    def submit(self, annotation_id: int, task_id: int, result: Any = None, user_id: int = 1) -> None:
        """Store an annotation and send its event, as the server does when a person submits."""
        with self.lock:
            if task_id not in self.tasks:
                self.add_task(task_id)
            action = "ANNOTATION_UPDATED" if annotation_id in self.annotations else "ANNOTATION_CREATED"
            regions = paint_all(make_picture(task_id)[1]) if result is None else result
            row = annotation_row(annotation_id, task_id, regions, _now(), user_id)
            self.annotations[annotation_id] = row
            self.tasks[task_id]["updated_at"] = _now()
        self.send({"action": action, "annotation": row, "task": self.tasks[task_id]})

    def delete(self, annotation_id: int) -> None:
        with self.lock:
            task_id = self.annotations.pop(annotation_id)["task"]
            self.tasks[task_id]["updated_at"] = _now()
        self.send({"action": "ANNOTATIONS_DELETED", "annotations": [{"id": annotation_id}]})

    def send(self, event: Mapping[str, Any]) -> None:
        """One attempt of one second; a failure is nobody's business."""
        if not self.sends_webhooks:
            self.lost_webhooks += 1
            return
        try:
            body = {**event, "project": self.project}
            answer = httpx.post(f"{self.backend_url}/webhook", json=body, timeout=WEBHOOK_TIMEOUT_S)
            self.lost_webhooks += answer.status_code >= 300
        except httpx.HTTPError:
            self.lost_webhooks += 1

    def connect_backend(self) -> dict[str, Any]:
        """What the server does when a backend is connected, or a task is about to be predicted."""
        stamp = int(datetime.fromisoformat(CREATED_AT.replace("Z", "+00:00")).timestamp())
        body = {
            "project": f"1.{stamp}",
            "schema": LABEL_CONFIG,
            "hostname": self.url,
            "access_token": TOKEN,
            "extra_params": None,
        }
        answer = httpx.post(f"{self.backend_url}/setup", json=body, timeout=10)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def predict(self, *task_ids: int, timeout_s: float = 100) -> list[Any]:
        for task_id in task_ids:
            if task_id not in self.tasks:
                self.add_task(task_id)
        body = {
            "project": "1",
            "tasks": [self.tasks[task_id] for task_id in task_ids],
            "label_config": LABEL_CONFIG,
            "params": {},
        }
        answer = httpx.post(f"{self.backend_url}/predict", json=body, timeout=timeout_s)
        answer.raise_for_status()
        results: list[Any] = answer.json()["results"]
        return results

    def answer(self, path: str, query: Mapping[str, list[str]]) -> Any:
        """The JSON, or the bytes, behind an address; None for one that leads nowhere."""
        parts = path.strip("/").split("/")
        with self.lock:
            if parts[:2] == ["api", "projects"]:
                return self.project
            if parts == ["api", "ml"]:
                return []
            if parts == ["api", "dm", "views"]:
                return [{"id": number, "data": data} for number, data in self.tabs.items()]
            if parts == ["api", "tasks"]:
                return {"tasks": self._listed(query)}
            if parts[:2] == ["api", "tasks"] and int(parts[2]) in self.tasks:
                return self._with_annotations(int(parts[2]))
        if parts[:2] == ["data", "upload"]:
            image = make_picture(int(parts[3].removesuffix(".png")))[0]
            return cv2.imencode(".png", image)[1].tobytes()
        return None

    def _listed(self, query: Mapping[str, list[str]]) -> list[dict[str, Any]]:
        condition = json.loads(query["query"][0])["filters"]["items"][0]
        value, size = condition["value"], int(query["page_size"][0])
        if condition["operator"] == "in_list":
            return [self._with_predictions(i) for i in value if i in self.tasks]
        wanted = [i for i in self.tasks if (i > value if condition["operator"] == "greater" else i == value)]
        return [self._with_annotations(task_id) for task_id in sorted(wanted)[:size]]

    def _with_predictions(self, task_id: int) -> dict[str, Any]:
        rows = [row for row in self.predictions.values() if row["task"] == task_id]
        return {"id": task_id, "predictions": rows}

    def change(self, method: str, path: str, body: Any) -> dict[str, Any] | None:
        """What a call that changes something answers; None when there is no such thing."""
        parts = path.strip("/").split("/")
        with self.lock:
            if parts[-2:] == ["import", "predictions"]:
                first = max(self.predictions, default=0) + 1
                self.predictions.update({i: {**row, "id": i} for i, row in enumerate(body, first)})
                self.pushed += body
                return {"created": len(body)}
            if parts[:2] == ["api", "projects"]:
                self.model_version = body.get("model_version", self.model_version)
                return self.project
            kept = self.tabs if parts[1] == "dm" else self.predictions
            number = int(parts[-1]) if parts[-1].isdigit() else len(kept) + 1
            if method != "POST" and number not in kept:
                return None
            if method == "DELETE":
                del kept[number]
                return {}
            kept[number] = body["data"] if kept is self.tabs else {**body, "id": number}
            return {"id": number}

    def _with_annotations(self, task_id: int) -> dict[str, Any]:
        rows = [row for row in self.annotations.values() if row["task"] == task_id]
        return {**self.tasks[task_id], "annotations": rows}


@contextmanager
def fake_label_studio(port: int, backend_url: str) -> Iterator[FakeServer]:
    server = FakeServer(f"http://127.0.0.1:{port}", backend_url)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            address = urlsplit(self.path)
            if server.is_down:
                self.reply(503, {})
            elif self.headers.get("Authorization") != f"Token {TOKEN}":
                self.reply(401, {"detail": "who are you"})
            else:
                found = server.answer(address.path, parse_qs(address.query))
                self.reply(404 if found is None else 200, found)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"null")
            done = server.change(self.command, urlsplit(self.path).path, body)
            self.reply(404 if done is None else 200, done)

        do_PATCH = do_DELETE = do_POST  # noqa: N815 - the names that the server looks for

        def reply(self, status: int, content: Any) -> None:
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header(
                "Content-Type", "image/png" if isinstance(content, bytes) else "application/json"
            )
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as http:
        http.daemon_threads = True
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        yield server
        http.shutdown()
        thread.join()


def _now() -> str:
    return datetime.now(timezone.utc).isoformat().replace("+00:00", "Z")
