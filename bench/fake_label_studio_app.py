"""The fake Label Studio over HTTP: the routes that `ml_backend.label_studio` calls."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from flask import Flask, Response, abort, jsonify, request
from flask.typing import ResponseReturnValue
from waitress import create_server

from bench.fake_label_studio import API_KEY, FakeLabelStudio

DRIP_S = 0.5
"""Between two bytes of an answer that never ends."""
PAUSE_S = 10.0
"""So long one who is told that there are too many calls is asked to wait."""


@contextmanager
def run_fake(fake: FakeLabelStudio) -> Iterator[str]:
    """Serve it in threads of this process; yields its address."""
    with run_app(fake, build_app(fake)) as url:
        yield url


@contextmanager
def run_app(fake: FakeLabelStudio, app: Flask, n_threads: int = 4) -> Iterator[str]:
    """Serve these routes of it in threads of this process; yields its address."""
    server = create_server(app, host="127.0.0.1", port=0, threads=n_threads, ident=None)
    fake.url = f"http://127.0.0.1:{server.effective_port}"
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            server.asyncore.loop(timeout=0.2, map=server._map, use_poll=True, count=1)

    thread = threading.Thread(target=serve, name="fake-label-studio")
    thread.start()
    try:
        yield fake.url
    finally:
        stop.set()
        thread.join()
        server.task_dispatcher.shutdown()
        server.asyncore.close_all(server._map)


def build_app(fake: FakeLabelStudio) -> Flask:
    """The routes that `ml_backend.label_studio` calls."""
    app = Flask(__name__)

    @app.before_request
    def check() -> Response | None:
        if fake.is_down:
            return _be_away(fake)
        if request.headers.get("Authorization") != f"Token {API_KEY}":
            abort(401)
        return None

    @app.get("/api/projects/<int:project_id>")
    def project(project_id: int) -> ResponseReturnValue:
        if project_id not in fake.sides_px:
            abort(404)
        return jsonify(fake.project_row(project_id))

    @app.get("/api/tasks")
    def tasks() -> ResponseReturnValue:
        chosen = find_tasks(fake, int(request.args["project"]), json.loads(request.args["query"]))
        fields = request.args["include"].split(",")
        page = chosen[: int(request.args["page_size"])]
        return jsonify(tasks=[fake.task_row(task_id, fields) for task_id in page], total=len(chosen))

    @app.get("/api/tasks/<int:task_id>")
    def task(task_id: int) -> ResponseReturnValue:
        if task_id not in fake.tasks:
            abort(404)
        return jsonify(fake.task_row(task_id))

    @app.post("/api/projects/<int:project_id>/import/predictions")
    def predictions(project_id: int) -> ResponseReturnValue:
        rows = request.get_json()
        with fake._lock:
            first = max((row["id"] for row in fake.predictions), default=0) + 1
            fake.predictions += [{**row, "id": number} for number, row in enumerate(rows, first)]
        return jsonify(created=len(rows)), 201

    @app.patch("/api/predictions/<int:number>/")
    @app.delete("/api/predictions/<int:number>/")
    def prediction(number: int) -> ResponseReturnValue:
        with fake._lock:
            found = [row for row in fake.predictions if row["id"] == number]
            if not found:
                abort(404)
            if request.method == "PATCH":
                found[0].update(request.get_json())
            else:
                fake.predictions.remove(found[0])
        return jsonify(id=number)

    @app.patch("/api/projects/<int:project_id>")
    def change_project(project_id: int) -> ResponseReturnValue:
        fake.model_versions[project_id] = request.get_json()["model_version"]
        return jsonify(fake.project_row(project_id))

    @app.get("/api/ml")
    def backends() -> ResponseReturnValue:
        return jsonify([])

    @app.get("/api/dm/views")
    def tabs() -> ResponseReturnValue:
        wanted = int(request.args["project"])
        return jsonify([tab for tab in fake.tabs if tab["project"] == wanted])

    @app.post("/api/dm/views")
    def new_tab() -> ResponseReturnValue:
        fake.tabs.append({"id": len(fake.tabs) + 1, **request.get_json()})
        return jsonify(fake.tabs[-1]), 201

    @app.patch("/api/dm/views/<int:number>/")
    def change_tab(number: int) -> ResponseReturnValue:
        fake.tabs[number - 1].update(request.get_json())
        return jsonify(fake.tabs[number - 1])

    @app.get("/data/upload/<int:project_id>/<int:task_id>.png")
    def image(project_id: int, task_id: int) -> ResponseReturnValue:
        if task_id not in fake.tasks:
            abort(404)
        return Response(fake.picture(task_id)[0], content_type="image/png")

    return app


def _be_away(fake: FakeLabelStudio) -> Response:
    """As proxies and servers in trouble answer."""
    if isinstance(fake.away_as, int):
        abort(fake.away_as)
    if fake.away_as == "busy":
        return Response(status=429, headers={"Retry-After": f"{PAUSE_S:g}"})
    if fake.away_as == "html":
        return Response("<html>Sign in</html>", content_type="text/html")

    def drip() -> Iterator[bytes]:
        while fake.is_down:
            yield b" "
            time.sleep(DRIP_S)

    return Response(drip(), content_type="application/json")


def find_tasks(fake: FakeLabelStudio, project_id: int, query: Mapping[str, Any]) -> list[int]:
    """Ids of a project's tasks, by the Data Manager's filters on the id, and on having annotations."""
    items = query["filters"]["items"]
    named = [item["value"] for item in items if item["operator"] == "in_list"]
    with fake._lock:
        # A look at every task for each call would be a cost of the stand-in that grows with the pool.
        rows = [fake.tasks[i] for i in named[0] if i in fake.tasks] if named else list(fake.tasks.values())
    found = sorted(row["id"] for row in rows if row["project"] == project_id)
    for item in items:
        if item["operator"] == "in_list":
            found = [i for i in found if i in item["value"]]
            continue
        if item["filter"] == "filter:tasks:total_annotations":
            painted = {row["task"] for row in list(fake.annotations.values())}
            found = [i for i in found if i in painted]  # more than none
            continue
        value = int(item["value"])
        found = [i for i in found if (i > value if item["operator"] == "greater" else i == value)]
    return found
