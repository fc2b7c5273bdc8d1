"""One real Label Studio and one real browser for all end-to-end tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from label_studio_browser import open_browser
from playwright.sync_api import Browser
from running_services import RealLabelStudio, launch_label_studio

LABEL_STUDIO_S = 300
"""All tests with the real Label Studio, on a quiet core."""

ARTIFACTS = Path(__file__).parents[2] / "test-artifacts"


def pytest_itemcollected(item: pytest.Item) -> None:
    if Path(__file__).parent not in item.path.parents:
        return
    item.add_marker("e2e")
    item.add_marker(pytest.mark.timeout(1800))
    if "label_studio" in getattr(item, "fixturenames", ()):
        # They share the server, and so a process (tests/support/side_by_side.py): together they take longest.
        item.add_marker(pytest.mark.slow(about_s=LABEL_STUDIO_S))


@pytest.fixture(scope="session")
def label_studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealLabelStudio]:
    server = launch_label_studio(tmp_path_factory.mktemp("label-studio"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.fixture
def artifacts() -> Path:
    """The folder where tests leave pictures of what they saw."""
    ARTIFACTS.mkdir(exist_ok=True)
    return ARTIFACTS
