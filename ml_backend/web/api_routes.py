"""Everything under `/api`: projects, status, rounds, training, rollback, ranked tasks, pictures."""

from __future__ import annotations

from typing import cast, get_args

from flask import Blueprint, Response, jsonify, request
from flask.typing import ResponseReturnValue

from ml_backend.errors import BusyError, NotFoundError, PayloadError
from ml_backend.processes.fair_places import FairPlaces
from ml_backend.web.bodies import read_object
from ml_backend.web.loop import Loop, PictureKind

MAX_ID = 2**63 - 1
"""What a database column can hold; a larger number in an address names nothing."""

PROJECT = f"/projects/<int(min=1, max={MAX_ID}):project_id>"
TASK = f"/tasks/<int(min=1, max={MAX_ID}):task_id>"

ORDERS = ("uncertainty",)
DEFAULT_LIMIT = 50
MAX_LIMIT = 1000
ROUNDS_A_PAGE = 200
MAX_ROUND_DIGITS = 9
MAX_VERSION_CHARS = 200


def api_routes(loop: Loop, threads: FairPlaces) -> Blueprint:
    """The JSON interface for scripts, the command line and the dashboard."""
    routes = Blueprint("api", __name__, url_prefix="/api")

    @routes.get("/projects")
    def projects() -> ResponseReturnValue:
        return jsonify(list(loop.projects()))

    @routes.get(f"{PROJECT}/status")
    def status(project_id: int) -> ResponseReturnValue:
        return jsonify(loop.status(project_id))

    @routes.get(f"{PROJECT}/rounds")
    def rounds(project_id: int) -> ResponseReturnValue:
        return jsonify(list(loop.rounds(project_id, read_limit(ROUNDS_A_PAGE), read_before())))

    @routes.post(f"{PROJECT}/train")
    def train(project_id: int) -> ResponseReturnValue:
        loop.request_training(project_id)
        return _accepted(project_id)

    @routes.post(f"{PROJECT}/cancel")
    def cancel(project_id: int) -> ResponseReturnValue:
        loop.cancel(project_id)
        return _accepted(project_id)

    @routes.post(f"{PROJECT}/rollback")
    def rollback(project_id: int) -> ResponseReturnValue:
        version = read_object().get("model_version")
        if not isinstance(version, str) or not 1 <= len(version) <= MAX_VERSION_CHARS:
            raise PayloadError("model_version: the name of a version is needed")
        loop.rollback(project_id, version)
        return jsonify(project=project_id, model_version=version)

    @routes.get(f"{PROJECT}/tasks")
    def tasks(project_id: int) -> ResponseReturnValue:
        if request.args.get("order", ORDERS[0]) not in ORDERS:
            raise PayloadError(f"order: one of {', '.join(ORDERS)} is needed")
        return jsonify(list(loop.ranked_tasks(project_id, read_limit())))

    @routes.get(f"{PROJECT}{TASK}/<kind>.png")
    def picture(project_id: int, task_id: int, kind: str) -> ResponseReturnValue:
        if kind not in get_args(PictureKind):
            raise NotFoundError(f"no picture {kind[:40]!r}; there are {', '.join(get_args(PictureKind))}")
        with threads.enter(project_id) as entered:
            if not entered:
                raise BusyError("other pictures are being computed; ask again in some seconds")
            png = loop.picture(project_id, task_id, cast(PictureKind, kind))
        answer = Response(png, content_type="image/png")
        # The same address shows another picture after the next round: keep it, but ask first.
        answer.headers["Cache-Control"] = "private, no-cache"
        answer.add_etag()
        return answer.make_conditional(request)

    return routes


def read_before() -> int | None:
    """`?before=` of the current request: the number of the last round of the page before."""
    given = request.args.get("before")
    if given is None:
        return None
    if not (given.isascii() and given.isdigit() and 1 <= len(given) <= MAX_ROUND_DIGITS):
        raise PayloadError("before: the number of a round is needed")
    return int(given)


def read_limit(default: int = DEFAULT_LIMIT) -> int:
    """`?limit=` of the current request, 1..`MAX_LIMIT`."""
    given = request.args.get("limit", str(default))
    limit = int(given) if given.isascii() and given.isdigit() and len(given) <= len(str(MAX_LIMIT)) else 0
    if not 1 <= limit <= MAX_LIMIT:
        raise PayloadError(f"limit: a number from 1 to {MAX_LIMIT} is needed")
    return limit


def _accepted(project_id: int) -> ResponseReturnValue:
    return jsonify(project=project_id, accepted=True), 202
