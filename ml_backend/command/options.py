"""Options that several commands share, and the settings below them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from ml_backend.config import Settings


class NewFolder(click.Path):
    """A folder that need not be there yet; an empty name, as of an unset variable, is not the current one."""

    def __init__(self) -> None:
        super().__init__(file_okay=False, path_type=Path)

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:
        if not str(value).strip():
            raise click.BadParameter("it is empty: name a folder; the current one is `.`", ctx, param)
        return super().convert(value, param, ctx)


data_dir_option = click.option(
    "--data-dir",
    type=NewFolder(),
    help="Where everything is kept [DATA_DIR].",
)
url_option = click.option("--url", help="Address of the Brushloop server [BRUSHLOOP_URL].")


class ProjectNumber(click.IntRange):
    """The number that Label Studio gives to a project."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if str(value).isascii() and str(value).isdigit() and 1 <= int(value) < 2**63:
            return int(value)
        raise click.BadParameter(
            f"{value!r} is no project; give its number, as in the address /projects/7/data of Label Studio. "
            "`brushloop status` lists the projects that are connected",
            ctx,
            param,
        )


project_argument = click.argument("project", type=ProjectNumber(min=1), required=False)


def settings_of(**given: Any) -> Settings:
    """The environment, with the options that were given on the command line above it."""
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        wrong = "; ".join(f"{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors())
        raise click.ClickException(f"a setting cannot be used: {wrong}") from None
