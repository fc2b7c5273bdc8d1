"""What holds for all tests: a random order, the long ones first, and nothing left behind."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from leftovers import MOST_MEMORY, SESSION, changed_variables, find_peak_memory, wait_for_processes

N_SLOWEST = 10

CACHES = ("torchinductor_", "matplotlib-", "pymp-")
"""Folders that libraries keep for the next process, and what a process that a test kills cannot remove."""

# Processes are started by the hundred: each module is compiled once, whatever the shell says.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Idle threads sleep, whether make started the tests or a person did.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# A busy machine is not a wrong program.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

variables_before = pytest.StashKey[dict[str, str]]()
peak_before = pytest.StashKey[int]()
temporary_folder = pytest.StashKey[Path]()
leftovers = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--thorough", action="store_true", help="also the tests that take minutes (make thorough)"
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One more than cores, as far as memory carries them: tests of servers wait much of their time."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(len(os.sched_getaffinity(0)) + 1, memory // MOST_MEMORY))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Nothing costly is made in two processes."""
    from side_by_side import Together

    return Together(config, log)


def pytest_configure(config: pytest.Config) -> None:
    config.stash[leftovers] = []
    if not config.option.durations:
        config.option.durations = N_SLOWEST
    if not is_worker(config):
        _open_session(config)
    config.stash[variables_before] = dict(os.environ)
    config.stash[peak_before] = 0


def _open_session(config: pytest.Config) -> None:
    """Name the session, and give it a folder of its own for temporary files, also of its workers."""
    # pytest's own folders stay where people look for them, also the three of earlier sessions.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    os.environ[SESSION] = uuid.uuid4().hex
    folder = Path(tempfile.mkdtemp(prefix="brushloop-tests-"))
    folder.chmod(0o755)  # PostgreSQL runs as another user
    config.stash[temporary_folder] = folder
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)


def is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


@pytest.hookimpl(trylast=True)  # after the shuffling
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.option.thorough:
        left_out = [item for item in items if item.get_closest_marker("thorough")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("thorough")]
    items.sort(key=lambda item: -expected_s(item))


def expected_s(item: pytest.Item) -> float:
    """What the test says about itself; everything that says nothing is short."""
    marker = item.get_closest_marker("slow")
    return float(marker.kwargs["about_s"]) if marker else 0.0


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Name the first test after which a variable is another one, and the first that took too much memory."""
    yield
    peak = find_peak_memory()
    if peak > MOST_MEMORY >= item.config.stash[peak_before]:
        item.config.stash[leftovers].append(f"memory: {peak / 2**30:.1f} GiB at the peak of {item.nodeid}")
    item.config.stash[peak_before] = peak
    before = item.config.stash[variables_before]
    changed = changed_variables(before, os.environ)
    if changed:
        item.config.stash[leftovers].append(f"environment of {item.nodeid}: {', '.join(changed)}")
        item.config.stash[variables_before] = dict(os.environ)


@pytest.hookimpl(wrapper=True, trylast=True)  # after the end of the workers, before the summary
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    yield
    if decoders := sys.modules.get("ml_backend.label_studio.decoders"):
        decoders.shared_decoders().close()
    config = session.config
    found = config.stash[leftovers]
    if is_worker(config):
        config.workeroutput["leftovers"] = found
    elif not config.option.collectonly:
        found += _close_session(config)
    if found and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _close_session(config: pytest.Config) -> list[str]:
    processes = wait_for_processes(os.environ[SESSION])
    folder = config.stash[temporary_folder]
    files = sorted(path.name for path in folder.iterdir() if not path.name.startswith(CACHES))
    shutil.rmtree(folder, ignore_errors=True)
    return [
        *(f"process {pid}: {command[:200]}" for pid, command in processes.items()),
        *(f"temporary file: {name}" for name in files),
    ]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object, error: object) -> None:
    node.config.stash[leftovers] += getattr(node, "workeroutput", {}).get("leftovers", [])  # type: ignore[attr-defined]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    seed = getattr(config.option, "randomly_seed", None)
    if seed is not None:
        terminalreporter.write_line(f"this order again: --randomly-seed={seed}")


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Say what was left behind below everything else: a log that is cut keeps its end."""
    found = config.stash.get(leftovers, [])
    if is_worker(config) or not found:
        return
    writer = config.get_terminal_writer()
    writer.sep("=", "left behind", red=True)
    for line in found:
        writer.line(line, red=True)
    writer.line(f"{len(found)} left behind: that fails the session, whatever its tests did", red=True)
