"""Set-up: by uv where it works, by pip otherwise, and shared only where that is safe."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / ".ci" / "environment.py"
LOCK = "attrs==26.1.0\n"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("environment", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


environment: Any = load()


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "constraints.txt"
    path.write_text(LOCK)
    return path


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, Path]]:
    """What was installed by whom, in a cache of its own; nothing is really installed."""
    calls: list[tuple[str, Path]] = []

    def by(name: str, target: Path) -> bool:
        (target / "bin").mkdir(parents=True, exist_ok=True)
        (target / "bin" / "python").touch()
        calls.append((name, target))
        return True

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(environment, "find_uv", lambda: ["uv"])
    monkeypatch.setattr(environment, "install_with_uv", lambda uv, target, pinned: by("uv", target))
    monkeypatch.setattr(environment, "install_with_pip", lambda target, pinned: by("pip", target))
    return calls


def test_a_second_clone_finds_what_the_first_one_installed(
    installed: list[Any], lock: Path, tmp_path: Path
) -> None:
    folders = [tmp_path / name / ".venv-label-studio" for name in ("one", "two")]
    for folder in folders:
        folder.parent.mkdir()
        assert environment.main(["--shared", "label-studio", str(folder), str(lock), "label-studio"]) == 0
    assert len(installed) == 1
    assert folders[0].resolve() == folders[1].resolve() == installed[0][1]
    assert (folders[1] / ".installed").exists()


def test_another_lock_is_another_environment_and_the_link_follows(
    installed: list[Any], lock: Path, tmp_path: Path
) -> None:
    folder = tmp_path / ".venv-label-studio"
    command = ["--shared", "label-studio", str(folder), str(lock), "label-studio"]
    environment.main(command)
    first = folder.resolve()
    lock.write_text("attrs==26.2.0\n")
    environment.main(command)
    assert len(installed) == 2
    assert folder.resolve() != first
    assert first.exists(), "another clone may use it"


def test_what_was_interrupted_is_installed_again(installed: list[Any], lock: Path, tmp_path: Path) -> None:
    command = ["--shared", "label-studio", str(tmp_path / "venv"), str(lock), "label-studio"]
    environment.main(command)
    (tmp_path / "venv" / ".installed").unlink()
    environment.main(command)
    assert len(installed) == 2


def test_the_environment_of_a_checkout_is_its_own(installed: list[Any], lock: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        environment.main([str(tmp_path / name), str(lock), "--", "-e", "."])
    assert installed == [("uv", tmp_path / "one"), ("uv", tmp_path / "two")]


def test_sharing_can_be_refused(
    installed: list[Any], lock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHARE_ENVIRONMENTS", "0")
    environment.main(["--shared", "label-studio", str(tmp_path / "venv"), str(lock), "label-studio"])
    assert installed == [("uv", tmp_path / "venv")]
    assert not (tmp_path / "venv").is_symlink()


@pytest.mark.parametrize("uv", [None, ["uv"]], ids=["no uv", "uv fails"])
def test_pip_installs_where_uv_cannot_and_says_so(
    installed: list[Any],
    lock: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    uv: list[str] | None,
) -> None:
    monkeypatch.setattr(environment, "find_uv", lambda: uv)
    monkeypatch.setattr(environment, "install_with_uv", lambda uv, target, pinned: False)
    environment.main([str(tmp_path / "venv"), str(lock), "attrs"])
    assert installed == [("pip", tmp_path / "venv")]
    assert "pip does, which takes minutes" in capsys.readouterr().out


def test_uv_is_told_where_pip_finds_packages() -> None:
    told = environment.uv_environment({"PIP_FIND_LINKS": "/wheels", "HOME": "/home/me"})
    assert told == {"PIP_FIND_LINKS": "/wheels", "UV_FIND_LINKS": "/wheels", "HOME": "/home/me"}
    kept = environment.uv_environment({"PIP_FIND_LINKS": "/wheels", "UV_FIND_LINKS": "/mine"})
    assert kept["UV_FIND_LINKS"] == "/mine"


def test_a_uv_that_fails_is_noticed(tmp_path: Path) -> None:
    failing = [sys.executable, "-c", "raise SystemExit(3)"]
    assert not environment.install_with_uv(failing, tmp_path / "venv", ["attrs"])
    assert not environment.runs(["/no/such/command"])
