"""What the documents must not forget."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner

from ml_backend.command.cli import commands
from ml_backend.config import Settings

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
ARCHITECTURE = ROOT / "ARCHITECTURE.md"

GENERATED = "migrations"
"""Alembic's scripts are named as a folder."""

FILE_NAMES = Counter(
    path.name
    for package in ("core", "ml_backend")
    for path in (ROOT / package).rglob("*.py")
    if path.name != "__init__.py" and GENERATED not in path.parts
)

TABLE_ROW = re.compile(r"^\|\s*`([A-Z][A-Z0-9_]+)`", re.MULTILINE)


def test_the_table_of_settings_has_every_setting_and_nothing_else() -> None:
    listed = TABLE_ROW.findall(README.read_text())
    assert sorted(listed) == sorted(name.upper() for name in Settings.model_fields)


@pytest.mark.parametrize("name", sorted(FILE_NAMES))
def test_every_file_is_in_the_map_of_the_architecture(name: str) -> None:
    named = re.findall(rf"(?<![\w.-]){re.escape(name)}\b", ARCHITECTURE.read_text())
    assert len(named) >= FILE_NAMES[name], f"{name} is named {len(named)} times"


def test_every_make_target_that_the_readme_uses_exists() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    used = set(re.findall(r"\bmake ([a-z][a-z0-9-]*)", README.read_text()))
    assert used
    assert used <= targets


def test_every_command_that_the_readme_uses_exists() -> None:
    used = set(re.findall(r"\bbrushloop ([a-z]+)\b", README.read_text()))
    assert used <= set(commands.commands)


@pytest.mark.parametrize("line", re.findall(r"^brushloop .+$", README.read_text(), re.MULTILINE))
def test_every_option_that_the_readme_uses_exists(line: str) -> None:
    _, name, *words = line.split()
    known = {option for parameter in commands.commands[name].params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


@pytest.mark.parametrize("name", sorted(commands.commands))
def test_every_command_explains_itself(name: str) -> None:
    answer = CliRunner().invoke(commands, [name, "--help"])
    assert answer.exit_code == 0
    explanation = answer.output.split("\n\n")[1].strip()
    assert explanation.endswith(".")
