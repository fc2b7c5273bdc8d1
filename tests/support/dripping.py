"""A web server that sends a byte now and then."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class Dripping:
    """A web server that sends `start` at once and then a byte every twentieth of a second."""

    def __init__(self, start: bytes) -> None:
        self._start, self._closed = start, threading.Event()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self.asked = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._closed.set()
        self._server.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._server.accept()
                threading.Thread(target=self._drip, args=(client,), daemon=True).start()

    def _drip(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            client.recv(65536)
            self.asked.set()
            client.sendall(self._start)
            while not self._closed.wait(0.05):
                client.sendall(b"H")
