"""The command `brushloop export`: what a project knows, in the forms of other tools."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.markup import escape

from ml_backend.command.options import NewFolder, ProjectNumber, data_dir_option, settings_of

if TYPE_CHECKING:
    from ml_backend.command.project_results import Kept, ProjectResults, Segment, What
    from ml_backend.config import Settings

console = Console()

FORMS = ("png", "instances", "coco", "yolo", "nnunet", "imagej", "geojson", "labelstudio")


@click.command()
@click.argument("project", type=ProjectNumber(min=1))
@click.option("--out", type=NewFolder(), required=True, help="Where results go.")
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
    from ml_backend.command.project_results import ProjectResults

    kept, segment = open_kept(settings_of(data_dir=data_dir), what)
    with closing(kept.database):
        results = ProjectResults(kept, project, what, segment, only_submitted=images == "submitted")
        n_images = write_form(form, out, results)
    console.print(f"{n_images} images: {out}", highlight=False, soft_wrap=True)
    for task_id, problem in results.left_out:
        line = f"[yellow]left out:[/] task {task_id}: {escape(problem)}"
        console.print(line, highlight=False, soft_wrap=True)
    if results.left_out:
        raise click.exceptions.Exit(1)


def open_kept(settings: Settings, what: What) -> tuple[Kept, Segment | None]:
    """Where results are read, and what predicts; truth alone does without torch."""
    from ml_backend.outside import open_outside

    if what == "truth":
        return open_outside(settings), None
    from ml_backend.bootstrap import build_loop

    loop = build_loop(settings)
    return loop.parts, loop.segment


def write_form(form: str, out: Path, results: ProjectResults) -> int:
    """Write all results in one of `FORMS`; returns how many images that were."""
    from export.formats import WRITERS
    from ml_backend.command.label_studio_file import write_label_studio

    if form != "labelstudio":
        return WRITERS[form](out, results, results.schema)
    model = None if results.what == "truth" else results.model
    version = None if model is None else f"export-{model.model_version}"
    return write_label_studio(out, results, results.config, version)
