"""Basic auth in front of everything but `/health`, once a user and a password are set."""

from __future__ import annotations

import base64
import binascii
import hmac

from flask import Flask, request

from ml_backend.config import Settings
from ml_backend.errors import UnauthorizedError

CHALLENGE = 'Basic realm="Brushloop", charset="UTF-8"'

OPEN_ENDPOINTS = frozenset({"label_studio.health"})
"""Label Studio and load balancers ask for health without credentials."""


def install_auth(app: Flask, settings: Settings) -> None:
    """Refuse every request without the configured credentials, before routes or bodies are looked at."""
    expected = _expected(settings)
    if expected is None:
        return

    def check() -> None:
        if request.endpoint in OPEN_ENDPOINTS:
            return
        given = parse_basic(request.headers.get("Authorization", ""))
        if given is None:
            raise UnauthorizedError("basic auth is needed here: user and password")
        # Both parts are compared always, so the time says nothing about which one was wrong.
        right_user = hmac.compare_digest(given[0], expected[0])
        right_password = hmac.compare_digest(given[1], expected[1])
        if not (right_user and right_password):
            raise UnauthorizedError("user or password is wrong")

    app.before_request(check)


def parse_basic(header: str) -> tuple[bytes, bytes] | None:
    """User and password of an `Authorization` header, or None for anything else.

    Examples
    --------
    >>> parse_basic("Basic dXNlcjpwYTpzcw==")
    (b'user', b'pa:ss')
    >>> parse_basic("Bearer dXNlcjpwYTpzcw==") is None
    True
    """
    scheme, _, encoded = header.strip().partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        decoded = base64.b64decode(encoded.strip().encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        return None
    user, colon, password = decoded.partition(b":")
    return (user, password) if colon else None


def _expected(settings: Settings) -> tuple[bytes, bytes] | None:
    user, password = settings.basic_auth_user, settings.basic_auth_pass
    if user is None and password is None:
        return None
    if user is None or password is None:
        # Half a credential means somebody wants protection; running open would be the wrong guess.
        raise ValueError("BASIC_AUTH_USER and BASIC_AUTH_PASS must be set together, only one is")
    return user.encode(), password.get_secret_value().encode()
