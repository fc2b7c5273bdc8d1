"""Request bodies read strictly: one JSON object in UTF-8, or a `PayloadError`."""

from __future__ import annotations

import re
from typing import Any

from flask import request
from pydantic_core import from_json

from ml_backend.errors import PayloadError, TooLargeError

NUL_ESCAPE = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""A NUL character is legal JSON, but no text column of PostgreSQL can hold it."""


def read_object() -> dict[str, Any]:
    """Read the body of the current request; one above the limit gets 413, from Flask or from here."""
    body = request.get_data(cache=False)
    # A body that is sent in chunks says no length beforehand: werkzeug then stops reading at the limit.
    if request.content_length is None and len(body) >= (request.max_content_length or len(body) + 1):
        raise TooLargeError(f"the body is larger than the {request.max_content_length} bytes allowed")
    return parse_object(body)


def parse_object(body: bytes) -> dict[str, Any]:
    """Parse one JSON object. NaN, half surrogates, NULs and deep nesting are refused.

    Examples
    --------
    >>> parse_object(b'{"project": "1.1795331929"}')
    {'project': '1.1795331929'}
    >>> parse_object(b"[]")
    Traceback (most recent call last):
    ml_backend.errors.PayloadError: the body must be a JSON object, not a list
    """
    if not body.strip():
        raise PayloadError("the body is empty; a JSON object is needed")
    # The plain search takes microseconds, the exact one milliseconds, and bodies are long.
    if rb"\u0000" in body and NUL_ESCAPE.search(body):
        raise PayloadError("the body holds a NUL character")
    try:
        parsed = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise PayloadError(f"the body is not JSON: {error}") from None
    if not isinstance(parsed, dict):
        raise PayloadError(f"the body must be a JSON object, not a {type(parsed).__name__}")
    return parsed
