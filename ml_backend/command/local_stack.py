"""`brushloop up`: Label Studio, the backend, its worker and a demo project on this machine, until Ctrl-C."""

from __future__ import annotations

import fcntl
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from ml_backend.command.child_process import ChildProcess, find_free_port
from ml_backend.command.demo_project import TITLE, write_demo_images
from ml_backend.command.folder_of_images import sort_images
from ml_backend.command.local_label_studio import (
    HOST,
    Login,
    find_label_studio,
    load_login,
    save_login,
    start_label_studio,
    wait_until_healthy,
    with_access_token,
)
from ml_backend.command.setup_project import SETUP_TIMEOUT_S, ProjectPlan, read_default_config, set_up_project
from ml_backend.config import Settings, child_environment
from ml_backend.errors import ServiceError
from ml_backend.label_studio.connection import Connection

LABEL_STUDIO_PORT = 8080
WEB_PORT = 9090
WATCH_S = 0.5
COMMAND = "brushloop"


@dataclass(frozen=True)
class Stack:
    """What is running, and where."""

    label_studio_url: str
    web_url: str
    login: Login
    children: tuple[ChildProcess, ...]


def run_stack(settings: Settings, ports: tuple[int, int], console: Console, stop: threading.Event) -> None:
    """Start everything, say where it is, and wait until `stop` is set or a part ends by itself."""
    folder = settings.data_dir.absolute()
    with _only_one(folder), _children() as children:
        stack = _start(settings, folder, ports, console, children, stop)
        if stack is None:
            return
        project_id = _prepare_demo(settings, folder, stack, console)
        console.print(_summary(stack, project_id, folder))
        # On a line of its own, so that it can be copied whole however narrow the window is.
        follow = f"{find_command()} status {project_id} --watch --url {stack.web_url}"
        console.print(f"watch it with: {follow}", highlight=False, soft_wrap=True)
        while not stop.wait(WATCH_S):
            for child in stack.children:
                if not child.is_running:
                    raise ServiceError(f"{child.name} ended. Its log ends so:\n{child.last_lines()}")
        console.print("stopping")


def _start(
    settings: Settings,
    folder: Path,
    ports: tuple[int, int],
    console: Console,
    children: list[ChildProcess],
    stop: threading.Event,
) -> Stack | None:
    """Start Label Studio, get a token, start the backend; None when asked to stop meanwhile."""
    command = find_label_studio(settings.label_studio_venv)
    login_path = folder / "login.json"
    login = load_login(login_path)
    port = _choose_port("Label Studio", ports[0], console)
    url = f"http://{HOST}:{port}"
    label_studio = start_label_studio(
        command, folder / "label-studio", port, login, folder / "logs" / "label-studio.log"
    )
    children.append(label_studio)
    with _step(console, "starting Label Studio (the first time takes about a minute)"):
        if not wait_until_healthy(label_studio, url, should_stop=stop.is_set):
            return None
    # At once: its first page can be looked at while the rest starts.
    console.print(f"Label Studio: {url} (log in as {login.email}, password {login.password})", soft_wrap=True)
    login = with_access_token(login, url)
    save_login(login, login_path)
    web_port = _choose_port("Brushloop", ports[1], console)
    web_url = f"http://{HOST}:{web_port}"
    backend = _start_backend(folder, url, web_port, login)
    children.append(backend)
    with _step(console, "starting the backend and its worker"):
        if not wait_until_healthy(backend, web_url, should_stop=stop.is_set):
            return None
    return Stack(url, web_url, login, (label_studio, backend))


def _start_backend(folder: Path, label_studio_url: str, port: int, login: Login) -> ChildProcess:
    environment = child_environment(
        {
            "LABEL_STUDIO_URL": label_studio_url,
            "LABEL_STUDIO_API_KEY": login.access_token or login.legacy_key,
            "DATA_DIR": str(folder),
        }
    )
    serve = ["serve", "--host", HOST, "--port", str(port), "--with-worker"]
    return ChildProcess(
        "the backend",
        [sys.executable, "-m", "ml_backend.command.cli", *serve],
        environment,
        folder / "logs" / "brushloop.log",
    )


def _prepare_demo(settings: Settings, folder: Path, stack: Stack, console: Console) -> int:
    with _step(console, "preparing the demo project"):
        plan = ProjectPlan(
            title=TITLE,
            label_config=read_default_config(),
            images=sort_images(write_demo_images(folder / "demo-images"), settings),
            backend_url=stack.web_url,
        )
        token = stack.login.access_token or stack.login.legacy_key
        with closing(Connection(stack.label_studio_url, token, timeout_s=SETUP_TIMEOUT_S)) as connection:
            return set_up_project(connection, plan, settings)


@contextmanager
def _step(console: Console, what: str) -> Iterator[None]:
    """A spinner while it lasts, and one line that stays: what was done, and how long it took."""
    started = time.monotonic()
    with console.status(what):
        yield
    console.print(f"{what}: {time.monotonic() - started:.0f} s", highlight=False)


def find_command() -> str:
    """How a shell finds the command that runs here: by its name, or by its path where that is not known."""
    script = Path(sys.argv[0])
    if script.name != COMMAND:
        return f"{sys.executable} -m ml_backend.command.cli"
    known = shutil.which(COMMAND)
    if known is not None and Path(known).resolve() == script.resolve():
        return COMMAND
    absolute = script.absolute()
    return str(absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute)


def _choose_port(name: str, wanted: int, console: Console) -> int:
    port = find_free_port(HOST, wanted)
    if port != wanted:
        console.print(f"[yellow]port {wanted} is taken, {name} gets {port}[/]")
    return port


def _summary(stack: Stack, project_id: int, folder: Path) -> Panel:
    rows = Table.grid(padding=(0, 2))
    rows.add_row("Label Studio", f"{stack.label_studio_url}/projects/{project_id}/data")
    rows.add_row("  log in as", stack.login.email)
    rows.add_row("  password", stack.login.password)
    rows.add_row("Brushloop", stack.web_url)
    rows.add_row("data and logs", str(folder))
    rows.add_row("", "")
    rows.add_row("now", "open an image, press 2 and paint nuclei,")
    rows.add_row("", "press 1 and paint background, submit;")
    rows.add_row("", "when the status is idle, open the next;")
    rows.add_row("", "a page that is open shows the first draft")
    rows.add_row("", "after one reload")
    rows.add_row("stop", "Ctrl-C; the next start goes on from here")
    return Panel(rows, title="Brushloop is up", title_align="left", expand=False)


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Two stacks on one folder would share a database that only one Label Studio may write."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "up.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ServiceError(
                f"`brushloop up` runs already on {folder}; stop it, or give this one another --data-dir"
            ) from None
        yield


@contextmanager
def _children() -> Iterator[list[ChildProcess]]:
    """Everything that was started ends with the block, the last one first; all are asked at once."""
    children: list[ChildProcess] = []
    try:
        yield children
    finally:
        for child in reversed(children):
            child.ask_to_stop()
        for child in reversed(children):
            child.stop()
