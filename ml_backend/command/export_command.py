"""The command `brushloop export`: what a project knows, in the forms of other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape

from ml_backend.command.options import ProjectNumber, data_dir_option, settings_of

console = Console()

FORMS = ("png", "instances", "coco", "yolo", "nnunet", "imagej", "geojson")


@click.command()
@click.argument("project", type=ProjectNumber(min=1))
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Where results go."
)
@click.option("--form", type=click.Choice(FORMS), default="png", show_default=True)
@click.option(
    "--what",
    type=click.Choice(("truth", "predictions", "both")),
    default="truth",
    show_default=True,
    help="What people painted, what the current model says, or the first over the second.",
)
@click.option(
    "--images",
    type=click.Choice(("submitted", "all")),
    default="submitted",
    show_default=True,
    help="Those that people painted in, or all of the project that are known.",
)
@data_dir_option
def export(project: int, out: Path, form: str, what: Any, images: str, data_dir: Path | None) -> None:
    """Write what is known of a PROJECT as files that other tools read.

    What cannot be given is listed with its reason, and the exit code is 1.
    """
    from export.formats import WRITERS
    from ml_backend.bootstrap import build_parts
    from ml_backend.command.project_results import ProjectResults

    parts = build_parts(settings_of(data_dir=data_dir))
    results = ProjectResults(parts, project, what, only_submitted=images == "submitted")
    n_images = WRITERS[form](out, results, results.schema)
    console.print(f"{n_images} images: {out}", highlight=False, soft_wrap=True)
    for task_id, problem in results.left_out:
        line = f"[yellow]left out:[/] task {task_id}: {escape(problem)}"
        console.print(line, highlight=False, soft_wrap=True)
    if results.left_out:
        raise click.exceptions.Exit(1)
