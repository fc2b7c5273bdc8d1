"""Real PostgreSQL and Redis servers for tests, each in a folder of its own and on a free port."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from bench.free_ports import free_port

POSTGRES_BIN = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))


def missing_services() -> str | None:
    """Why the servers cannot be started here, or None."""
    if not POSTGRES_BIN:
        return "PostgreSQL is not installed (Debian: apt install postgresql)"
    if not shutil.which("redis-server"):
        return "Redis is not installed (Debian: apt install redis-server)"
    return None


class Postgres:
    """A fresh cluster, to be started, killed and started again. Started by root, it runs as `postgres`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._user, self._bin, self._data = _demoted(folder), POSTGRES_BIN[-1], folder / "data"
        self._log, self._port = folder / "log", free_port()
        self._options = f"-p {self._port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        initdb = [self._bin / "initdb", "-D", self._data, "-U", "brushloop", "-A", "trust", "-E", "UTF8"]
        _run([*initdb, "--no-sync"], self._user)
        self.url = f"postgresql://brushloop@127.0.0.1:{self._port}/postgres"

    def start(self) -> None:
        self._control("-o", self._options, "-l", self._log, "-w", "start")

    def stop(self) -> None:
        self._control("-m", "immediate", "-w", "stop")

    def kill(self) -> None:
        """End the server at once; its helpers see that and end too, before another one may start."""
        server = psutil.Process(int((self._data / "postmaster.pid").read_text().splitlines()[0]))
        helpers = server.children(recursive=True)
        server.kill()
        psutil.wait_procs([server, *helpers], timeout=60)

    def _control(self, *arguments: object) -> None:
        _run([self._bin / "pg_ctl", "-D", self._data, *arguments], self._user)


class RedisServer:
    """A server that keeps nothing, to be started, killed and started again."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder, self._port = folder, free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"redis://127.0.0.1:{self._port}/0"

    def start(self) -> None:
        command = ["redis-server", "--port", str(self._port), "--bind", "127.0.0.1", "--save", ""]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen([*command, "--dir", str(self._folder)], stdout=log, stderr=log)
        _wait_for_port(self._port)

    def stop(self) -> None:
        if self._process:
            self._process.terminate()
            self._process.wait(10)

    def kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait(10)


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """A cluster of its own; yields the address of its empty database."""
    server = Postgres(folder)
    server.start()
    try:
        yield server.url
    finally:
        server.stop()


@contextmanager
def redis(folder: Path) -> Iterator[str]:
    """A server of its own; yields its address."""
    server = RedisServer(folder)
    server.start()
    try:
        yield server.url
    finally:
        server.stop()


def _demoted(folder: Path) -> str | None:
    """The user to become, when we are root."""
    if os.geteuid() != 0:
        return None
    owner = pwd.getpwnam("postgres")
    os.chown(folder, owner.pw_uid, owner.pw_gid)
    return "postgres"


def _run(command: list[object], user: str | None) -> None:
    subprocess.run(
        [str(part) for part in command],
        check=True,
        user=user,
        cwd="/",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=240,
    )


def _wait_for_port(port: int, timeout_s: float = 120.0) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError(f"nothing listens on port {port}")
