"""What the documents must not forget."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from ml_backend.command.cli import commands
from ml_backend.config import Settings

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
ARCHITECTURE = ROOT / "ARCHITECTURE.md"
SETTINGS = ROOT / "docs" / "settings.md"

PACKAGES = sorted(
    path.parent.relative_to(ROOT).as_posix()
    for top in ("brushloop", "core", "export", "ingest", "ml_backend", "simulation", "bench")
    for path in (ROOT / top).rglob("__init__.py")
    if "migrations" not in path.parts  # Alembic's scripts are named as a folder
)

TABLE_ROW = re.compile(r"^\| `([A-Z][A-Z0-9_]+)` \| ?(.*?) ?\| (.+) \|$", re.MULTILINE)

DOCUMENTED = {name: (default, text) for name, default, text in TABLE_ROW.findall(SETTINGS.read_text())}

SAID_IN_WORDS = {
    "DATABASE_URL": "SQLite in `DATA_DIR`",
    "REDIS_URL": "a queue in `DATA_DIR`",
    "TRAINING_THREADS": "all cores",
    "PREDICT_THREADS": "all cores",
}
"""What a setting without a value of its own stands for."""


def _written(default: object) -> str:
    """A default as the table shows it: empty when there is none."""
    if default is None or default in ("", ()):
        return ""
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def test_the_tables_of_settings_have_every_setting_and_nothing_else() -> None:
    listed = [name for name, _, _ in TABLE_ROW.findall(SETTINGS.read_text())]
    assert sorted(listed) == sorted(name.upper() for name in Settings.model_fields)


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_is_documented_with_its_default(name: str) -> None:
    default, text = DOCUMENTED[name.upper()]
    assert default == SAID_IN_WORDS.get(name.upper(), _written(Settings.model_fields[name].default))
    assert text.endswith(".")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_is_in_the_map_of_the_architecture(package: str) -> None:
    assert f"`{package}/`" in ARCHITECTURE.read_text()


def test_every_file_that_the_architecture_names_exists() -> None:
    named = set(re.findall(r"`([\w./]+/[\w./]*)`", ARCHITECTURE.read_text()))
    assert named
    assert not {path for path in named if not path.startswith("/") and not (ROOT / path).exists()}


def test_the_architecture_can_be_read_at_one_sitting() -> None:
    assert len(ARCHITECTURE.read_text()) < 8000


PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / ".github").rglob("*.md")],
    key=lambda path: path.relative_to(ROOT).as_posix(),
)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_what_a_page_links_to_exists(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    near = [target for target in targets if not re.match(r"[a-z]+:", target)]
    assert not [target for target in near if not (page.parent / target).exists()]


def test_every_make_target_that_the_documents_use_exists() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    pages = [*PAGES, *(ROOT / ".github").rglob("*.yml")]
    texts = [re.sub(r"#.*", "", path.read_text()) for path in pages]
    used = {
        target
        for text in texts
        for target in re.findall(r"(?:^\s*(?:run: |- run: )?|`)make ([a-z][a-z0-9-]*)", text, re.MULTILINE)
    }
    assert used
    assert used <= targets


def test_everything_that_ci_runs_comes_with_a_label_studio_of_its_own() -> None:
    of_make = {"LABEL_STUDIO_VENV", "MAKEFLAGS", "MAKELEVEL", "MFLAGS"}
    environment = {name: value for name, value in os.environ.items() if name not in of_make}
    arguments = ["make", "--dry-run", "--always-make", "test"]
    told = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert "environment.py --shared label-studio .venv-label-studio" in told.stdout


GUIDES = "\n".join(
    path.read_text()
    for path in [
        README,
        ROOT / "docs" / "first-ten-minutes.md",
        *sorted((ROOT / "docs" / "how-to").glob("*.md")),
    ]
)


def test_every_command_that_the_guides_use_exists() -> None:
    used = set(re.findall(r"\bbrushloop ([a-z]+)\b", GUIDES)) - {"import"}
    assert used <= set(commands.commands)


@pytest.mark.parametrize("line", re.findall(r"^brushloop .+$", GUIDES, re.MULTILINE))
def test_every_option_that_the_guides_use_exists(line: str) -> None:
    _, name, *words = line.split("#")[0].split()
    known = {
        option
        for parameter in commands.commands[name].params
        for option in [*parameter.opts, *parameter.secondary_opts]
    }
    assert {word for word in words if word.startswith("--")} <= known


@pytest.mark.parametrize("name", sorted(commands.commands))
def test_every_command_explains_itself(name: str) -> None:
    answer = CliRunner().invoke(commands, [name, "--help"])
    assert answer.exit_code == 0
    explanation = answer.output.split("\n\n")[1].strip()
    assert explanation.endswith(".")


def test_the_version_is_said_alike_everywhere() -> None:
    project = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    released = re.search(r"^## \[(\d.+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    cited = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    described = re.search(r"^  version: (.+)$", (ROOT / "docs" / "openapi.yaml").read_text(), re.MULTILINE)
    assert project
    assert {match and match[1] for match in (released, cited, described)} == {project[1]}


def test_workflows_try_every_python_that_is_promised() -> None:
    promised = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text())
    tried = re.search(r"python: \[(.+)\]", (ROOT / ".github" / "workflows" / "ci.yml").read_text())
    assert tried
    assert re.findall(r"3\.\d+", tried[1]) == promised
