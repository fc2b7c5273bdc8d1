"""Fetching images over the network: from allowed hosts alone, within limits, the credential to one host."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from core.errors import ImageError, ImageUnavailableError
from ml_backend.errors import (
    ImageRefusedError,
    LabelStudioError,
    LabelStudioImageError,
    LabelStudioUnavailableError,
)
from ml_backend.label_studio.addresses import AddressPolicy, WebAddress, check_web
from ml_backend.label_studio.connection import Connection
from ml_backend.label_studio.file_kinds import SPOKEN, START_BYTES, describe_kind
from ml_backend.label_studio.image_frame import ImageLimits
from ml_backend.label_studio.network import make_patient
from ml_backend.label_studio.retry_after import AskedToWaitError
from ml_backend.processes.patience import check_stop, patience

MAX_REDIRECTS = 5
CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 30.0
TOTAL_TIMEOUT_S = 300.0
SLOW_AFTER_S, SLOWEST_BYTES_PER_S = 10.0, 5_000
"""A server that sends a byte now and then is given up after this long; the worst line is faster."""

COMPRESSIONS = {"gzip", "deflate", "br", "zstd"}

_REDIRECTS = (301, 302, 303, 307, 308)


def new_http_client(transport: httpx.BaseTransport | None = None) -> httpx.Client:
    """A client that follows no redirects by itself; safe to share between threads."""
    client = httpx.Client(
        timeout=httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
        follow_redirects=False,
        headers={"Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"},
        transport=transport,
    )
    return make_patient(client)


def download(
    http: httpx.Client,
    address: WebAddress,
    policy: AddressPolicy,
    connection: Connection | None,
    limits: ImageLimits,
    target: Path,
) -> None:
    """Write what is at `address` to `target`; raises `ImageError` that says which host answered what.

    No longer than the caller's patience lasts; raises `RoundCancelledError` where one is asked to stop.
    """
    with patience(TOTAL_TIMEOUT_S):
        _download(http, address, policy, connection, limits, target)


def _download(
    http: httpx.Client,
    address: WebAddress,
    policy: AddressPolicy,
    connection: Connection | None,
    limits: ImageLimits,
    target: Path,
) -> None:
    is_renewed = False
    for _ in range(MAX_REDIRECTS + 2):  # and one more try with a fresh access token
        with _opened(http, address, connection) as response:
            status = response.status_code
            if status == httpx.codes.OK:
                _save(response, limits, target)
                _check_spoken(address, target)
                return
            if status in _REDIRECTS:
                address = _redirected(address, response, policy)
                continue
        if status == httpx.codes.UNAUTHORIZED and address.is_label_studio and connection and not is_renewed:
            connection.renew()
            is_renewed = True
            continue
        complaint = _complaint(address, status, has_credential=connection is not None)
        raise _away(address, complaint) if _may_pass(status) else ImageError(complaint)
    raise _away(address, f"{address.url.host} redirects an image more than {MAX_REDIRECTS} times")


@contextmanager
def _opened(
    http: httpx.Client, address: WebAddress, connection: Connection | None
) -> Iterator[httpx.Response]:
    """A response whose body is still to be read; every failure of the network is an `ImageError`."""
    host = address.url.host
    headers = _credential(connection) if address.is_label_studio else {}
    try:
        with patience(READ_TIMEOUT_S):  # for all headers: those can drip too
            response = http.send(http.build_request("GET", address.url, headers=headers), stream=True)
        try:
            yield response
        finally:
            response.close()
    except httpx.TimeoutException:
        check_stop()
        raise _away(address, f"{host} did not answer in time") from None
    except AskedToWaitError as error:
        raise _away(address, f"{host} {error}") from None
    except httpx.HTTPError as error:
        raise _away(address, f"{host} cannot be reached: {str(error) or type(error).__name__}") from None
    except (httpx.InvalidURL, ValueError):
        # httpx reads the address of a redirect by itself, also when nobody follows it.
        raise ImageError(f"{host} names an address for an image that is none of the web") from None


def _may_pass(status: int) -> bool:
    """Whether another answer is likely later: the server fails, is busy, or wants another credential."""
    return status >= httpx.codes.INTERNAL_SERVER_ERROR or status in (401, 403, 408, 425, 429)


def _away(address: WebAddress, message: str) -> ImageUnavailableError:
    return (LabelStudioImageError if address.is_label_studio else ImageUnavailableError)(message)


def _credential(connection: Connection | None) -> dict[str, str]:
    if connection is None:
        return {}
    try:
        return {"Authorization": connection.authorization()}
    except LabelStudioUnavailableError as error:
        raise LabelStudioImageError(f"no image can be fetched: {error}") from None
    except LabelStudioError as error:
        raise ImageUnavailableError(f"no image can be fetched: {error}") from None


def _redirected(address: WebAddress, response: httpx.Response, policy: AddressPolicy) -> WebAddress:
    """The next address, checked like the first one."""
    location = response.headers.get("location", "")
    try:
        url = address.url.join(location)
    except (httpx.InvalidURL, ValueError):
        raise ImageError(f"{address.url.host} redirects an image to an address that cannot be read") from None
    try:
        return check_web(url, policy)
    except ImageRefusedError as refusal:
        raise ImageRefusedError(f"{address.url.host} redirects: {refusal}") from None


def _save(response: httpx.Response, limits: ImageLimits, target: Path) -> None:
    host, began = response.url.host, time.monotonic()
    announced = response.headers.get("content-length", "")
    if announced.isdigit():
        limits.check_bytes(int(announced))
    n_bytes = 0
    with target.open("wb") as file:
        for chunk in _chunks(response):
            n_bytes += len(chunk)
            limits.check_bytes(n_bytes)
            if _is_dripping(n_bytes, time.monotonic() - began):
                raise ImageUnavailableError(
                    f"{host} is too slow: {n_bytes} bytes of an image in {SLOW_AFTER_S:g} s"
                )
            file.write(chunk)


def _check_spoken(address: WebAddress, file: Path) -> None:
    """Tell a page that came in the place of an image, as of a proxy that wants one to sign in."""
    with file.open("rb") as opened:
        start = opened.read(START_BYTES)
    kind = describe_kind(start) if start else "nothing"
    if not start or kind in SPOKEN:
        raise _away(address, f"{address.url.host} sent {kind} in the place of an image")


def _is_dripping(n_bytes: int, spent_s: float) -> bool:
    return spent_s > SLOW_AFTER_S and n_bytes < SLOWEST_BYTES_PER_S * spent_s


def _chunks(response: httpx.Response) -> Iterator[bytes]:
    """The body as it arrives: a filled buffer would hide a drip.

    Object stores keep odd values of this header (empty, `aws-chunked`, `utf-8`), which say nothing about the
    bytes. Only a real compression is undone, although none was asked for.
    """
    named = {part.strip().lower() for part in response.headers.get("content-encoding", "").split(",")}
    return response.iter_bytes() if named & COMPRESSIONS else response.iter_raw()


def _complaint(address: WebAddress, status: int, *, has_credential: bool) -> str:
    host = address.url.host
    if status in (401, 403) and address.is_label_studio:
        what = "refuses the credential" if has_credential else "wants a credential"
        return (
            f"Label Studio at {host} {what} for images ({status}): set LABEL_STUDIO_API_KEY to a personal "
            "access token, or to a legacy key where those are enabled"
        )
    if status == httpx.codes.NOT_FOUND and address.is_label_studio:
        return (
            f"Label Studio at {host} has no such image, or no storage of the project fits its address (404)"
        )
    return f"{host} answered {status} for an image"
