"""A Label Studio of one's own on this machine: its environment, its login, its start."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import httpx

from ml_backend.command.child_process import ChildProcess
from ml_backend.config import child_environment
from ml_backend.errors import LabelStudioRefusedError, ServiceError
from ml_backend.label_studio.connection import Connection

HOST = "127.0.0.1"

START_TIMEOUT_S = 300.0
"""An empty data folder takes 30 to 60 s on two idle cores."""

POLL_S = 0.5

KEY_BYTES = 20
"""Label Studio takes a legacy key of 40 hexadecimal digits."""

_CONFLICT = 409

OURS_ALONE = ("DATABASE_URL", "REDIS_URL", "BASIC_AUTH_USER", "BASIC_AUTH_PASS", "LABEL_STUDIO_API_KEY")
"""Settings of the backend that Label Studio has no business with."""


@dataclass(frozen=True)
class Login:
    """The first user of a local Label Studio.

    `legacy_key` works from the first second; `access_token` is a personal access token, which
    Label Studio shows once only.
    """

    email: str
    password: str
    legacy_key: str
    access_token: str | None = None


def load_login(path: Path) -> Login:
    """Read the login of an earlier start, or make one up and keep it for the owner's eyes only."""
    if path.exists():
        try:
            return Login(**json.loads(path.read_text()))
        except (ValueError, TypeError):
            raise ServiceError(f"{path} is damaged; remove {path.parent} to start anew") from None
    login = Login("demo@brushloop.local", secrets.token_urlsafe(9), secrets.token_hex(KEY_BYTES))
    save_login(login, path)
    return login


def save_login(login: Login, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_suffix(".new")
    descriptor = os.open(written, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(asdict(login), file, indent=1)
    written.replace(path)


def find_label_studio(venv: Path) -> Path:
    """The command that starts Label Studio: from its own environment, else from the PATH."""
    command = venv / "bin" / "label-studio"
    if command.exists():
        return command.absolute()
    on_path = shutil.which("label-studio")
    if on_path:
        return Path(on_path)
    raise ServiceError(
        f"Label Studio is not installed: no {command}. Run `make up`, which installs it there, or name the "
        "environment that has it with LABEL_STUDIO_VENV"
    )


def make_environment(folder: Path, port: int, login: Login) -> dict[str, str]:
    """The environment of a Label Studio that may talk to a backend on this machine, and to nobody else.

    Since 1.23 Label Studio refuses private and loopback addresses, by two separate switches: one for
    the backend (ML_BLOCK_LOCAL_IP), one for webhooks (SSRF_PROTECTION_ENABLED).
    """
    return child_environment(
        {
            "LABEL_STUDIO_BASE_DATA_DIR": str(folder.absolute()),
            "LABEL_STUDIO_HOST": f"http://{HOST}:{port}",
            "LABEL_STUDIO_USERNAME": login.email,
            "LABEL_STUDIO_PASSWORD": login.password,
            "LABEL_STUDIO_USER_TOKEN": login.legacy_key,
            "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
            "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
            "ML_BLOCK_LOCAL_IP": "false",
            "SSRF_PROTECTION_ENABLED": "false",
            "COLLECT_ANALYTICS": "false",
            "LATEST_VERSION_CHECK": "false",
            "SENTRY_DSN": "",
            "FRONTEND_SENTRY_DSN": "",
        },
        without=OURS_ALONE,
    )


def start_label_studio(
    command: Path,
    folder: Path,
    port: int,
    login: Login,
    log_path: Path,
    extra_environment: Mapping[str, str] | None = None,
) -> ChildProcess:
    """Start the server; a used port must be ruled out before, for it would silently take another one."""
    folder.mkdir(parents=True, exist_ok=True)
    return ChildProcess(
        "Label Studio",
        [command, "start", "--no-browser", "--internal-host", HOST, "--port", str(port)],
        {**make_environment(folder, port, login), **(extra_environment or {})},
        log_path,
    )


def wait_until_healthy(
    child: ChildProcess,
    url: str,
    timeout_s: float = START_TIMEOUT_S,
    should_stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Wait for `/health`; false when asked to stop, an error when the process ends or takes too long."""
    deadline = time.monotonic() + timeout_s
    while not should_stop():
        if not child.is_running:
            raise ServiceError(
                f"{child.name} ended while starting. The end of its log:\n{child.last_lines()}"
            )
        if time.monotonic() > deadline:
            raise ServiceError(f"{child.name} did not answer at {url} within {timeout_s:.0f} s")
        if _is_healthy(url):
            return True
        time.sleep(POLL_S)
    return False


def with_access_token(login: Login, url: str) -> Login:
    """The login with a personal access token that works, where Label Studio gives one.

    Label Studio allows one live token per user. Where that exists and was not kept here, the legacy
    key serves as well.
    """
    if login.access_token and _works(url, login.access_token):
        return login
    if not _works(url, login.legacy_key):
        raise ServiceError(
            f"Label Studio at {url} does not accept the login that was kept from its first start. If "
            "its data folder came from elsewhere, remove the one or the other"
        )
    try:
        with closing(Connection(url, login.legacy_key)) as connection:
            answer = connection.request("POST", "/api/token/")
    except LabelStudioRefusedError as refusal:
        if refusal.status != _CONFLICT:
            raise
        return replace(login, access_token=None)
    return replace(login, access_token=str(answer["token"]))


def _is_healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5.0).is_success
    except httpx.HTTPError:
        return False


def _works(url: str, api_key: str) -> bool:
    try:
        with closing(Connection(url, api_key)) as connection:
            connection.request("GET", "/api/current-user/whoami")
    except LabelStudioRefusedError:
        return False
    return True
