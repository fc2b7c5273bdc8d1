"""docker-compose.yml read as Docker reads it, as far as this project uses it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
COMPOSE_FILE = ROOT / "docker-compose.yml"

VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?:(?P<kind>:[-?])(?P<text>[^}]*))?\}")


class MissingVariableError(Exception):
    """A `${NAME:?...}` without a value."""


def load_compose(environment: Mapping[str, str]) -> dict[str, Any]:
    """The file with its variables filled in; raises `MissingVariableError` for a required one."""
    return yaml.safe_load(interpolate(COMPOSE_FILE.read_text(), environment))


def interpolate(text: str, environment: Mapping[str, str]) -> str:
    def fill_in(match: re.Match[str]) -> str:
        value = environment.get(match["name"], "")
        if not value and match["kind"] == ":?":
            raise MissingVariableError(match["name"])
        return value or (match["text"] if match["kind"] == ":-" else "")

    return VARIABLE.sub(fill_in, text)


def find_variables(kind: str) -> set[str]:
    """Names of all variables of a kind: `:?` required, `:-` with a default."""
    return {m["name"] for m in VARIABLE.finditer(COMPOSE_FILE.read_text()) if m["kind"] == kind}


def read_example() -> dict[str, str]:
    """The variables of .env.example."""
    lines = (ROOT / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
