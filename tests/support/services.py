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

POSTGRES_BIN = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))


given_ports: set[int] = set()


def free_port() -> int:
    """A port that the kernel chose, and that was not given to somebody who has not taken it yet."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port not in given_ports:
            given_ports.add(port)
            return port


def missing_services() -> str | None:
    """Why the servers cannot be started here, or None."""
    if not POSTGRES_BIN:
        return "PostgreSQL is not installed (Debian: apt install postgresql)"
    if not shutil.which("redis-server"):
        return "Redis is not installed (Debian: apt install redis-server)"
    return None


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """A fresh cluster; yields the address of its empty database. Started by root, it runs as `postgres`."""
    folder.mkdir(parents=True)
    user = _demoted(folder)
    bin_folder, data, port = POSTGRES_BIN[-1], folder / "data", free_port()
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    initdb = [bin_folder / "initdb", "-D", data, "-U", "brushloop", "-A", "trust", "-E", "UTF8", "--no-sync"]
    _run(initdb, user)
    _run([bin_folder / "pg_ctl", "-D", data, "-o", options, "-l", folder / "log", "-w", "start"], user)
    try:
        yield f"postgresql://brushloop@127.0.0.1:{port}/postgres"
    finally:
        _run([bin_folder / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop"], user)


@contextmanager
def redis(folder: Path) -> Iterator[str]:
    """A fresh server that keeps nothing; yields its address."""
    folder.mkdir(parents=True)
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _wait_for_port(port)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.terminate()
        server.wait(10)


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
