"""What shares something costly is not made in two processes; everything else is dealt out test by test."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from leftovers import SESSION
from side_by_side import LABEL_STUDIO, piece_of

ROOT = Path(__file__).parents[2]
ONCE = """
import pytest

@pytest.fixture(scope="module")
def costly(): pass

@pytest.mark.parametrize("i", range(8))
def test_it(costly, i): pass
"""
ALONE = """
import time
from pathlib import Path
import pytest

@pytest.mark.parametrize("i", range(8))
def test_it(i, worker_id):
    seen = Path(__file__).parent / "processes"
    seen.mkdir(exist_ok=True)
    (seen / worker_id).touch()
    until = time.monotonic() + 60
    while len(list(seen.iterdir())) < 2:  # or the first process might be done before the other one begins
        assert time.monotonic() < until, "no other process got a test of this file"
        time.sleep(0.01)
"""


def test_the_label_studio_is_shared_and_a_fixture_of_a_module_too() -> None:
    def piece(nodeid: str) -> str:
        return piece_of(nodeid, str(ROOT))

    assert piece("tests/e2e/test_loop.py::test_a") == piece("tests/e2e/test_validation.py::test_b[1]")
    assert piece("tests/e2e/test_up.py::test_a") != LABEL_STUDIO
    openapi = "tests/unit/test_openapi.py"
    assert piece(f"{openapi}::test_a") == piece(f"{openapi}::test_b[x::y]") == openapi
    assert piece("tests/unit/test_distances.py::test_a") == "tests/unit/test_distances.py::test_a"
    assert piece("core/schema.py::core.schema") == "core/schema.py::core.schema"


@pytest.mark.parametrize(
    ("source", "files", "n_processes"),
    [(ONCE, ("test_one.py", "test_other.py"), 1), (ALONE, ("test_one.py",), 2)],
    ids=["once", "alone"],
)
def test_a_session_of_two_processes_keeps_to_it(
    tmp_path: Path, source: str, files: tuple[str, ...], n_processes: int
) -> None:
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    (tmp_path / "pytest.ini").write_text(f"[pytest]\npythonpath = {ROOT / 'tests' / 'support'}\n")
    for name in files:
        (tmp_path / name).write_text(source)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "-n", "2", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name not in (SESSION, "PYTEST_ADDOPTS")},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    ran = [line for line in done.stdout.splitlines() if line.startswith("[gw")]
    assert len(ran) == 8 * len(files), done.stdout
    assert len({line.split()[0] for line in ran if "test_one.py" in line}) == n_processes, done.stdout
