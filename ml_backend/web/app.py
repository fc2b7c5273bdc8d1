"""The Flask app: Label Studio's calls, `/api`, `/metrics` and the dashboard, around one learning loop.

Failures leave the house as `{"error": "what is wrong and where", "id": "…"}`, never with a traceback; the id
is in the log too, beside the cause.
"""

from __future__ import annotations

import logging
import uuid

from flask import Flask, Response, jsonify, request
from sqlalchemy.exc import (
    DatabaseError,
    DataError,
    IntegrityError,
    InterfaceError,
    NotSupportedError,
    ProgrammingError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as WerkzeugResponse

from core.errors import (
    BrushloopError,
    CheckpointError,
    DeviceError,
    EncoderError,
    ImageError,
    MachineError,
    RLEError,
    SchemaError,
    TrainingError,
)
from ml_backend.config import Settings
from ml_backend.errors import (
    BusyError,
    ConflictError,
    LabelConfigError,
    LabelStudioError,
    NotFoundError,
    PayloadError,
    TooLargeError,
    UnauthorizedError,
)
from ml_backend.processes.fair_places import FairPlaces
from ml_backend.web.api_routes import api_routes
from ml_backend.web.auth import CHALLENGE, install_auth
from ml_backend.web.callers import install_caller_checks
from ml_backend.web.dashboard import dashboard_routes
from ml_backend.web.label_studio_routes import label_studio_routes
from ml_backend.web.loop import Loop
from ml_backend.web.prometheus import Metrics, install_metrics
from ml_backend.web.thread_places import share_threads

log = logging.getLogger(__name__)

STATUS: dict[type[BrushloopError], int] = {
    PayloadError: 400,
    RLEError: 400,
    UnauthorizedError: 401,
    NotFoundError: 404,
    ConflictError: 409,
    TrainingError: 409,
    TooLargeError: 413,
    LabelConfigError: 422,
    SchemaError: 422,
    ImageError: 422,
    CheckpointError: 503,
    DeviceError: 503,
    MachineError: 503,
    EncoderError: 503,
    BusyError: 503,
    LabelStudioError: 503,
}
"""The one table of errors and their HTTP status; a subclass counts as its nearest listed ancestor."""

OF_STATEMENTS = (DataError, IntegrityError, NotSupportedError, ProgrammingError)
LACKING = ("42501", "42P01", "3F000")
"""Codes of PostgreSQL: no right to do it, no such table, no such schema."""

PLAIN_WORDS = {
    404: "there is nothing at {path}",
    405: "{method} is not possible at {path}",
    413: "the body is larger than the {limit} bytes that MAX_BODY_MB allows",
}
"""What werkzeug's own errors say here instead of its page-long sentences."""

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}

BYTES_PER_MB = 1024 * 1024

RETRY_AFTER_S = "3"


def create_app(loop: Loop, settings: Settings) -> Flask:
    """Build the app; nothing is shared between two of them."""
    app = Flask("ml_backend.web")
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_mb * BYTES_PER_MB
    app.url_map.strict_slashes = False
    app.json.sort_keys = False  # type: ignore[attr-defined]  # the default provider has it
    metrics = Metrics(loop)
    install_metrics(app, metrics)
    install_auth(app, settings)
    install_caller_checks(app, settings)
    places = share_threads(settings.web_threads)
    app.register_blueprint(label_studio_routes(loop, settings, metrics, FairPlaces(places.predict)))
    app.register_blueprint(api_routes(loop, FairPlaces(places.pictures)))
    app.register_blueprint(dashboard_routes(loop))
    app.register_error_handler(BrushloopError, _refuse)
    for kind in (DatabaseError, InterfaceError, PoolTimeoutError):
        app.register_error_handler(kind, _say_database)
    app.register_error_handler(OSError, _say_file)
    app.register_error_handler(HTTPException, _refuse_http)
    app.register_error_handler(Exception, _last_resort)
    app.after_request(_add_security_headers)
    return app


def status_of(error: BrushloopError) -> int:
    """HTTP status of one of our errors; 500 for one that nobody listed."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def error_document(message: str) -> dict[str, str]:
    """The JSON form of every failure, with a fresh id."""
    return {"error": message, "id": uuid.uuid4().hex[:12]}


def _refuse(error: BrushloopError) -> Response:
    status = status_of(error)
    if status == 500:
        return _last_resort(error)
    return _answer(status, str(error) or type(error).__name__)


def _refuse_http(error: HTTPException) -> Response | WerkzeugResponse:
    if error.code is None or error.code < 400:
        return error.get_response()  # a redirect
    message = error.description or error.name
    if error.code in PLAIN_WORDS:
        limit = request.max_content_length
        message = PLAIN_WORDS[error.code].format(method=request.method, path=request.path[:200], limit=limit)
    answer = _answer(error.code, message)
    allowed = error.get_response().headers.get("Allow")
    if allowed:
        answer.headers["Allow"] = allowed
    return answer


def _say_database(error: SQLAlchemyError) -> Response:
    """The same call works once the database does; the driver's words go to the log alone."""
    if _is_our_fault(error):
        return _last_resort(error)
    cause = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
    log.warning("miss_database method=%s path=%r cause=%r", request.method, request.path[:200], cause)
    return _answer(503, "the database cannot be reached or is locked: see that it runs, and GET /ready")


def _is_our_fault(error: SQLAlchemyError) -> bool:
    """Whether a statement is wrong, so that no retry helps, whatever state the database is in."""
    if not isinstance(error, OF_STATEMENTS):
        return False
    # PostgreSQL says so of rights that were taken away, and of tables that were.
    return getattr(error.orig, "sqlstate", None) not in LACKING


def _say_file(error: OSError) -> Response:
    """The file's place goes to the log alone."""
    log.warning("miss_file method=%s path=%r cause=%r", request.method, request.path[:200], str(error))
    cause = error.strerror or type(error).__name__
    return _answer(503, f"a file or folder cannot be used ({cause}): see DATA_DIR, and GET /ready")


def _last_resort(error: Exception) -> Response:
    document = error_document("something went wrong here; the log has the cause under this id")
    log.error(
        "fail_request method=%s path=%r id=%s",
        request.method,
        request.path[:200],
        document["id"],
        exc_info=error,
    )
    return _to_response(500, document)


def _answer(status: int, message: str) -> Response:
    document = error_document(message)
    log.warning(
        "refuse_request method=%s path=%r status=%d id=%s error=%r",
        request.method,
        request.path[:200],
        status,
        document["id"],
        message,
    )
    return _to_response(status, document)


def _to_response(status: int, document: dict[str, str]) -> Response:
    answer = jsonify(document)
    answer.status_code = status
    if status == 401:
        answer.headers["WWW-Authenticate"] = CHALLENGE
    if status == 503:
        answer.headers["Retry-After"] = RETRY_AFTER_S
    return answer


def _add_security_headers(answer: Response) -> Response:
    for name, value in SECURITY_HEADERS.items():
        answer.headers.setdefault(name, value)
    # Answers are of this moment and may hold what a person painted.
    answer.headers.setdefault("Cache-Control", "no-store")
    return answer
