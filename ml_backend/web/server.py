"""The web process: waitress with a fixed number of threads, which finishes its answers before it stops.

waitress reads a request whole before a thread sees it, so a slow client holds no thread. Predictions run in
these threads too; `thread_places.py` keeps some of them free for `/health` and webhooks.
"""

from __future__ import annotations

import errno
import logging
import math
import resource
import signal
import socket
import threading
import time
from types import FrameType
from typing import Any

from flask import Flask
from waitress import create_server
from waitress.server import BaseWSGIServer

from ml_backend.config import Settings
from ml_backend.processes.remedies import REMEDIES
from ml_backend.web.app import BYTES_PER_MB
from ml_backend.web.channel import Channel

log = logging.getLogger(__name__)

GRACE_S = 20.0
"""How long running requests may go on after SIGTERM; docker compose waits 30 s."""

BODY_SLACK_BYTES = 64 * BYTES_PER_MB
"""A body somewhat above the limit is read and thrown away, so that its sender can read the 413."""

ANSWER_BYTES = 2**40
"""Answers are in memory when they are sent: a full disk of temporary files holds none back."""

CONNECTION_LIMIT = 1000
"""Of connections at once; waitress takes no further one above it."""

NEARLY_FULL, ROOMY = 0.9, 0.8
"""Shares of the limit: above the first, the longest idle connections are closed until the second is left."""

OTHER_FILES = 256
"""Open files of this process that are no connections: database, images, models."""

NO_HANDLES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
"""Why the system gives no further connection; whoever asks stays in its queue, and wakes the loop at once."""
NO_HANDLES_PAUSE_S, NO_HANDLES_TELL_S = 0.1, 60.0

LOOP_STEP_S = 1.0
THREADS_END_S = 1.0


def bind(host: str, port: int) -> socket.socket:
    """Open the listening socket; port 0 takes a free one. Raises `OSError` when the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=1024)


def serve(
    app: Flask,
    settings: Settings,
    listener: socket.socket,
    stop: threading.Event | None = None,
    most_connections: int = CONNECTION_LIMIT,
) -> None:
    """Answer requests until `stop` is set, or until SIGTERM or SIGINT when called in the main thread."""
    stop = stop or threading.Event()
    most_connections = _allow_files(most_connections)
    server = create_server(
        app,
        sockets=[listener],
        threads=settings.web_threads,
        connection_limit=most_connections,
        asyncore_use_poll=True,
        max_request_body_size=settings.max_body_mb * BYTES_PER_MB + BODY_SLACK_BYTES,
        outbuf_overflow=ANSWER_BYTES,
        clear_untrusted_proxy_headers=True,
        ident=None,
    )
    # waitress has no setting for the body of its own refusals.
    server.channel_class = Channel
    _wait_for_handles(server)
    _stop_on_signals(server, stop)
    log.info("start_server address=%s:%d threads=%d", *listener.getsockname()[:2], settings.web_threads)
    while not stop.is_set():
        _make_room(server, most_connections)
        _step(server)
    _drain(server)
    log.info("stop_server")


def _stop_on_signals(server: BaseWSGIServer, stop: threading.Event) -> None:
    if threading.current_thread() is not threading.main_thread():
        return

    def ask_to_stop(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            return  # asked twice: what wakes the loop may be closed already
        stop.set()
        server.pull_trigger()  # wake the loop

    signal.signal(signal.SIGTERM, ask_to_stop)
    signal.signal(signal.SIGINT, ask_to_stop)


def _step(server: BaseWSGIServer) -> None:
    server.asyncore.loop(timeout=LOOP_STEP_S, map=server._map, use_poll=True, count=1)


def _allow_files(most_connections: int) -> int:
    """Raise the limit of open files where that is possible, and give what is left of it for connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = most_connections + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return max(min(most_connections, soft - OTHER_FILES), soft // 2)
    return most_connections


def _make_room(server: BaseWSGIServer, most_connections: int) -> None:
    """Close the longest idle connections before there are so many that nobody else gets in.

    A client whose kept connection is gone opens another one; a request that was answered or runs is not
    touched. Those that ask for nothing go first, then those that have not finished asking.
    """
    n_open = len(server.active_channels)
    if n_open >= NEARLY_FULL * most_connections:
        n_closed = _close_idle(server, n_open - int(ROOMY * most_connections))
        log.warning("close_idle_connections closed=%d open=%d", n_closed, n_open)


def _close_idle(server: BaseWSGIServer, most: int) -> int:
    idle = sorted(
        (channel for channel in list(server.active_channels.values()) if not _is_busy(channel)),
        key=lambda channel: (channel.request is not None, channel.last_activity),
    )
    for channel in idle[:most]:
        channel.will_close = True
    return len(idle[:most])


def _wait_for_handles(server: BaseWSGIServer) -> None:
    """Where the system has no more handles, neither spin nor fill the log: let idle clients go, and wait."""
    accept, told = server.accept, -math.inf

    def accept_or_wait() -> Any:
        nonlocal told
        try:
            return accept()
        except OSError as error:
            if error.errno not in NO_HANDLES:
                raise
            n_closed = _close_idle(server, max(1, len(server.active_channels) // 2))
            if time.monotonic() - told >= NO_HANDLES_TELL_S:
                told = time.monotonic()
                remedy = REMEDIES.get(error.errno, REMEDIES[errno.ENOMEM])
                cause = f"no new connection can be taken ({error.strerror}): {remedy}"
                log.warning("wait_for_handles closed=%d cause=%r", n_closed, cause)
            time.sleep(NO_HANDLES_PAUSE_S)
            return None

    server.accept = accept_or_wait


def _drain(server: BaseWSGIServer) -> None:
    """Take no new connections, and let begun requests end."""
    server.del_channel()
    server.socket.close()
    deadline = time.monotonic() + GRACE_S
    while time.monotonic() < deadline and any(_is_busy(c) for c in list(server.active_channels.values())):
        _step(server)
    server.task_dispatcher.shutdown(timeout=THREADS_END_S)
    server.asyncore.close_all(server._map)


def _is_busy(channel: Any) -> bool:
    return bool(channel.requests) or channel.total_outbufs_len > 0
