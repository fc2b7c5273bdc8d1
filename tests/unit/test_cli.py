"""The command line over a server that is a function: what it asks, shows and says when something is wrong."""

from __future__ import annotations

import base64
import json
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from rich.console import Console

from core.errors import BrushloopError
from ml_backend.command import cli
from ml_backend.command.cli import commands
from ml_backend.command.demo_project import write_demo_images
from ml_backend.command.folder_of_images import sort_images
from ml_backend.command.local_label_studio import find_label_studio, load_login, make_environment
from ml_backend.command.local_stack import _only_one
from ml_backend.command.service_client import ServiceClient
from ml_backend.command.setup_project import read_default_config, webhook_headers
from ml_backend.config import Settings
from ml_backend.errors import NotFoundError, ServiceError, UnauthorizedError
from ml_backend.status.status_view import render_projects, render_status

URL = "http://brushloop.test"


@pytest.fixture(autouse=True)
def environment_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands set it for their children; whoever calls pytest without `make` has not set it yet."""
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")


STATUS: dict[str, Any] = {
    "project": 3,
    "state": "training",
    "model_version": "r0007-0a1b2c3d",
    "draft": True,
    "round": 7,
    "readiness": {
        "ready": False,
        "classes": [
            {
                "name": "Mitosis [b]",
                "role": "object",
                "pixels": 1180,
                "objects": 4,
                "needed_pixels": 5000,
                "advised_objects": 50,
            }
        ],
        "lint": [{"task": n, "code": "scribble", "message": f"remark {n}"} for n in range(12)],
    },
    "training": {"round": 8, "progress": 0.42, "eta_s": 11.6, "started_at": "2026-11-22T10:00:00Z"},
    "annotations": {"received": 31, "trained": 28, "pending": 3},
    "pool": {"tasks": 240, "scored": 64, "stale": 12},
    "advice": "Paint about 3,820 more pixels of Mitosis.",
    "last_round": {
        "promoted": False,
        "reason": "worse on the held-out part",
        "held_out": {"Nucleus": {"dice": 0.81, "iou": 0.7}, "Mitosis [b]": {"dice": None, "iou": None}},
        "effort": {
            "annotations": 4,
            "strokes": 7,
            "clicks": 5,
            "painted_px": 3400,
            "questions_answered": 2,
            "lead_time_s": 54.2,
            "corrective_dice": {"mean": 0.91},
        },
    },
    "last_error": None,
}


def ask(answer: Callable[[httpx.Request], httpx.Response], **settings: Any) -> ServiceClient:
    return ServiceClient(URL, Settings(**settings), httpx.MockTransport(answer))


def show(rendered: Any) -> str:
    console = Console(width=120)
    with console.capture() as capture:
        console.print(rendered)
    return capture.get()


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["brushloop", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_the_status_shows_what_is_there_and_what_is_missing() -> None:
    shown = show(render_status(STATUS))
    for part in (
        "training",
        "r0007-0a1b2c3d (draft)",
        "Mitosis [b]",
        "1,180",
        "5,000",
        "42%",
        "about 12 s left",
    ):
        assert part in shown
    assert "31 annotations, 28 learnt, 3 waiting" in shown
    assert "Nucleus 0.81" in shown
    assert "kept the model: worse on the held-out part" in shown
    assert "its 4 annotations took 7 strokes, 5 clicks, 3,400 painted pixels, 2 questions" in shown
    assert "corrective Dice 0.91" in shown
    assert "remark 0" in shown
    assert "remark 11" not in shown
    assert "and 4 more remarks" in shown


def test_the_status_of_a_project_without_a_model_is_short() -> None:
    bare = {**STATUS, "state": "waiting", "model_version": None, "draft": False, "training": None}
    shown = show(render_status({**bare, "last_round": None, "advice": "", "last_error": "the disk is full"}))
    assert "no model yet" in shown
    assert "last error: the disk is full" in shown
    assert "%" not in shown


def test_projects_are_listed_with_their_state() -> None:
    shown = show(
        render_projects([{"project": 3, "title": "Nuclei [x]", "state": "idle", "model_version": None}])
    )
    assert "Nuclei [x]" in shown
    assert "none yet" in shown


def test_calls_carry_the_configured_credentials() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(202, json={})

    client = ask(answer, basic_auth_user="ann", basic_auth_pass="secret")
    client.train(3)
    client.rollback(3, "r0001-deadbeef")
    assert [str(request.url.path) for request in seen] == [
        "/api/projects/3/train",
        "/api/projects/3/rollback",
    ]
    assert json.loads(seen[1].content) == {"model_version": "r0001-deadbeef"}
    assert {request.headers["Authorization"] for request in seen} == {
        "Basic " + base64.b64encode(b"ann:secret").decode()
    }


def test_without_a_number_the_only_project_is_meant() -> None:
    assert ask(lambda _: httpx.Response(200, json=[{"project": 5}])).choose_project(None) == 5
    assert ask(lambda _: httpx.Response(500)).choose_project(7) == 7


def test_without_a_number_several_projects_are_a_question() -> None:
    client = ask(lambda _: httpx.Response(200, json=[{"project": 5}, {"project": 2}]))
    with pytest.raises(ServiceError, match="name one of them: 2, 5"):
        client.choose_project(None)


def test_without_any_project_the_next_step_is_named() -> None:
    with pytest.raises(NotFoundError, match="brushloop setup"):
        ask(lambda _: httpx.Response(200, json=[])).choose_project(None)


@pytest.mark.parametrize(
    ("response", "error", "words"),
    [
        (httpx.Response(401, json={"error": "no"}), UnauthorizedError, "BASIC_AUTH_USER"),
        (httpx.Response(404, json={"error": "no project 3", "id": "x"}), ServiceError, "no project 3"),
        (httpx.Response(200, text="<html>"), ServiceError, "is it Brushloop"),
        (httpx.Response(502, text="<html>"), ServiceError, "is it Brushloop"),
        (httpx.Response(502, json=[]), ServiceError, "answered 502"),
    ],
)
def test_a_refusal_says_what_is_wrong(response: httpx.Response, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        ask(lambda _: response).status(3)


def test_a_server_that_is_not_there_is_told_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "status", "--url", "http://127.0.0.1:9") == 1
    told = capsys.readouterr().err
    assert "no Brushloop server answers at http://127.0.0.1:9" in told
    assert "Traceback" not in told


def test_a_setting_that_cannot_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MIN_PIXELS_PER_CLASS", "many")
    assert run(monkeypatch, "train") == 1
    assert "MIN_PIXELS_PER_CLASS" in capsys.readouterr().err


def test_setup_without_a_token_says_where_to_get_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("LABEL_STUDIO_API_KEY", raising=False)
    assert run(monkeypatch, "setup") == 1
    assert "/user/account" in capsys.readouterr().err


def test_a_port_in_use_is_told_before_anything_is_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert run(monkeypatch, "serve", "--port", port, "--data-dir", str(tmp_path)) == 1
    assert "choose another with --port" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ("backup", ""),
        ("serve", "--data-dir", ""),
        ("export", "1", "--out", " "),
        ("predict", ".", "--out", ""),
    ],
)
def test_an_empty_name_of_a_folder_is_not_the_current_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    assert run(monkeypatch, *words) == 2
    assert "name a folder; the current one is" in capsys.readouterr().err


def test_a_login_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "kept" / "login.json"
    login = load_login(path)
    assert load_login(path) == login
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(bytes.fromhex(login.legacy_key)) == 20


def test_a_damaged_login_says_which_file_it_is(tmp_path: Path) -> None:
    path = tmp_path / "login.json"
    path.write_text("{")
    with pytest.raises(ServiceError, match=r"login\.json"):
        load_login(path)


def test_label_studio_gets_none_of_the_backends_secrets(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("DATABASE_URL", "REDIS_URL", "BASIC_AUTH_PASS", "LABEL_STUDIO_API_KEY"):
        monkeypatch.setenv(name, "secret")
    environment = make_environment(tmp_path, 8080, load_login(tmp_path / "login.json"))
    assert "secret" not in environment.values()
    assert environment["ML_BLOCK_LOCAL_IP"] == environment["SSRF_PROTECTION_ENABLED"] == "false"


def test_a_missing_label_studio_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServiceError, match="make up"):
        find_label_studio(tmp_path / "venv")


def test_two_stacks_on_one_folder_are_refused(tmp_path: Path) -> None:
    with _only_one(tmp_path), pytest.raises(ServiceError, match="runs already"), _only_one(tmp_path):
        pass


def test_the_webhook_carries_the_credentials_of_the_backend() -> None:
    assert webhook_headers(Settings(basic_auth_user=None, basic_auth_pass=None)) == {}
    headers = webhook_headers(Settings(basic_auth_user="ann", basic_auth_pass="a:b"))
    assert headers == {"Authorization": "Basic " + base64.b64encode(b"ann:a:b").decode()}


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(BrushloopError, match="no images in"):
        sort_images(tmp_path, Settings())


def test_the_demo_images_are_the_same_every_time(tmp_path: Path) -> None:
    one = write_demo_images(tmp_path / "one", 2)
    other = write_demo_images(tmp_path / "other", 2)
    names = [path.name for path in sort_images(one, Settings()).usable]
    assert names == ["tissue-01.png", "tissue-02.png"]
    assert [(one / name).read_bytes() for name in names] == [(other / name).read_bytes() for name in names]


def test_the_default_labeling_setup_is_the_one_at_the_top_of_the_project() -> None:
    assert read_default_config() == (Path(__file__).parents[2] / "label_config.xml").read_text()


def test_what_is_no_project_number_is_answered_with_what_is() -> None:
    answer = CliRunner().invoke(commands, ["status", "abc"])
    assert answer.exit_code == 2
    assert "'abc' is no project; give its number" in answer.output


def test_a_command_that_ends_with_a_code_ends_the_program_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    @cli.click.command()
    def ends() -> None:
        raise cli.click.exceptions.Exit(1)

    monkeypatch.setattr(cli, "commands", ends)
    monkeypatch.setattr(sys, "argv", ["brushloop"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
