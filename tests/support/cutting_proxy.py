"""A way to Label Studio that sees every call, and does something right after a chosen one was carried out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

PASSED_ON = ("Authorization", "Content-Type")
FORWARD_TIMEOUT_S = 120.0


class CuttingProxy:
    """`after_call(method, path)` runs when the server has done what it was asked, before it is told."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.calls: list[tuple[str, str]] = []
        self.after_call: Callable[[str, str], None] = lambda method, path: None
        self.url = ""


@contextmanager
def cutting_proxy(target: str) -> Iterator[CuttingProxy]:
    proxy = CuttingProxy(target)
    client = httpx.Client(base_url=target, timeout=FORWARD_TIMEOUT_S)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name: self.headers[name] for name in PASSED_ON if self.headers[name]}
            answer = client.request(self.command, self.path, headers=headers, content=body)
            proxy.calls.append((self.command, self.path))
            proxy.after_call(self.command, self.path)
            self.send_response(answer.status_code)
            self.send_header("Content-Type", answer.headers.get("Content-Type", "application/json"))
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_GET = do_POST = do_PATCH = do_DELETE = pass_on  # noqa: N815 - the names that the server looks for

        def log_message(self, *args: object) -> None:
            pass

        def handle(self) -> None:
            with suppress(BrokenPipeError, ConnectionResetError):  # who asked was killed meanwhile
                super().handle()

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        proxy.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield proxy
        server.shutdown()
        thread.join()
    client.close()
