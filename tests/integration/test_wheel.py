"""What people install: the same files in wheel and sdist, and a wheel that serves far from any checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import httpx
import pytest

from bench.free_ports import free_port

ROOT = Path(__file__).parents[2]
READY_S = 180.0
PART_OF_GIT = ("core/", "export/", "ingest/", "ml_backend/", "simulation/", "brushloop/")

pytestmark = [pytest.mark.integration, pytest.mark.slow(about_s=30)]


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Run something as if there were no checkout: neither on the path nor as the working directory."""
    left = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV_"))}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**left, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is committed or about to be: nothing that a build left here before."""
    folder = tmp_path_factory.mktemp("source")
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT).splitlines()
    for name in listed:
        source, target = ROOT / name, folder / name
        if source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    return folder


@pytest.fixture(scope="module")
def built(tracked: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A wheel from the checkout, and the wheel that its sdist gives."""
    folder = tmp_path_factory.mktemp("built")
    backend = (
        "import sys; from setuptools import build_meta as b; print(getattr(b, sys.argv[1])(sys.argv[2]))"
    )

    def build(source: Path, what: str, target: Path) -> Path:
        target.mkdir(exist_ok=True)
        out = run(sys.executable, "-c", backend, f"build_{what}", target, cwd=source)
        return target / out.splitlines()[-1]

    sdist = build(tracked, "sdist", folder / "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    return build(tracked, "wheel", folder / "one"), build(unpacked, "wheel", folder / "two")


@pytest.fixture(scope="module")
def installed(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel alone; what it depends on is lent by the one that runs the tests.

    pip's own resolution of the dependencies is what set-up does with the same pyproject.toml.
    """
    folder = tmp_path_factory.mktemp("elsewhere")
    venv = folder / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", venv, cwd=folder)
    (site,) = venv.glob("lib/python*/site-packages")
    with zipfile.ZipFile(built[0]) as wheel:
        scripts = next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))
        assert "brushloop = ml_backend.command.cli:main" in wheel.read(scripts).decode()
        wheel.extractall(site)
    lent = Path(pytest.__file__).parents[1]
    # Named on a plain line: the .pth files that lie there, which lead to this checkout, are not read.
    (site / "zz_lent.pth").write_text(f"{lent}\n")
    return venv


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("RECORD")}


def test_wheel_and_sdist_are_made_of_the_same_files(built: tuple[Path, Path]) -> None:
    one, two = map(contents, built)
    assert sorted(one) == sorted(two)
    assert one == two


def test_the_wheel_has_every_file_of_the_packages(built: tuple[Path, Path], tracked: Path) -> None:
    held = set(contents(built[0]))
    files = {str(path.relative_to(tracked)) for path in tracked.rglob("*") if path.is_file()}
    assert {name for name in files if name.startswith(PART_OF_GIT)} - held == set()
    assert not {name for name in held if name.startswith(("tests", "bench", "docs"))}


def test_the_installed_wheel_serves(installed: Path, tmp_path: Path) -> None:
    check_it_serves(installed, tmp_path)


@pytest.mark.thorough
@pytest.mark.slow(about_s=60)
def test_the_wheel_brings_what_it_depends_on(built: tuple[Path, Path], tmp_path: Path) -> None:
    """In an empty environment, from a package index."""
    venv = tmp_path / "venv"
    run(
        sys.executable,
        ROOT / ".ci" / "environment.py",
        venv,
        ROOT / "constraints.txt",
        built[0],
        cwd=tmp_path,
    )
    check_it_serves(venv, tmp_path)
    check_its_bill_of_materials(venv, tmp_path / "sbom.json")


def check_its_bill_of_materials(venv: Path, path: Path) -> None:
    """As `make sbom` writes it: everything that is installed, with versions."""
    tool = Path(sys.executable).with_name("cyclonedx-py")
    options = ["--pyproject", ROOT / "pyproject.toml", "--mc-type", "application", "--of", "JSON"]
    run(tool, "environment", *options, "--output-file", path, venv / "bin" / "python", cwd=path.parent)
    bill = json.loads(path.read_text())
    assert (bill["bomFormat"], bill["metadata"]["component"]["name"]) == ("CycloneDX", "brushloop")
    named = {component["name"].lower(): component["version"] for component in bill["components"]}
    assert {"torch", "flask", "sqlalchemy", "numba"} <= set(named)
    assert all(named.values())
    assert "pytest" not in named


def check_it_serves(venv: Path, folder: Path) -> None:
    python = venv / "bin" / "python"
    ask = "import brushloop, core, ml_backend; print(core.__file__, ml_backend.__file__, brushloop.__file__)"
    where = run(python, "-c", ask, cwd=folder)
    assert where.count(str(venv)) == 3
    port, log = free_port(), folder / "log"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment["DATA_DIR"] = str(folder / "data")
    command = [python, "-m", "ml_backend.command.cli", "serve", "--port", str(port)]
    with log.open("w") as output:
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + READY_S
        while not answers(port):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        assert httpx.get(f"http://127.0.0.1:{port}/", timeout=30).status_code == 200
        assert (folder / "data" / "brushloop.sqlite3").exists(), "the migrations are there"
    finally:
        server.terminate()
        server.wait(60)


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", timeout=5).is_success
    except httpx.HTTPError:
        return False
