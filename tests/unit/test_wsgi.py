"""The entry points for WSGI servers, and the one that Label Studio's own ML backends have."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ml_backend import _wsgi, wsgi

ROOT = Path(__file__).parents[2]


def run_python(code: str, cwd: Path) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_entry_points_builds_nothing_and_loads_no_torch():
    loaded = run_python(
        "import sys, ml_backend.wsgi as w, ml_backend._wsgi; print('torch' in sys.modules, w._built)",
        ROOT,
    )
    assert loaded.split("\n")[0] == "False {}"


def test_the_app_is_built_when_it_is_asked_for_and_only_once(monkeypatch):
    built = []
    monkeypatch.setattr(wsgi, "_built", {})
    monkeypatch.setattr(wsgi, "build", lambda: built.append(1) or "the app")
    assert (wsgi.app, wsgi.app, _wsgi.app) == ("the app",) * 3
    assert built == [1]


def test_other_names_are_not_there():
    with pytest.raises(AttributeError, match="application"):
        _ = wsgi.application


def test_started_in_its_own_folder_our_modules_shadow_nobody():
    """`gunicorn --chdir ml_backend _wsgi:app` has that folder on its path."""
    code = "import sys; sys.path.insert(0, ''); import _wsgi, ml_backend.errors; print('' in sys.path)"
    assert run_python(code, ROOT / "ml_backend").strip() == "False"
    code = (
        "import sys; sys.path.insert(0, ''); import _wsgi, importlib.util; "
        "print([n for n in ('jobs', 'worker', 'ports', 'gate') if importlib.util.find_spec(n)])"
    )
    assert run_python(code, ROOT / "ml_backend").strip() == "[]"


def test_the_options_of_label_studio_ml_become_settings():
    options = _wsgi.parse_arguments(
        [
            "-p",
            "9191",
            "--host",
            "127.0.0.1",
            "-d",
            "--model-dir",
            "/data",
            "--basic-auth-user",
            "u",
            "--basic-auth-pass",
            "p",
        ]
    )
    assert (options.port, options.host, options.check) == (9191, "127.0.0.1", False)
    assert _wsgi.to_environment(options) == {
        "LOG_LEVEL": "DEBUG",
        "DATA_DIR": "/data",
        "BASIC_AUTH_USER": "u",
        "BASIC_AUTH_PASS": "p",
    }


def test_options_that_are_not_given_leave_the_environment_alone():
    assert _wsgi.to_environment(_wsgi.parse_arguments([])) == {}


@pytest.mark.parametrize(("given", "passed_on"), [([], []), (["-p", "9191"], ["--port", "9191"])])
def test_a_port_is_passed_on_where_one_is_given_and_else_left_to_the_environment(
    monkeypatch, given, passed_on
):
    monkeypatch.setattr(sys, "argv", ["_wsgi.py", "--host", "127.0.0.1", *given])
    started = []
    monkeypatch.setattr("ml_backend.command.cli.main", lambda: started.append(sys.argv[1:]))
    _wsgi.main()
    assert started == [["serve", "--with-worker", "--host", "127.0.0.1", *passed_on]]


def test_the_options_are_shown_on_request():
    shown = subprocess.run(
        [sys.executable, ROOT / "ml_backend" / "_wsgi.py", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert shown.returncode == 0
    assert "--basic-auth-user" in shown.stdout
