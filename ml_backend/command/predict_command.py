"""The command `brushloop predict`: a folder of images in, label maps and a table of objects out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ml_backend.command.options import NewFolder, ProjectNumber, data_dir_option, settings_of
from ml_backend.config import Settings

if TYPE_CHECKING:
    from ml_backend.command.found_files import FoundFiles

MEGA = 1_000_000

console = Console()


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--model",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of a published model.",
)
@click.option("--project", type=ProjectNumber(min=1), help="Or the project whose model answers.")
@click.option("--version", help="One of the project's versions [the current one].")
@click.option("--out", type=NewFolder(), required=True, help="Where results go.")
@click.option(
    "--label-maps", type=click.Choice(("png", "tiff")), default="png", show_default=True, help="Their form."
)
@click.option("--probabilities", is_flag=True, help="Write those of each class too, as OME-TIFF.")
@click.option("--uncertainty", is_flag=True, help="Write entropy and mutual information too, as OME-TIFF.")
@click.option("--overlays/--no-overlays", default=True, show_default=True, help="Pictures for people.")
@click.option(
    "--table", type=click.Choice(("csv", "parquet")), default="csv", show_default=True, help="Of objects."
)
@click.option("--axes", help="What the pages of files are that do not say it, such as ZYX or CYX.")
@click.option(
    "--range",
    "number_range",
    type=(float, float),
    help="As for import: the values of float and 32-bit files that become 0 and 65535.",
)
@click.option("--device", help="cpu, cuda, cuda:1 or auto [DEVICE].")
@click.option("--processes", type=click.IntRange(1), default=1, show_default=True)
@data_dir_option
def predict(
    folder: Path,
    model: Path | None,
    project: int | None,
    version: str | None,
    out: Path,
    table: str,
    axes: str | None,
    number_range: tuple[float, float] | None,
    device: str | None,
    processes: int,
    data_dir: Path | None,
    **wanted: Any,
) -> None:
    """Segment the images of FOLDER with a trained model, without Label Studio or a server.

    Everything that `brushloop import` reads is read; slices and moments have results of their own.

    Stopped and started again with the same options, it goes on where it was. What cannot be read is listed
    with its reason, also in OUT/left_out.csv, and the exit code is 1.
    """
    from ml_backend.command.found_files import find_files
    from ml_backend.command.import_files import Reading
    from ml_backend.command.predict_folder import (
        Outcome,
        Wanted,
        Work,
        name_results,
        predict_images,
        read_rows,
        share_threads,
    )
    from ml_backend.label_studio.image_frame import ImageLimits

    settings = settings_of(data_dir=data_dir, device=device)
    work = Work(
        folder=folder,
        out=out,
        model=_find_model(settings, model, project, version),
        wanted=Wanted(**wanted),
        limits=ImageLimits(settings.max_image_mb * MEGA, settings.max_image_megapixels * MEGA),
        device=settings.device,
        engine=settings.engine,
        n_threads=settings.predict_threads or share_threads(processes),
        reading=Reading(axes, number_range),
    )
    found = find_files(folder, without=out)
    images = name_results(found, folder)
    outcomes: list[Outcome] = []
    with _progress() as progress:
        bar = progress.add_task("images", total=len(images))
        for outcome in predict_images(work, images, processes):
            outcomes.append(outcome)
            progress.advance(bar)
    names = [name for _, name in images]
    # Read twice, for the columns and for the rows: no memory holds the objects of a large folder.
    n_objects, columns = _columns_of(read_rows(out, names))
    _save_table(out / f"objects.{table}", read_rows(out, names), columns)
    _save_table(out / "left_out.csv", _left_out(folder, outcomes, found), ("image", "reason"))
    _report(outcomes, n_objects, out, found)


def _columns_of(rows: Any) -> tuple[int, list[str]]:
    """How many rows there are, and the columns that any of them has."""
    columns = dict.fromkeys(("image", "label", "class", "area"))
    n_rows = 0
    for row in rows:
        n_rows += 1
        columns.update(dict.fromkeys(row))
    return n_rows, list(columns)


def _save_table(path: Path, rows: Any, columns: Sequence[str]) -> None:
    from export.objects_table import save_csv, save_parquet

    (save_parquet if path.suffix == ".parquet" else save_csv)(path, rows, columns)


def _left_out(folder: Path, outcomes: Sequence[Any], found: FoundFiles) -> list[dict[str, str]]:
    unread = [{"image": name, "reason": problem} for name, problem in found.left_out]
    problems = [outcome for outcome in outcomes if outcome.problem is not None]
    return unread + [
        {"image": outcome.path.relative_to(folder).as_posix(), "reason": outcome.problem}
        for outcome in sorted(problems, key=lambda outcome: outcome.path)
    ]


def _report(outcomes: Sequence[Any], n_objects: int, out: Path, found: FoundFiles) -> None:
    problems = [outcome for outcome in outcomes if outcome.problem is not None]
    n_before = sum(outcome.was_done for outcome in outcomes)
    earlier = f" ({n_before} of them before)" if n_before else ""
    console.print(
        f"{len(outcomes) - len(problems)} of {len(outcomes)} images{earlier}, {n_objects} objects: {out}",
        highlight=False,
        soft_wrap=True,
    )
    notes = [(outcome.path.name, remark) for outcome in outcomes for remark in outcome.remarks]
    unread = [*found.left_out, *((outcome.path.name, outcome.problem) for outcome in problems)]
    for word, rows in (("[cyan]note:[/]", notes), ("[yellow]left out:[/]", unread)):
        for name, text in rows:
            console.print(f"{word} {escape(name)}: {escape(text)}", highlight=False, soft_wrap=True)
    if unread:
        raise click.exceptions.Exit(1)


def _find_model(settings: Settings, model: Path | None, project: int | None, version: str | None) -> Path:
    """The folder of the model that was asked for, in one of two ways."""
    if (model is None) == (project is None):
        raise click.UsageError("say which model: either --model FOLDER or --project NUMBER")
    if model is not None:
        if version is not None:
            raise click.UsageError("--version goes with --project; --model names one version already")
        return model
    assert project is not None  # noqa: S101 - checked above
    from ml_backend.command.published_models import find_published

    return find_published(settings, project, version).folder


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not os.isatty(1),
    )
