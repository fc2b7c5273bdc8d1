"""The image, built and run where a container engine works: small, unprivileged, read-only, healthy."""

from __future__ import annotations

import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from bench.free_ports import free_port

ROOT = Path(__file__).parents[2]
ENGINES = ("docker", "podman")
LARGEST_BYTES = 1_600_000_000
READY_S = 120.0

pytestmark = [
    pytest.mark.integration,
    pytest.mark.thorough,
    pytest.mark.slow(about_s=400),
    pytest.mark.timeout(1800),
]


def find_engine() -> str | None:
    """An engine that really runs: a client without its daemon does not."""
    return next((name for name in ENGINES if shutil.which(name) and works(name)), None)


def works(name: str) -> bool:
    try:
        return subprocess.run([name, "info"], capture_output=True, timeout=30).returncode == 0
    except subprocess.TimeoutExpired:
        return False


@pytest.fixture(scope="module")
def engine() -> str:
    found = find_engine()
    if not found:
        pytest.skip(f"none of {', '.join(ENGINES)} runs here; test_wheel.py installs the same package")
    return found


@pytest.fixture(scope="module")
def image(engine: str) -> Iterator[str]:
    name = f"brushloop-test:{uuid.uuid4().hex[:8]}"
    subprocess.run([engine, "build", "--tag", name, str(ROOT)], check=True)
    yield name
    subprocess.run([engine, "image", "rm", "--force", name], check=True)


def test_the_image_is_small(engine: str, image: str) -> None:
    told = subprocess.run(
        [engine, "image", "inspect", "--format", "{{.Size}}", image],
        check=True,
        capture_output=True,
        text=True,
    )
    assert int(told.stdout) <= LARGEST_BYTES


def test_the_image_serves_as_nobody_special_on_a_read_only_root(engine: str, image: str) -> None:
    port, name = free_port(), f"brushloop-{uuid.uuid4().hex[:8]}"
    command = [engine, "run", "--detach", "--rm", "--name", name, "--read-only", "--tmpfs", "/tmp"]
    command += ["--cap-drop", "ALL", "--publish", f"127.0.0.1:{port}:9090", image]
    subprocess.run(command, check=True, capture_output=True)
    try:
        deadline = time.monotonic() + READY_S
        while not is_healthy(port):
            assert time.monotonic() < deadline, subprocess.run([engine, "logs", name], capture_output=True)
            time.sleep(0.2)
        who = subprocess.run([engine, "exec", name, "id", "-u"], check=True, capture_output=True, text=True)
        assert who.stdout.strip() == "1000"
    finally:
        subprocess.run([engine, "rm", "--force", name], check=True, capture_output=True)


def is_healthy(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", timeout=5).is_success
    except httpx.HTTPError:
        return False
