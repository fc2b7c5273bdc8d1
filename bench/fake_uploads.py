"""The part of the fake Label Studio that `brushloop import` talks to: uploads, and tasks that name them."""

from __future__ import annotations

import json
from typing import Any

from flask import Flask, abort, jsonify, request
from flask.typing import ResponseReturnValue

from bench.fake_label_studio import FakeLabelStudio, stamp_now

PREFIX = "0a1b2c3d-"
"""Label Studio writes eight hex digits before the name of an upload."""


def add_uploads(app: Flask, fake: FakeLabelStudio) -> list[str]:
    """Add the routes; returns the names of the uploads so far, of which the bytes are not kept."""
    uploads: list[str] = []

    def row(number: int) -> dict[str, Any]:
        return {"id": number, "file": f"upload/1/{PREFIX}{uploads[number]}"}

    @app.get("/api/projects/<int:project_id>/file-uploads")
    def list_uploads(project_id: int) -> ResponseReturnValue:
        if project_id not in fake.sides_px:
            abort(404)
        told = request.args.get("ids")
        return jsonify([row(number) for number in (json.loads(told) if told else range(len(uploads)))])

    @app.post("/api/projects/<int:project_id>/import")
    def bring(project_id: int) -> ResponseReturnValue:
        if request.files:
            first = len(uploads)
            uploads.extend(str(file.filename) for file in request.files.values())
            return jsonify(file_upload_ids=list(range(first, len(uploads)))), 201
        rows = request.get_json()
        with fake._lock:
            for number, task in enumerate(rows, len(fake.tasks) + 1):
                own = {"id": number, "project": project_id, "updated_at": stamp_now()}
                fake.tasks[number] = {**own, "data": task["data"]}
        return jsonify(task_count=len(rows)), 201

    return uploads
