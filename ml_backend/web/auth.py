"""Basic auth in front of everything but `/health` and `/ready`, once a user and a password are set."""

from __future__ import annotations

import hmac

from flask import Flask, request

from ml_backend.config import Settings
from ml_backend.errors import UnauthorizedError

CHALLENGE = 'Basic realm="Brushloop", charset="UTF-8"'

OPEN_ENDPOINTS = frozenset({"label_studio.health", "label_studio.ready"})
"""Label Studio and load balancers ask for health without credentials."""


def install_auth(app: Flask, settings: Settings) -> None:
    """Refuse every request without the configured credentials, before routes and bodies are read."""
    expected = _expected(settings)
    if expected is None:
        return

    def check() -> None:
        if request.endpoint in OPEN_ENDPOINTS:
            return
        try:
            given = request.authorization
        except ValueError:  # werkzeug lets through that base64 is ASCII
            given = None
        if given is None or given.type != "basic":
            raise UnauthorizedError("basic auth is needed here: user and password")
        # Both parts are compared always, so the time says nothing about which one was wrong.
        right_user = hmac.compare_digest((given.username or "").encode(), expected[0])
        right_password = hmac.compare_digest((given.password or "").encode(), expected[1])
        if not (right_user and right_password):
            raise UnauthorizedError("user or password is wrong")

    app.before_request(check)


def _expected(settings: Settings) -> tuple[bytes, bytes] | None:
    user, password = settings.basic_auth_user, settings.basic_auth_pass
    if user is None and password is None:
        return None
    if user is None or password is None:
        # Half a credential means somebody wants protection; running open would be the wrong guess.
        raise ValueError("BASIC_AUTH_USER and BASIC_AUTH_PASS must be set together, only one is")
    return user.encode(), password.get_secret_value().encode()
