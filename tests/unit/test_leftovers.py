"""What the tests leave behind fails their session, and is the last thing that it says."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from leftovers import SESSION

TESTS = Path(__file__).parents[1]

LEAVES_A_FOLDER = "import tempfile\ndef test_it():\n    tempfile.mkdtemp(prefix='forgotten-')\n"
LEAVES_A_VARIABLE = "import os\ndef test_it():\n    os.environ['FORGOTTEN'] = 'yes'\n"
USES_A_LOCK = "import multiprocessing\ndef test_it():\n    multiprocessing.get_context('spawn').Lock()\n"
USES_GDAL = """
import pytest

def test_it():
    rasterio = pytest.importorskip("rasterio")
    with rasterio.Env():
        pass
"""
TAKES_MEMORY = "import conftest\ndef test_it():\n    conftest.MOST_MEMORY = 1\n"
FAILS = "\ndef test_wrong():\n    assert 'something' == 'else'\n"


NOT_HANDED_ON = (
    SESSION,
    "PYTEST_ADDOPTS",
    "CURL_CA_BUNDLE",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
)


def run_session(folder: Path, source: str, *options: str) -> subprocess.CompletedProcess[str]:
    """A session of its own, with this project's conftest."""
    shutil.copy(TESTS / "conftest.py", folder)
    (folder / "pytest.ini").write_text(f"[pytest]\npythonpath = {TESTS / 'support'}\n")
    (folder / "test_it.py").write_text(source)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name not in NOT_HANDED_ON},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


FOLDER = (LEAVES_A_FOLDER, "temporary file: forgotten-")
VARIABLE = (LEAVES_A_VARIABLE, "test_it.py::test_it: FORGOTTEN")


@pytest.mark.parametrize(
    ("source", "said", "also", "options"),
    [
        pytest.param(*FOLDER, "", [], id="folder, green, one process"),
        pytest.param(*FOLDER, FAILS, ["-n", "1"], id="folder, red, xdist"),
        pytest.param(*VARIABLE, "", ["-n", "1"], id="variable, green, xdist"),
        pytest.param(*VARIABLE, FAILS, [], id="variable, red, one process"),
        pytest.param(TAKES_MEMORY, "GiB at the peak of test_it.py::test_it", "", [], id="memory, green"),
    ],
)
def test_what_is_left_behind_fails_the_session_and_is_said_last(
    tmp_path: Path, source: str, said: str, also: str, options: list[str]
) -> None:
    session = run_session(tmp_path, source + also, *options)

    assert session.returncode == pytest.ExitCode.TESTS_FAILED
    *_, heading, found, last = session.stdout.splitlines()
    assert "left behind" in heading
    assert said in found
    assert last.startswith("1 left behind")


@pytest.mark.parametrize("options", [[], ["-n", "1"]], ids=["one process", "xdist"])
@pytest.mark.parametrize(
    "source", ["def test_it():\n    pass\n", USES_A_LOCK, USES_GDAL], ids=["nothing", "a lock", "gdal"]
)
def test_a_session_that_leaves_nothing_ends_with_its_counts(
    tmp_path: Path, source: str, options: list[str]
) -> None:
    session = run_session(tmp_path, source, *options)

    assert session.returncode == pytest.ExitCode.OK
    assert "1 passed" in session.stdout.splitlines()[-1]
