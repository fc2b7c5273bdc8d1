"""Request bodies read strictly: one JSON object in UTF-8 that memory can hold, or a `PayloadError`."""

from __future__ import annotations

import re
from typing import Any

from flask import request
from pydantic_core import from_json

from ml_backend.errors import PayloadError, TooLargeError

NUL_ESCAPE = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""A NUL character is legal JSON, but no text column of PostgreSQL can hold it."""

PART_BYTES = 1024 * 1024
LIGHT_BYTES = 2 * 1024 * 1024
"""A body up to this is read without a count: whatever it holds takes less than `MAX_PARSED_BYTES`."""

MAX_PARSED_BYTES = 128 * 1024 * 1024
"""Of memory for one parsed body: 15 million numbers of brush streams, more than an image has."""


def read_object() -> dict[str, Any]:
    """Read the body of the current request; one above the limit gets 413, from Flask or from here."""
    body = _read_body()
    # A body that is sent in chunks says no length beforehand: werkzeug then stops reading at the limit.
    if request.content_length is None and len(body) >= (request.max_content_length or len(body) + 1):
        raise TooLargeError(f"the body is larger than the {request.max_content_length} bytes allowed")
    return parse_object(body)


def _read_body() -> bytes | bytearray:
    """The whole body, read into one piece of memory where its length is known."""
    length = request.content_length
    if length is None or length > (request.max_content_length or length):
        return request.get_data(cache=False)  # which refuses it, or stops at the limit
    body = bytearray(length)
    view, at = memoryview(body), 0
    while at < length and (part := request.stream.read(min(length - at, PART_BYTES))):
        view[at : at + len(part)] = part
        at += len(part)
    view.release()
    del body[at:]
    return body


def parse_object(body: bytes | bytearray) -> dict[str, Any]:
    """Parse one JSON object. NaN, half surrogates, NULs and deep nesting are refused.

    Examples
    --------
    >>> parse_object(b'{"project": "1.1795331929"}')
    {'project': '1.1795331929'}
    >>> parse_object(b"[]")
    Traceback (most recent call last):
    ml_backend.errors.PayloadError: the body must be a JSON object, not a list
    """
    if not body or body.isspace():  # `strip` would copy it
        raise PayloadError("the body is empty; a JSON object is needed")
    # The plain search takes microseconds, the exact one milliseconds, and bodies are long.
    if rb"\u0000" in body and NUL_ESCAPE.search(body):
        raise PayloadError("the body holds a NUL character")
    if len(body) > LIGHT_BYTES:
        _check_weight(body)
    try:
        parsed = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise PayloadError(f"the body is not JSON: {error}") from None
    if not isinstance(parsed, dict):
        raise PayloadError(f"the body must be a JSON object, not a {type(parsed).__name__}")
    return parsed


def _check_weight(body: bytes | bytearray) -> None:
    from ml_backend.web.body_weight import count_bytes  # numba costs half a second to import

    if count_bytes(body) > MAX_PARSED_BYTES:
        raise TooLargeError(
            f"the body holds more values than fit {MAX_PARSED_BYTES // 2**20} MiB of memory: send fewer "
            "annotations at once. What Label Studio keeps is fetched from it, one task at a time"
        )
