"""An HTTP client whose waits obey the caller's patience, also where an answer drips byte by byte."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from ssl import SSLContext
from typing import Any

import httpcore
import httpx

from ml_backend.label_studio.retry_after import Pauses
from ml_backend.processes import patience

LONGEST_WRITE_S = 10.0
"""A write cannot be looked at while it waits; this long a server may refuse to read when one is to stop."""


def make_patient(client: httpx.Client) -> httpx.Client:
    """Have the client look at the caller's patience while it waits, and at what servers ask for.

    Fake transports cannot wait, and are left alone.
    """
    pauses, hooks = Pauses(), client.event_hooks
    client.event_hooks = {
        "request": [pauses.check, *hooks["request"]],
        "response": [pauses.note, *hooks["response"]],
    }
    for transport in (client._transport, *client._mounts.values()):
        pool = getattr(transport, "_pool", None)
        if pool is not None:
            pool._network_backend = _Backend()
    return client


def _limit(timeout: float | None) -> float:
    return min(math.inf if timeout is None else timeout, patience.left_s())


def _wait(look: Callable[[float], bytes], timeout: float | None) -> bytes:
    """Look again and again for what comes, as long as the time-out and the patience of the caller last."""
    until = time.monotonic() + _limit(timeout)
    while True:
        wait_s = min(until - time.monotonic(), patience.left_s(), patience.LOOK_S)
        if wait_s <= 0:
            raise httpcore.ReadTimeout
        try:
            return look(wait_s)
        except httpcore.ReadTimeout:
            continue


class _Stream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return _wait(lambda wait_s: self._stream.read(max_bytes, wait_s), timeout)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if patience.is_over():
            raise httpcore.WriteTimeout
        self._stream.write(buffer, min(_limit(timeout), LONGEST_WRITE_S))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        if patience.is_over():
            raise httpcore.ConnectTimeout
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, _limit(timeout)))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Backend(httpcore.NetworkBackend):
    """httpcore's own sockets, looked at in short steps."""

    def __init__(self) -> None:
        self._backend = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        if patience.is_over():
            raise httpcore.ConnectTimeout
        return _Stream(self._backend.connect_tcp(host, port, _limit(timeout), local_address, socket_options))
