"""Who may call: no page of another site, by no other name than ours, and with JSON alone.

A browser adds stored credentials to whatever any page sends here. A page can send forms and plain text to
any address without asking; JSON it cannot. And a page whose own name was pointed at this address counts as
of the same site, so a name that is not ours is refused.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from flask import Flask, request
from werkzeug.exceptions import BadRequest, Forbidden, UnsupportedMediaType

from ml_backend.config import Settings
from ml_backend.web.auth import OPEN_ENDPOINTS

CHANGING_METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})


def install_caller_checks(app: Flask, settings: Settings) -> None:
    """Refuse calls that a page of another site may have made, before any body is read."""
    ours = {(urlsplit(settings.brushloop_url).hostname or "").casefold(), *settings.allowed_hosts}

    def check() -> None:
        if request.endpoint in OPEN_ENDPOINTS:
            return  # load balancers ask by whatever name they know
        host = _host_of(request.host)
        if not _is_ours(host, ours):
            raise BadRequest(
                f"this server is not called {host[:80]!r}; set BRUSHLOOP_URL to its address or name it "
                "in ALLOWED_HOSTS"
            )
        if request.method in CHANGING_METHODS:
            _refuse_other_sites()
            _refuse_forms()

    app.before_request(check)


def _refuse_other_sites() -> None:
    origin = request.headers.get("Origin")
    is_foreign = request.headers.get("Sec-Fetch-Site") in ("cross-site", "same-site")
    if is_foreign or (origin is not None and urlsplit(origin).netloc.casefold() != request.host.casefold()):
        raise Forbidden("a page of another site may not post here")


def _refuse_forms() -> None:
    has_body = bool(request.content_length) or "Transfer-Encoding" in request.headers
    if has_body and request.mimetype != "application/json":
        raise UnsupportedMediaType(f"the body must be application/json, not {request.mimetype[:80]!r}")


def _host_of(header: str) -> str:
    """The name without its port, and an address without its brackets."""
    try:
        return (urlsplit(f"//{header}").hostname or "").rstrip(".").casefold()
    except ValueError:
        return ""


def _is_ours(host: str, ours: set[str]) -> bool:
    """Bare names belong to a local network, addresses to no domain: no page can point them here."""
    if host in ours or ("." not in host and ":" not in host and host):
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host.endswith((".localhost", ".internal", ".local"))
    return True
