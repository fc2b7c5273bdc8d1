"""The documentation site builds without a warning: no broken link, no page that the navigation forgot."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytest.importorskip("mkdocs", reason="the extra `docs` is not installed")


def test_the_site_builds_and_lists_every_decision(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    listed = (tmp_path / "decisions" / "index.html").read_text()
    for decision in (ROOT / "docs" / "decisions").glob("0*.md"):
        assert f'href="{decision.stem}/"' in listed
    assert 'id="brushloop.load_model"' in (tmp_path / "python-interface" / "index.html").read_text()
