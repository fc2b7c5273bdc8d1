"""All settings, read from the environment in this one place.

Every field is documented in `docs/settings.md`; a test compares the two, defaults too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

WEB_ADDRESS = re.compile(r"https?://([\w.-]+|\[[0-9a-fA-F:.]+\])(:[0-9]{1,5})?(/[^?#\s]*)?")
"""Scheme, host, maybe a port and a path; no user name, query or fragment."""

PLAIN_HOST = re.compile(r"([\w.-]+|\[[0-9a-fA-F:.]+\]|[0-9a-fA-F]*:[0-9a-fA-F:]+)(:[0-9]{1,5})?")


DATABASE_ADDRESS = re.compile(r"postgres(ql)?(\+psycopg)?://.*", re.DOTALL)
QUEUE_ADDRESS = re.compile(r"(rediss?|unix)://.+", re.DOTALL)
CREDENTIAL = re.compile(r"[!-~]+")
"""What may stand in a header of HTTP: printable ASCII without spaces."""

FEWEST_WEB_THREADS, MOST_THREADS = 4, 1024
LAST_PORT = 65_535


def read_borrowed(environment: Mapping[str, str]) -> dict[str, str]:
    """Our settings by the names that label-studio-ml has for them; what is empty says nothing.

    `LABEL_STUDIO_HOST` is Label Studio's own setting too, and may hold a bare path there: that is no address.

    Examples
    --------
    >>> read_borrowed({"MODEL_DIR": "/data", "WORKERS": "2", "THREADS": "8", "LABEL_STUDIO_HOST": "/tools"})
    {'data_dir': '/data', 'web_threads': '16'}
    """
    host = environment.get("LABEL_STUDIO_HOST", "")
    found = {
        "data_dir": environment.get("MODEL_DIR", ""),
        "web_threads": _count_threads(environment.get("WORKERS", "") or "1", environment.get("THREADS", "")),
        "label_studio_url": host if WEB_ADDRESS.fullmatch(host) else "",
    }
    return {name: value for name, value in found.items() if value}


def _count_threads(workers: str, threads: str) -> str:
    """As many calls at once as there; one process of ours has the threads of all its processes."""
    if not threads:
        return ""
    if not (workers.isdecimal() and threads.isdecimal()):
        return f"{workers} x {threads}"  # which validation refuses
    return str(max(int(workers) * int(threads), FEWEST_WEB_THREADS))


class BorrowedNames(PydanticBaseSettingsSource):
    """The last source: what `read_borrowed` finds, for settings that have no value by our own names."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return read_borrowed(os.environ).get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        return dict(read_borrowed(os.environ))


class Settings(BaseSettings):
    """The environment of one process. Names are the environment variables in lower case."""

    model_config = SettingsConfigDict(env_file=None, extra="ignore", frozen=True, allow_inf_nan=False)

    # Label Studio
    label_studio_url: str = "http://127.0.0.1:8080"
    label_studio_api_key: SecretStr | None = None
    label_studio_venv: Path = Path(".venv-label-studio")

    # Who may call
    basic_auth_user: str | None = None
    basic_auth_pass: SecretStr | None = None
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = ()  # other names that this server is called by

    # Where things are kept
    data_dir: Path = Path(".brushloop")
    database_url: SecretStr | None = None
    redis_url: SecretStr | None = None

    # Learning
    min_pixels_per_class: int = Field(default=5000, ge=1)
    quiet_time_s: float = Field(default=2.0, ge=0)
    round_budget_s: float = Field(default=20.0, gt=0)
    round_warm_budget_s: float = Field(
        default=8.0, gt=0
    )  # the same for a round that goes on from the current model
    draft_s: float = Field(default=3.0, ge=0)  # 0: no draft before a round
    consolidate_s: float = Field(default=300.0, ge=0)  # of training over the same truth, 0: none
    round_steps: int | None = Field(default=None, ge=1)  # instead of seconds, for comparisons
    learners: Literal["all", "quick", "network"] = "all"
    training_threads: int | None = Field(default=None, ge=1, le=MOST_THREADS)
    device: str = "auto"  # for trainings and predictions alike
    encoder: str = ""  # of timm's, for networks that start over
    encoder_weights: Literal["random", "pretrained"] = "random"
    keep_models: int = Field(default=10, ge=1)  # versions whose files are kept, the current one apart

    # What is sent back
    regions: Literal["classes", "objects"] = "classes"
    send_background: bool = False
    max_questions: int = Field(default=5, ge=0, le=50)
    predict_deadline_s: float = Field(default=80.0, gt=0)
    predict_threads: int | None = Field(default=None, ge=1, le=MOST_THREADS)
    engine: Literal["auto", "torch", "openvino"] = "auto"  # what computes answers and maps on the processor

    # Review rounds
    score_tasks_per_round: int = Field(default=200, ge=0)  # 0: none
    score_budget_s: float = Field(default=120.0, gt=0)

    # Limits
    max_body_mb: int = Field(default=250, ge=1)
    max_image_mb: int = Field(default=512, ge=1)
    max_image_megapixels: int = Field(default=120, ge=1)
    image_cache_gb: float = Field(default=10.0, gt=0)
    allowed_image_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    allowed_image_folders: Annotated[tuple[Path, ...], NoDecode] = ()

    # Running
    brushloop_url: str = "http://127.0.0.1:9090"
    training_slots: int = Field(default=1, ge=1)  # rounds that one worker trains at the same time
    reconcile_every_s: float = Field(
        default=300.0, gt=0
    )  # how often Label Studio is asked for what webhooks missed
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    web_threads: int = Field(default=16, ge=FEWEST_WEB_THREADS, le=MOST_THREADS)

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], *args: Any, **sources: PydanticBaseSettingsSource
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (*args, *sources.values(), BorrowedNames(settings_cls))

    @field_validator("data_dir", "label_studio_venv", mode="before")
    @classmethod
    def _names_a_folder(cls, value: object) -> object:
        # An empty path means the current folder, which nobody asks for by leaving a variable empty.
        if isinstance(value, str) and not value.strip():
            raise ValueError("it is empty: name a folder, or unset it; the current folder is `.`")
        return value

    @field_validator("web_threads", mode="before")
    @classmethod
    def _whole_threads(cls, value: object) -> object:
        if isinstance(value, str) and not value.strip().isdecimal():
            raise ValueError(
                f"{value[:100]!r} is no number of threads: "
                "write WEB_THREADS, or WORKERS and THREADS, as whole numbers"
            )
        return value

    @field_validator("allowed_hosts", "allowed_image_hosts", "allowed_image_folders", mode="before")
    @classmethod
    def _split_commas(cls, value: object) -> object:
        return (
            tuple(part.strip() for part in value.split(",") if part.strip())
            if isinstance(value, str)
            else value
        )

    @field_validator("label_studio_url", "brushloop_url")
    @classmethod
    def _web_address(cls, value: str) -> str:
        found = WEB_ADDRESS.fullmatch(value)
        if not found or int((found[2] or ":0")[1:]) > LAST_PORT:
            raise ValueError(
                f"{value[:100]!r} is no web address: write it as http://host:8080 or https://host/path"
            )
        return value.rstrip("/")

    @field_validator("allowed_image_hosts")
    @classmethod
    def _plain_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for host in value:
            if not PLAIN_HOST.fullmatch(host):
                raise ValueError(
                    f"{host[:100]!r} is no host: write each as host or host:port, without scheme, path or *"
                )
        return value

    @field_validator(
        "label_studio_api_key",
        "basic_auth_user",
        "basic_auth_pass",
        "database_url",
        "redis_url",
        mode="before",
    )
    @classmethod
    def _empty_is_unset(cls, value: object) -> object:
        return value or None

    @field_validator("label_studio_api_key")
    @classmethod
    def _fits_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        key = value.get_secret_value().strip() if value else ""  # files and copies end with a line break
        if key and not CREDENTIAL.fullmatch(key):
            raise ValueError("a token holds only signs of ASCII, and no spaces: copy it anew")
        return SecretStr(key) if key else None

    @field_validator("basic_auth_user")
    @classmethod
    def _user_without_colon(cls, value: str | None) -> str | None:
        if value and ":" in value:
            raise ValueError("a user name that holds a colon cannot be sent: choose another")
        return value

    @field_validator("database_url", "redis_url")
    @classmethod
    def _known_scheme(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        # The message names no part of the value, which holds a password.
        if info.field_name == "database_url":
            pattern, form = DATABASE_ADDRESS, "postgresql://user:password@host/name, or unset it for SQLite"
        else:
            pattern, form = QUEUE_ADDRESS, "redis://host:6379/0, or unset it to do without Redis"
        if value and not pattern.fullmatch(value.get_secret_value()):
            raise ValueError(f"write it as {form}")
        return value

    @field_validator("redis_url")
    @classmethod
    def _needs_its_package(cls, value: SecretStr | None) -> SecretStr | None:
        if value and find_spec("redis") is None:
            raise ValueError("the package redis is missing: pip install 'brushloop[redis]', or unset it")
        return value


def child_environment(changes: Mapping[str, str], without: Collection[str] = ()) -> dict[str, str]:
    """The environment of this process with some changes, for a process that it starts."""
    kept = {name: value for name, value in os.environ.items() if name not in without}
    return {**kept, **changes}


def calm_idle_threads() -> None:
    """Have OpenMP's idle threads sleep instead of spin, in the children of this process.

    Call it before any child is started. Spinning threads of a training take the cores from the web process
    even when they have nothing to do.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


OWNER_VARIABLE = "BRUSHLOOP_OWNER"
"""The processes below a worker carry its name, so that a later worker finds those that outlived it."""


def mark_children(owner: str) -> None:
    """Have every process that this one starts from now on carry the name of its owner."""
    os.environ[OWNER_VARIABLE] = owner
