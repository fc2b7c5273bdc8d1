"""All settings, read from the environment in this one place.

Every field is documented in `docs/settings.md`; a test compares the two, defaults too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

WEB_ADDRESS = re.compile(r"https?://([\w.-]+|\[[0-9a-fA-F:.]+\])(:[0-9]{1,5})?(/[^?#\s]*)?")
"""Scheme, host, maybe a port and a path; no user name, query or fragment."""

PLAIN_HOST = re.compile(r"([\w.-]+|\[[0-9a-fA-F:.]+\]|[0-9a-fA-F]*:[0-9a-fA-F:]+)(:[0-9]{1,5})?")


class Settings(BaseSettings):
    """The environment of one process. Names are the environment variables in lower case."""

    model_config = SettingsConfigDict(env_file=None, extra="ignore", frozen=True)

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
    training_threads: int | None = Field(default=None, ge=1)
    device: str = "auto"  # for trainings and predictions alike
    encoder: str = ""  # of timm's, for networks that start over
    encoder_weights: Literal["random", "pretrained"] = "random"
    keep_models: int = Field(default=10, ge=1)  # versions whose files are kept, the current one apart

    # What is sent back
    regions: Literal["classes", "objects"] = "classes"
    send_background: bool = False
    max_questions: int = Field(default=5, ge=0, le=50)
    predict_deadline_s: float = Field(default=80.0, gt=0)
    predict_threads: int | None = Field(default=None, ge=1)
    engine: Literal["auto", "torch", "openvino"] = "auto"  # what computes answers on the processor

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
    web_threads: int = Field(default=16, ge=4)

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
        if not WEB_ADDRESS.fullmatch(value):
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
